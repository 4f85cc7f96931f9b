//! What can be seen of the tasks: one, a page of them, how many there are, which have lost their
//! holder. Changes no task.

use super::{
    core::{Core, ms},
    ending, leases,
    row::{self, BULK, FIELDS},
};
use crate::{Counts, Error, Expired, Filter, LeaseRequest, LeaseToken, Listing, Page};
use futures_util::future::{join_all, try_join_all};
use hostel_task::{Name, State, Task, TaskId};
use redis::cmd;
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// What no page exceeds.
const MAX_PAGE: usize = 1000;

/// How many tasks one script looks at, so that a filter which finds little holds up no submit.
const LOOK: usize = 1000;

/// How long what this queue has completed is answered from memory, at most: it does not change, but
/// other nodes may forget it.
const KNOWN: Duration = Duration::from_secs(60);

pub(super) async fn get(core: &Core, id: &TaskId) -> Result<Option<Task>, Error> {
    if let Some(task) = core.recent.get(id)
        && let State::Completed { finished_at, .. } = task.state
        && core.now().0.abs_diff(finished_at.0) < ms(KNOWN).min(core.kept.load(Ordering::Relaxed))
    {
        return Ok(Some(Arc::unwrap_or_clone(task)));
    }
    let tag = &core.tags[core.shard_of(id)];
    let mut get = cmd("HMGET");
    get.arg(format!("{tag}:t:{id}")).arg(&FIELDS).arg(&BULK);
    let mut connection = core.connection();
    match core.within(get.query_async(&mut connection)).await {
        Ok(values) => Ok(row::task(id.clone(), values)),
        // Something else is in its place.
        Err(error @ Error::Corrupt(_)) => Ok(Some(row::unreadable(id.clone(), &error))),
        Err(error) => Err(error),
    }
}

pub(super) async fn counts(core: &Core) -> Result<Counts, Error> {
    let mut counts = Counts::new();
    for tag in &core.tags {
        let mut all = cmd("HGETALL");
        all.arg(format!("{tag}:n"));
        let mut connection = core.connection();
        let all: HashMap<String, String> = core.within(all.query_async(&mut connection)).await?;
        for (field, count) in all {
            // Other counters have no space in their names.
            let Some((letter, task_type)) = field.split_once(' ') else {
                continue;
            };
            let state = row::state(letter);
            let name = Name::parse("task type", task_type).ok();
            if let (Some(state), Some(name), Ok(count)) = (state, name, count.parse::<u64>()) {
                *counts.entry((name, state)).or_insert(0) += count;
            }
        }
    }
    Ok(counts)
}

pub(super) async fn next_due(core: &Core, want: &LeaseRequest) -> Result<Option<Duration>, Error> {
    let first = first(core, want, false).await?;
    Ok(first.map(|(due, _)| Duration::from_millis(due)))
}

pub(super) async fn oldest_blocked(
    core: &Core,
    want: &LeaseRequest,
) -> Result<Option<Name>, Error> {
    Ok(first(core, want, true)
        .await?
        .map(|(_, task_type)| task_type))
}

/// The first of what all shards answer.
async fn first(
    core: &Core,
    want: &LeaseRequest,
    passed: bool,
) -> Result<Option<(u64, Name)>, Error> {
    if want.types.is_empty() {
        return Ok(None);
    }
    let asked = core
        .shards()
        .map(async |shard| (shard, leases::first(core, shard, want, passed).await));
    let first = core.working("ask for the next due task", join_all(asked).await)?;
    Ok(first.into_iter().flatten().min())
}

/// Id, fence, type, attempt, whether its end was asked for, and its losses so far.
type Late = (String, u64, String, u32, u8, u32);

