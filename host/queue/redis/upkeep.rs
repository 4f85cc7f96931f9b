//! What goes on behind the calls: finding out what durability the server gives, again and again since
//! its settings can change, and putting back what the sets have lost.

use super::core::Core;
use crate::{
    queue::{Durability, Error},
    redis::is_refusal,
};
use redis::{RedisError, cmd};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How often to look, and how many tasks each look goes through.
const EVERY: Duration = Duration::from_secs(10);
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
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = look(&core, &found).await {
            tracing::debug!("cannot look after the queue in Redis: {error}");
            continue;
        }
        for shard in core.shards() {
            let mended = core.call::<u64>(shard, &core.scripts.mend, |call| {
                call.arg(LOOK);
            });
            match mended.await {
                Ok(0) => {}
                Ok(mended) => tracing::warn!(
                    shard,
                    mended,
                    "tasks were not where they belong, and were put back: does another program \
                     write under queue.prefix?"
                ),
                Err(error) => tracing::debug!(shard, "cannot look for lost tasks: {error}"),
            }
        }
    }
}

/// `Misconfigured` when the server may throw tasks away.
pub(super) async fn look(core: &Core, found: &Found) -> Result<(), Error> {
    let Some(settings) = settings(core).await? else {
        found.set(Durability::Unknown);
        return Ok(());
    };
    let setting = |key: &str| settings.get(key).map_or("", String::as_str);
    let policy = setting("maxmemory-policy");
    if policy.starts_with("allkeys-") {
        return Err(Error::Misconfigured(format!(
            "Redis has maxmemory-policy {policy}: it would throw tasks away when its memory is full; \
             set it to noeviction"
        )));
    }
    found.set(match (setting("appendonly"), setting("appendfsync")) {
        _ if core.settings.replicas > 0 => Durability::Replicated,
        ("yes", "always") => Durability::Synced,
        // With "no" the system writes when it likes to, which is every half minute or so.
        ("yes", _) => Durability::Periodic,
        _ => Durability::Memory,
    });
    Ok(())
}

/// What CONFIG says; `None` where it is forbidden or, as at some providers, not there.
async fn settings(core: &Core) -> Result<Option<BTreeMap<String, String>>, Error> {
    let mut all = BTreeMap::new();
    for pattern in ["append*", "maxmemory-policy"] {
        let (mut connection, mut get) = (core.connection(), cmd("CONFIG"));
        let get = get.arg("GET").arg(pattern);
        let asked = async {
            let answer = get.query_async::<BTreeMap<String, String>>(&mut connection);
            match answer.await {
                Ok(found) => Ok(Some(found)),
                Err(error) if is_forbidden(&error) => Ok(None),
                Err(error) => Err(error),
            }
        };
        match core.within(asked).await? {
            Some(found) => all.extend(found),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

fn is_forbidden(error: &RedisError) -> bool {
    // The rights to all of Redis are asked for before.
    let unknown = || error.to_string().contains("unknown command");
    (is_refusal(error) && error.code() == Some("NOPERM")) || unknown()
}
