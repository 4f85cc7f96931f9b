//! Background maintenance: checks whether the shards work, still have their data and have memory, which
//! durability the server's settings give (they can change), deletes unused unique keys, and reconciles sets
//! and counters with the tasks.

use super::{
    faults::{AWAY, EVICTION, FULL, LOST, SHARD},
    key_sweep, memory,
    shard_client::ShardClient,
};
use crate::{Durability, Error};
use futures_util::future::join_all;
use hostel_redis::{Nodes, is_refusal};
use parking_lot::Mutex;
use redis::{RedisError, cmd};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How often to check the shards.
const EVERY: Duration = Duration::from_secs(2);

/// Every how many checks to check the settings and to reconcile tasks. A reconciliation runs up to `STEPS`
/// scripts over `STEP` tasks each, so that none blocks the server for long.
const RECONCILE: u32 = 5;
const STEPS: usize = 4;
const STEP: usize = 500;

/// The durability that the server's settings give.
#[derive(Default)]
pub(super) struct DetectedDurability(Mutex<Option<Durability>>);

impl DetectedDurability {
    pub fn get(&self) -> Durability {
        self.0.lock().unwrap_or(Durability::Unknown)
    }

    /// Sets the durability, and logs a change.
    fn set(&self, durability: Durability) {
        if self.0.lock().replace(durability) != Some(durability) {
            let durability = durability.as_str();
            tracing::info!(durability, "the durability of tasks in Redis");
        }
    }
}

/// Runs until it is dropped.
pub(super) async fn run(client: Arc<ShardClient>, durability: Arc<DetectedDurability>) {
    for turn in (0..RECONCILE).cycle() {
        tokio::time::sleep(EVERY).await;
        client.faults.expire_events();
        if !check_shards(&client).await {
            continue;
        }
        check_memory(&client).await;
        key_sweep::sweep(&client).await;
        if turn + 1 < RECONCILE {
            continue;
        }
        match check_settings(&client, &durability).await {
            Ok(()) => client.faults.over(EVICTION),
            Err(Error::Misconfigured(why)) => client.faults.degraded(EVICTION, why),
            Err(error) => tracing::debug!("cannot read the settings of Redis: {error}"),
        }
        reconcile_all(&client).await;
    }
}