pub(super) async fn expired(
    core: &Core,
    ttl: Duration,
    except: &[Name],
    max: usize,
) -> Result<Vec<Expired>, Error> {
    let (mut expired, mut answers) = (Vec::new(), Vec::new());
    for shard in core.shards() {
        let left = max - expired.len();
        if left == 0 {
            break;
        }
        let late = core
            .call(shard, &core.scripts.expired, |call| {
                call.arg(left).arg(LOOK).arg(ms(ttl));
                for task_type in except {
                    call.arg(task_type.as_str());
                }
            })
            .await;
        let late: Vec<Late> = match late {
            Ok(late) => late,
            Err(error) => {
                answers.push((shard, Err(error)));
                continue;
            }
        };
        answers.push((shard, Ok(())));
        let mut damaged = Vec::new();
        for (id, fence, task_type, attempt, asked, losses) in late {
            let names = Name::parse("task type", &task_type)
                .and_then(|task_type| Ok((task_type, Name::parse("task id", &id)?)));
            match names {
                Ok((task_type, id)) => expired.push(Expired {
                    task_type,
                    token: LeaseToken { id, fence },
                    attempt,
                    losses,
                    cancel_requested: asked == 1,
                }),
                Err(error) => damaged.push((id, fence, error.to_string())),
            }
        }
        ending::condemn(core, shard, &damaged).await;
    }
    core.working("look for lost attempts", answers)?;
    Ok(expired)
}

/// A task's place among all: when it was submitted, and its id, as Redis gave them.
type Place = (String, String);

/// Reads a page token: the place of the last task of the page before.
pub(super) fn parse_token(token: Option<&str>) -> Result<Option<Place>, Error> {
    let Some(token) = token else {
        return Ok(None);
    };
    let place = || {
        let (order, id) = token.strip_prefix('p')?.split_once('-')?;
        order.parse::<u64>().ok()?;
        Name::parse("task id", id).ok()?;
        let plain = order.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| (order.to_owned(), id.to_owned()))
    };
    place().map(Some).ok_or(Error::BadPage)
}

/// What one look brings: where it stopped, and id, order and fields of each task.
type Rows = (String, String, Vec<(String, String, Vec<Option<Vec<u8>>>)>);

/// The newest tasks after the place given that pass the filter, of all shards together.
pub(super) async fn list(
    core: &Core,
    filter: &Filter,
    page: &Page,
    after: Option<Place>,
) -> Result<Listing, Error> {
    let size = page.size.clamp(1, MAX_PAGE);
    // One more than the page tells whether there are more.
    let shards = core
        .shards()
        .map(|shard| of_shard(core, shard, filter, size + 1, after.clone()));
    let mut found: Vec<(u64, Task)> = try_join_all(shards).await?.into_iter().flatten().collect();
    found.sort_unstable_by(|(a, x), (b, y)| (b, &y.id).cmp(&(a, &x.id)));
    let more = found.len() > size;
    found.truncate(size);
    let last = found.last().filter(|_| more);
    Ok(Listing {
        next: last.map(|(order, task)| format!("p{order}-{}", task.id)),
        tasks: found.into_iter().map(|(_, task)| task).collect(),
    })
}

async fn of_shard(
    core: &Core,
    shard: usize,
    filter: &Filter,
    size: usize,
    mut after: Option<Place>,
) -> Result<Vec<(u64, Task)>, Error> {
    let mut found = Vec::new();
    loop {
        let left = size - found.len();
        let (order, id, rows): Rows = core
            .call(shard, &core.scripts.list, |call| {
                let state = filter.state.map(|state| row::letter(state).to_string());
                let (order, id) = after.take().unwrap_or_default();
                call.arg(state.unwrap_or_default());
                call.arg(filter.task_type.as_ref().map_or("", Name::as_str));
                call.arg(left).arg(order).arg(id).arg(LOOK);
            })
            .await?;
        for (id, order, fields) in rows {
            // What is called as no task can be, cannot be asked for either.
            if let (Ok(id), Ok(order)) = (Name::parse("task id", &id), order.parse()) {
                found.extend(row::task(id, fields).map(|task| (order, task)));
            }
        }
        if order.is_empty() || found.len() >= size {
            return Ok(found);
        }
        after = Some((order, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_fuzz as fuzz;

    #[test]
    fn fuzz_page_tokens() {
        let samples = ["p1-task", "p18446744073709551615-order:4711"];
        fuzz::each(|near| {
            let token = near.text(&samples);
            if let Ok(place) = parse_token(Some(&token)) {
                let (order, id) = place.expect("a place");
                // Lua's arguments.
                assert!(order.parse::<u64>().is_ok());
                assert!(Name::parse("id", &id).is_ok());
            }
        });
    }
}
