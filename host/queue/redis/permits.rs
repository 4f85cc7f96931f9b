//! The limits of task types on all nodes together: how many tasks of a type and of its groups run, and how often
//! they begin. What runs is what has a lease, in whichever shard, so that a place is never counted twice or lost.
//!
//! A script sees one shard. So the leases of a limited type come one after the other: the shard that the name of
//! the type hashes to gives one queue at a time the right to lease its tasks, for a time. The queue that has the
//! right
//!
//! 1. takes permits of the rates, which are in the same shard,
//! 2. counts the leases of all shards,
//! 3. leases no more than both leave (`scripts/lease.lua`),
//! 4. returns what it has not used, and the right.
//!
//! If it dies, the right expires, its permits are spent, and its leases count until they are ended. Types without
//! limits take no part in this.

use super::{
    permit_calls::{WAIT_MS, running, take_permits, waiting_groups},
    shard_client::ShardClient,
};
use crate::{Error, LeaseRequest, Leased, RequestedType};
use futures_util::future::join_all;
use hostel_task::{GroupLimits, Limits, Name, Rate};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::OwnedMutexGuard;

/// How long a queue has the right to lease tasks of a type, unless it returns it before.
const HOLD: Duration = Duration::from_secs(20);

/// How long it leases at most. A script may be on its way for some seconds after that.
const LEASES_WITHIN: Duration = Duration::from_secs(5);

/// What the limits leave of a request. It has to be given back.
pub(super) struct Permits {
    types: Vec<TypePermits>,
    began: Instant,
    /// Leases of one queue come one after the other, too.
    _guard: Option<OwnedMutexGuard<()>>,
}

struct TypePermits {
    task_type: Name,
    /// Whether this queue has the right to lease tasks of the type.
    is_held: bool,
    left: usize,
    rate: Option<TakenRate>,
    /// The groups that have a due task, if groups have limits.
    groups: Option<(u64, BTreeMap<Name, GroupPermits>)>,
}

struct GroupPermits {
    left: usize,
    /// How long the group waits once nothing is left, in milliseconds; 0 if more may be left by the next request.
    wait: u64,
    rate: Option<TakenRate>,
}

/// Permits that were taken and are not used yet.
struct TakenRate {
    rate: Rate,
    unused: usize,
}

impl TakenRate {
    fn take(&mut self) {
        self.unused = self.unused.saturating_sub(1);
    }
}

/// What the limits of a group leave, without its rate.
struct GroupRoom {
    group: Name,
    room: usize,
    want: usize,
    rate: Option<Rate>,
}

/// Returns the limits of the groups of a type that restrict leases.
fn lease_limits(requested: &RequestedType) -> Option<&Arc<GroupLimits>> {
    let restricts = |limits: &Limits| {
        limits.max_concurrency.is_some()
            || limits.max_cluster_concurrency.is_some()
            || limits.max_rate.is_some()
    };
    let groups = requested.groups.as_ref();
    groups.filter(|groups| groups.all().any(restricts))
}

/// Whether tasks of a type are leased by permits.
fn is_limited(requested: &RequestedType) -> bool {
    let of_type = requested.max_cluster_concurrency.is_some() || requested.max_rate.is_some();
    of_type || lease_limits(requested).is_some()
}

/// Returns the limited types of a request that it may have tasks of.
fn limited_types(request: &LeaseRequest) -> Vec<(&Name, &RequestedType)> {
    let types = request.types.iter().filter(|(name, requested)| {
        is_limited(requested)
            && request.only.as_ref().is_none_or(|only| only == *name)
            && request.remaining_of(name, requested) > 0
    });
    types.collect()
}

/// A number that differs for other limits.
fn fingerprint(groups: &GroupLimits) -> u64 {
    let named: BTreeMap<&Name, &Limits> = groups.named.iter().collect();
    let text = format!("{:?} {named:?}", groups.each);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Lua has 53 bits.
    hash >> 12
}

