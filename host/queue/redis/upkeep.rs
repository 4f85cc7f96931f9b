//! What goes on behind the calls: finding out whether the shards work, still have their data and have
//! room, what durability the server gives, again and again since its settings can change, and mending what
//! sets and counters have lost.

use super::{
    core::Core,
    faults::{AWAY, EVICTION, FULL, LOST, SHARD},
    memory,
};
use crate::{Durability, Error};
use futures_util::future::join_all;
use hostel_redis::{Nodes, is_refusal};
use redis::{RedisError, cmd};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How often to ask whether the shards work.
const EVERY: Duration = Duration::from_secs(2);

/// Every how many times to look at the settings and through tasks, and how many tasks each look goes
/// through: in how many steps, and how many tasks each of them, so that none holds up the server.
const SWEEP: u32 = 5;
const STEPS: usize = 4;
const LOOK: usize = 500;

/// What the server was found to give.
#[derive(Default)]
pub(super) struct Found(Mutex<Option<Durability>>);

impl Found {
    pub fn get(&self) -> Durability {
        let found = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.unwrap_or(Durability::Unknown)
    }

    /// Says so when it is another than before.
    fn set(&self, durability: Durability) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if found.replace(durability) != Some(durability) {
            let durability = durability.as_str();
            tracing::info!(durability, "what tasks in Redis survive");
        }
    }
}

/// Looks for ever.
pub(super) async fn run(core: Arc<Core>, found: Arc<Found>) {
    for turn in (0..SWEEP).cycle() {
        tokio::time::sleep(EVERY).await;
        core.faults.forget_old();
        if !ask_shards(&core).await {
            continue;
        }
        ask_memory(&core).await;
        if turn + 1 < SWEEP {
            continue;
        }
        match look(&core, &found).await {
            Ok(()) => core.faults.over(EVICTION),
            Err(Error::Misconfigured(why)) => core.faults.degraded(EVICTION, why),
            Err(error) => tracing::debug!("cannot ask for the settings of Redis: {error}"),
        }
        sweep_all(&core).await;
    }
}

/// Whether any shard works. One that is in another store than before has lost its tasks.
async fn ask_shards(core: &Core) -> bool {
    let asked = core
        .shards()
        .map(async |shard| (shard, core.open(shard).await));
    let (mut works, mut away, mut lost) = (false, None, Vec::new());
    for (shard, opened) in join_all(asked).await {
        match opened {
            Ok(opened) => {
                works = true;
                if core.stores.found(shard, opened.store) {
                    lost.push(shard.to_string());
                }
            }
            Err(error) => away = Some(error),
        }
    }
    match away {
        Some(error) if !works => core.faults.down(AWAY, error.to_string()),
        _ => core.faults.over(AWAY),
    }
    if !lost.is_empty() {
        // Nothing that was known of it holds any more.
        core.recent.clear();
        core.publisher.publish_missed();
        let of = match lost.len() == core.tags.len() {
            true => "its tasks are gone".into(),
            false => format!("the tasks of shards {} are gone", lost.join(", ")),
        };
        core.faults.happened(
            LOST,
            format!(
                "Redis has lost its data, or another Redis has taken its place: {of}; check that it \
                 restarts with its files (appendonly), and that nobody flushes it"
            ),
        );
    }
    works
}

/// Whether submissions are refused for want of memory, where we may ask.
async fn ask_memory(core: &Core) {
    let (mut connection, mut info) = (core.connection(), cmd("INFO"));
    info.arg("memory");
    let answers = connection.everywhere::<String>(Nodes::Masters, info);
    let Ok(answers) = core.within(answers).await else {
        return;
    };
    let percent = core.settings.reserve_percent;
    match answers.iter().any(|info| memory::is_full(info, percent)) {
        true => core.faults.degraded(FULL, memory::full(percent)),
        false => core.faults.over(FULL),
    }
}

async fn sweep_all(core: &Core) {
    let mut sick = None;
    for shard in core.shards() {
        match sweep(core, shard).await {
            Ok(0) => {}
            Ok(mended) => tracing::warn!(
                shard,
                mended,
                "tasks were not where they belong, or not counted right, which is mended: does \
                 another program write under queue.prefix?"
            ),
            Err(error) => {
                tracing::debug!(shard, "cannot look for lost tasks: {error}");
                sick = Some(format!(
                    "shard {shard} of the queue does not work, its tasks wait: {error}"
                ));
            }
        }
    }
    match sick {
        Some(why) => core.faults.degraded(SHARD, why),
        None => core.faults.over(SHARD),
    }
}

/// Goes on with the sweep of a shard, which all nodes share; says how much was mended.
async fn sweep(core: &Core, shard: usize) -> Result<u64, Error> {
    let mut all = 0;
    for _ in 0..STEPS {
        let call = core.call(shard, &core.scripts.mend, |call| {
            call.arg(LOOK);
        });
        let (mended, is_over): (u64, u8) = call.await?;
        all += mended;
        if is_over == 1 {
            break;
        }
    }
    Ok(all)
}

/// `Misconfigured` when a server may throw tasks away. Tasks of a cluster survive what they survive at
/// each of its servers, since no caller chooses which one a task goes to.
pub(super) async fn look(core: &Core, found: &Found) -> Result<(), Error> {
    let confirmed = core.settings.replicas > 0;
    let Some(servers) = settings(core).await? else {
        found.set(match confirmed {
            true => Durability::Replicated,
            false => Durability::Unknown,
        });
        return Ok(());
    };
    let mut weakest = Durability::Synced;
    let mut throws_away = None;
    for settings in &servers {
        let setting = |key: &str| settings.get(key).map_or("", String::as_str);
        let policy = setting("maxmemory-policy");
        if policy.starts_with("allkeys-") {
            throws_away = Some(policy);
            weakest = Durability::Memory;
        }
        weakest = match (setting("appendonly"), setting("appendfsync"), weakest) {
            (_, _, Durability::Memory) => Durability::Memory,
            ("yes", "always", so_far) => so_far,
            // With "no" the system writes when it likes to, which is every half minute or so.
            ("yes", _, _) => Durability::Periodic,
            _ => Durability::Memory,
        };
    }
    found.set(match confirmed && throws_away.is_none() {
        true => Durability::Replicated,
        false => weakest,
    });
    match throws_away {
        None => Ok(()),
        Some(policy) => Err(Error::Misconfigured(format!(
            "Redis has maxmemory-policy {policy}: it would throw tasks away when its memory is full; \
             set it to noeviction"
        ))),
    }
}

/// What CONFIG says at each server; `None` where it is forbidden or, as at some providers, not there.
async fn settings(core: &Core) -> Result<Option<Vec<BTreeMap<String, String>>>, Error> {
    let (mut connection, mut get) = (core.connection(), cmd("CONFIG"));
    // One pattern, which is all that servers before 7.0 take: append* and maxmemory-policy.
    get.arg("GET").arg("[am][pa]*");
    let asked = async {
        match connection.everywhere(Nodes::Masters, get).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_forbidden(&error) => Ok(None),
            Err(error) => Err(error),
        }
    };
    core.within(asked).await
}

fn is_forbidden(error: &RedisError) -> bool {
    // The rights to all of Redis are asked for before.
    let unknown = || error.to_string().contains("unknown command");
    (is_refusal(error) && error.code() == Some("NOPERM")) || unknown()
}
