//! The calls of `permits`: permits of rates, the groups that have due tasks, and how many tasks run.

use super::{scripts::ms, shard_client::ShardClient};
use crate::Error;
use futures_util::future::try_join_all;
use hostel_task::{Name, Rate};
use redis::ScriptInvocation;
use std::time::Duration;

/// How long a group that runs as many tasks as it may waits before `next_due` has a node look again, in
/// milliseconds. A lease that finds room for it ends the wait.
pub(super) const WAIT_MS: u64 = 500;

/// How many groups with due tasks one request looks at: several times those that it may have tasks of, and at
/// least and at most so many.
const GROUPS: (usize, usize, usize) = (4, 64, 512);

/// Stands for any number of permits, and is still a whole number in Lua.
const MOST: usize = 1 << 40;

/// Takes permits of the rates of a type and of its groups; without a rate, all are taken. Returns how many of each,
/// and how long until the next one in milliseconds; nothing if another queue has the right to lease.
pub(super) async fn take_permits(
    client: &ShardClient,
    task_type: &Name,
    hold: Duration,
    of_type: (Option<Rate>, usize),
    groups: &[(&Name, Option<Rate>, usize)],
) -> Result<Vec<(usize, u64)>, Error> {
    let shard = client.shard_of_text(task_type.as_str());
    let answer = client.call(shard, &client.scripts.permits_take, |call| {
        let (rate, want) = of_type;
        call.arg(task_type.as_str()).arg(ms(hold));
        push_rate(call, rate, want);
        for &(group, rate, want) in groups {
            call.arg(group.as_str());
            push_rate(call, rate, want);
        }
    });
    let answer: Vec<u64> = answer.await?;
    let Some((0, taken)) = answer.split_first() else {
        return Ok(Vec::new());
    };
    let pairs = taken.chunks_exact(2).map(|pair| {
        let taken = usize::try_from(pair[0]).unwrap_or(usize::MAX);
        (taken, pair[1])
    });
    Ok(pairs.collect())
}

/// Adds a rate, zeros without one, and how many permits to take.
fn push_rate(call: &mut ScriptInvocation<'_>, rate: Option<Rate>, want: usize) {
    call.arg(rate.map_or(0, Rate::units_per_ms))
        .arg(rate.map_or(0, Rate::capacity))
        .arg(want.min(MOST));
}

/// Returns the groups of a type that have a due task, in the order of their turns within each shard.
pub(super) async fn waiting_groups(
    client: &ShardClient,
    task_type: &Name,
    max: usize,
) -> Result<Vec<Name>, Error> {
    let (times, least, most) = GROUPS;
    let count = max.saturating_mul(times).clamp(least, most);
    let waiting = client.shards().map(async |shard| {
        let groups: Vec<(String, String)> = client
            .call(shard, &client.scripts.waiting_groups, |call| {
                call.arg(count).arg(WAIT_MS).arg(task_type.as_str());
            })
            .await?;
        Ok::<_, Error>(groups)
    });
    let mut groups = Vec::new();
    for (_, group) in try_join_all(waiting).await?.into_iter().flatten() {
        if let Ok(group) = Name::parse("group", &group)
            && !groups.contains(&group)
        {
            groups.push(group);
        }
    }
    Ok(groups)
}

/// Returns how many tasks run of each type or group, in all and on the node.
pub(super) async fn running(
    client: &ShardClient,
    node: &Name,
    scopes: &[String],
) -> Result<Vec<(usize, usize)>, Error> {
    let counts = client.shards().map(async |shard| {
        let counts: Vec<(usize, usize)> = client
            .call(shard, &client.scripts.running, |call| {
                call.arg(node.as_str());
                for scope in scopes {
                    call.arg(scope.as_str());
                }
            })
            .await?;
        Ok::<_, Error>(counts)
    });
    let mut sums = vec![(0, 0); scopes.len()];
    for of_shard in try_join_all(counts).await? {
        for ((all, here), (more, more_here)) in sums.iter_mut().zip(of_shard) {
            *all += more;
            *here += more_here;
        }
    }
    Ok(sums)
}