impl Permits {
    /// Takes the permits of a request, and restricts the request to them.
    pub async fn take(client: &ShardClient, request: &mut LeaseRequest) -> Self {
        let began = Instant::now();
        let limited = limited_types(request);
        if limited.is_empty() {
            return Self {
                types: Vec::new(),
                began,
                _guard: None,
            };
        }
        let guard = client.limited_leases.clone().lock_owned().await;
        let types = limited
            .into_iter()
            .map(|(name, requested)| take_type(client, request, name, requested));
        let types = join_all(types).await;
        for of_type in &types {
            let (task_type, left) = (of_type.task_type.clone(), of_type.left);
            request.remaining.insert(task_type, left);
        }
        Self {
            types,
            began,
            _guard: Some(guard),
        }
    }

    /// Whether the right may expire before a further script has run.
    pub fn is_over(&self) -> bool {
        !self.types.is_empty() && self.began.elapsed() > LEASES_WITHIN
    }

    /// Returns what the lease script needs of the groups: pairs of arguments.
    pub fn rooms(&self) -> Vec<(String, String)> {
        let mut rooms = Vec::new();
        for of_type in &self.types {
            let Some((number, groups)) = &of_type.groups else {
                continue;
            };
            let task_type = &of_type.task_type;
            rooms.push((format!("{task_type}/"), format!("{number} 0")));
            for (group, GroupPermits { left, wait, .. }) in groups {
                rooms.push((format!("{task_type}/{group}"), format!("{left} {wait}")));
            }
        }
        rooms
    }

    /// Subtracts tasks that were leased.
    pub fn subtract(&mut self, leased: &[Leased]) {
        for task in leased {
            let mut types = self.types.iter_mut();
            let Some(of_type) = types.find(|it| it.task_type == task.task_type) else {
                continue;
            };
            of_type.rate.iter_mut().for_each(TakenRate::take);
            if let (Some(group), Some((_, groups))) = (task.group(), &mut of_type.groups)
                && let Some(of_group) = groups.get_mut(group)
            {
                of_group.left = of_group.left.saturating_sub(1);
                of_group.rate.iter_mut().for_each(TakenRate::take);
            }
        }
    }

    /// Returns the rights, and the permits that were not used: none if `is_certain` is false, because a script
    /// may have leased tasks without an answer.
    pub async fn give_back(self, client: &ShardClient, is_certain: bool) {
        let held = self.types.iter().filter(|of_type| of_type.is_held);
        join_all(held.map(|of_type| give_back(client, of_type, is_certain))).await;
    }
}

async fn give_back(client: &ShardClient, of_type: &TypePermits, is_certain: bool) {
    let task_type = &of_type.task_type;
    let groups = of_type.groups.iter().flat_map(|(_, groups)| groups);
    let groups = groups.map(|(group, of_group)| {
        let scope = format!("{task_type}/{group}");
        (scope, of_group.rate.as_ref())
    });
    let rates = [(task_type.to_string(), of_type.rate.as_ref())];
    let unused: Vec<(String, &TakenRate)> = rates
        .into_iter()
        .chain(groups)
        .filter_map(|(scope, taken)| Some((scope, taken?)))
        .filter(|(_, taken)| is_certain && taken.unused > 0)
        .collect();
    let shard = client.shard_of_text(task_type.as_str());
    let given: Result<(), Error> = client
        .call(shard, &client.scripts.permits_give, |call| {
            call.arg(task_type.as_str());
            for (scope, taken) in &unused {
                call.arg(scope.as_str())
                    .arg(taken.rate.units_per_ms())
                    .arg(taken.unused);
            }
        })
        .await;
    if let Err(error) = given {
        // The right expires.
        tracing::debug!(%task_type, "cannot return permits: {error}");
    }
}

/// Takes the permits of one type. Without an answer there are none.
async fn take_type(
    client: &ShardClient,
    request: &LeaseRequest,
    task_type: &Name,
    requested: &RequestedType,
) -> TypePermits {
    let mut permits = TypePermits {
        task_type: task_type.clone(),
        is_held: false,
        left: 0,
        rate: None,
        groups: lease_limits(requested).map(|groups| (fingerprint(groups), BTreeMap::new())),
    };
    let want = request.remaining_of(task_type, requested).min(request.max);
    if let Err(error) = fill(client, request, requested, want, &mut permits).await {
        permits.left = 0;
        if let Some(left_out) = client.log_limit.permit() {
            tracing::warn!(%task_type, left_out, "cannot take permits of a limited task type: {error}");
        }
    }
    permits
}