/// Returns whether any shard works. A shard in another store than before has lost its tasks.
async fn check_shards(client: &ShardClient) -> bool {
    let opened = client
        .shards()
        .map(async |shard| (shard, client.open(shard).await));
    let (mut works, mut failure, mut lost) = (false, None, Vec::new());
    for (shard, opened) in join_all(opened).await {
        match opened {
            Ok(opened) => {
                works = true;
                if client.stores.record(shard, opened.store) {
                    lost.push(shard.to_string());
                }
            }
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if !works => client.faults.down(AWAY, error.to_string()),
        _ => client.faults.over(AWAY),
    }
    if !lost.is_empty() {
        client.task_cache.clear();
        client.publisher.publish_missed();
        let tasks = if lost.len() == client.tags.len() {
            "its tasks are gone".into()
        } else {
            format!("the tasks of shards {} are gone", lost.join(", "))
        };
        client.faults.event(
            LOST,
            format!(
                "Redis has lost its data, or another Redis has taken its place: {tasks}; check that it \
                 restarts with its files (appendonly), and that nobody flushes it"
            ),
        );
    }
    works
}

/// Reports whether submissions are refused for lack of memory, if the ACL allows INFO.
async fn check_memory(client: &ShardClient) {
    let (mut connection, mut info) = (client.connection(), cmd("INFO"));
    info.arg("memory");
    let answers = connection.on_nodes::<String>(Nodes::Masters, info);
    let Ok(answers) = client.within(answers).await else {
        return;
    };
    let percent = client.settings.reserve_percent;
    if answers.iter().any(|info| memory::is_full(info, percent)) {
        client.faults.degraded(FULL, memory::full(percent));
    } else {
        client.faults.over(FULL);
    }
}

async fn reconcile_all(client: &ShardClient) {
    let mut failure = None;
    for shard in client.shards() {
        match reconcile(client, shard).await {
            Ok(0) => {}
            Ok(repaired) => tracing::warn!(
                shard,
                repaired,
                "sets or counters of the queue did not match its tasks and were repaired; does another \
                 program write under queue.prefix?"
            ),
            Err(error) => {
                tracing::debug!(shard, "cannot reconcile tasks: {error}");
                failure = Some(format!(
                    "shard {shard} of the queue does not work, its tasks wait: {error}"
                ));
            }
        }
    }
    match failure {
        Some(why) => client.faults.degraded(SHARD, why),
        None => client.faults.over(SHARD),
    }
}

/// Continues the reconciliation of a shard, which all nodes share, and returns how many entries were
/// repaired.
async fn reconcile(client: &ShardClient, shard: usize) -> Result<u64, Error> {
    let mut total = 0;
    for _ in 0..STEPS {
        let call = client.call(shard, &client.scripts.reconcile, |call| {
            call.arg(STEP);
        });
        let (repaired, is_over): (u64, u8) = call.await?;
        total += repaired;
        if is_over == 1 {
            break;
        }
    }
    Ok(total)
}

/// Detects the durability. `Misconfigured` if a server may evict tasks. In a cluster the weakest server
/// counts, since the id of a task decides which server has it.
pub(super) async fn check_settings(
    client: &ShardClient,
    detected: &DetectedDurability,
) -> Result<(), Error> {
    let (durability, evicting) = match settings(client).await? {
        None => (Durability::Unknown, None),
        Some(servers) => weakest(&servers),
    };
    let replicated = client.settings.replicas > 0 && evicting.is_none();
    detected.set(if replicated {
        Durability::Replicated
    } else {
        durability
    });
    match evicting {
        None => Ok(()),
        Some(policy) => Err(Error::Misconfigured(format!(
            "Redis has maxmemory-policy {policy}: it would throw tasks away when its memory is full; \
             set it to noeviction"
        ))),
    }
}

/// Returns the weakest durability of all servers, and a policy that evicts tasks if a server has one.
fn weakest(servers: &[BTreeMap<String, String>]) -> (Durability, Option<String>) {
    let (mut weakest, mut evicting) = (Durability::Synced, None);
    for settings in servers {
        let setting = |key: &str| settings.get(key).map_or("", String::as_str);
        let policy = setting("maxmemory-policy");
        if policy.starts_with("allkeys-") {
            evicting = Some(policy.to_owned());
            weakest = Durability::Memory;
        }
        weakest = match (setting("appendonly"), setting("appendfsync"), weakest) {
            (_, _, Durability::Memory) => Durability::Memory,
            ("yes", "always", so_far) => so_far,
            // With "no" the operating system decides when it writes, about every half minute.
            ("yes", _, _) => Durability::Periodic,
            _ => Durability::Memory,
        };
    }
    (weakest, evicting)
}

/// Returns the settings of each server; `None` if CONFIG is forbidden or, as at some providers, unknown.
async fn settings(client: &ShardClient) -> Result<Option<Vec<BTreeMap<String, String>>>, Error> {
    let (mut connection, mut get) = (client.connection(), cmd("CONFIG"));
    // Servers before 7.0 take only one pattern. This one matches append* and maxmemory-policy.
    get.arg("GET").arg("[am][pa]*");
    let settings = async {
        match connection.on_nodes(Nodes::Masters, get).await {
            Ok(settings) => Ok(Some(settings)),
            Err(error) if is_forbidden(&error) => Ok(None),
            Err(error) => Err(error),
        }
    };
    client.within(settings).await
}

fn is_forbidden(error: &RedisError) -> bool {
    let unknown = || error.to_string().contains("unknown command");
    (is_refusal(error) && error.code() == Some("NOPERM")) || unknown()
}