async fn fill(
    client: &ShardClient,
    request: &LeaseRequest,
    requested: &RequestedType,
    want: usize,
    permits: &mut TypePermits,
) -> Result<(), Error> {
    let task_type = permits.task_type.clone();
    let rate = requested.max_rate;
    let of_type = (rate, want);
    let answer = take_permits(client, &task_type, HOLD, of_type, &[]).await?;
    let Some(&(taken, _)) = answer.first() else {
        // Another queue leases tasks of the type.
        return Ok(());
    };
    permits.is_held = true;
    permits.rate = rate.map(|rate| TakenRate {
        rate,
        unused: taken,
    });
    let groups = match lease_limits(requested) {
        Some(_) => waiting_groups(client, &task_type, request.max).await?,
        None => Vec::new(),
    };
    let scopes = [task_type.to_string()].into_iter();
    let of_groups = groups.iter().map(|group| format!("{task_type}/{group}"));
    let scopes: Vec<String> = scopes.chain(of_groups).collect();
    let running = running(client, &request.node, &scopes).await?;
    let in_cluster = requested.max_cluster_concurrency.unwrap_or(usize::MAX);
    let (in_all, _) = running.first().copied().unwrap_or_default();
    permits.left = taken.min(in_cluster.saturating_sub(in_all));
    let (Some(limits), Some((_, taken_groups))) = (lease_limits(requested), &mut permits.groups)
    else {
        return Ok(());
    };
    let left = permits.left;
    let rooms = groups.into_iter().zip(running.into_iter().skip(1));
    let rooms: Vec<GroupRoom> = rooms
        .map(|(group, (in_all, on_node))| {
            let limits = limits.of(&group);
            let left_of = |max: Option<usize>, running: usize| {
                max.map_or(usize::MAX, |max| max.saturating_sub(running))
            };
            let room = left_of(limits.max_cluster_concurrency, in_all)
                .min(left_of(limits.max_concurrency, on_node));
            GroupRoom {
                want: room.min(left),
                rate: limits.max_rate,
                group,
                room,
            }
        })
        .collect();
    let asked: Vec<(&Name, Option<Rate>, usize)> = rooms
        .iter()
        .map(|room| (&room.group, room.rate, room.want))
        .collect();
    let answer = take_permits(client, &task_type, Duration::ZERO, (None, 0), &asked).await?;
    // The first answer is that of the type, of which nothing more was taken.
    for (room, (taken, wait)) in rooms.into_iter().zip(answer.into_iter().skip(1)) {
        let wait = if taken < room.want {
            wait.max(1)
        } else if room.want == room.room {
            WAIT_MS
        } else {
            0
        };
        let of_group = GroupPermits {
            left: taken,
            wait,
            rate: room.rate.map(|rate| TakenRate {
                rate,
                unused: taken,
            }),
        };
        taken_groups.insert(room.group, of_group);
    }
    Ok(())
}

/// Restricts a request to the types that may run now, without taking anything. Returns it with the types that wait
/// for their rate, and how long in milliseconds. Groups at their limits wait in their backlogs.
pub(super) async fn look(
    client: &ShardClient,
    request: &LeaseRequest,
) -> Result<(LeaseRequest, Vec<(Name, u64)>), Error> {
    let (mut open, mut waits) = (request.clone(), Vec::new());
    for (task_type, requested) in limited_types(request) {
        let scopes = [task_type.to_string()];
        let mut may_run = true;
        if let Some(max) = requested.max_cluster_concurrency {
            let running = running(client, &request.node, &scopes).await?;
            may_run = running.first().is_some_and(|&(running, _)| running < max);
        }
        if let (Some(rate), true) = (requested.max_rate, may_run) {
            let of_type = (Some(rate), 0);
            let answer = take_permits(client, task_type, Duration::ZERO, of_type, &[]).await?;
            if let Some(&(_, wait @ 1..)) = answer.first() {
                waits.push((task_type.clone(), wait));
                may_run = false;
            }
        }
        if !may_run {
            open.remaining.insert(task_type.clone(), 0);
        }
    }
    Ok((open, waits))
}
