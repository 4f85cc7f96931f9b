//! Paused task types, in a hash of the queue's first shard (`scripts/pauses`). Each node reads it twice a second,
//! and leaves the paused types out of its requests for tasks and its offers.

use super::shard_client::ShardClient;
use crate::{Error, LeaseRequest, RequestedTypes};
use hostel_task::{MAX_PAUSED_TYPES, Name, PausedTypes, TypePause, UnixMs};
use parking_lot::Mutex;
use redis::{Script, cmd};
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

/// The shard that has the paused types.
const SHARD: usize = 0;

/// How often a node looks whether they have changed.
const EVERY: Duration = Duration::from_millis(500);

/// The field with the number of changes. No type has this name.
const VERSION: &str = "";

struct Scripts {
    pause: Script,
    resume: Script,
}

static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    pause: Script::new(concat!(
        "#!lua flags=allow-oom\n",
        include_str!("scripts/pauses/pause.lua")
    )),
    resume: Script::new(concat!(
        "#!lua flags=allow-oom\n",
        include_str!("scripts/pauses/resume.lua")
    )),
});

/// The paused types as this node knows them.
#[derive(Default)]
pub(super) struct Pauses(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The number of changes when they were read; `None` if there was none.
    version: Option<String>,
    paused: Arc<PausedTypes>,
    /// The types of a request, and those of them that are not paused.
    filtered: Option<[Arc<RequestedTypes>; 2]>,
}

impl Pauses {
    pub fn get(&self) -> Arc<PausedTypes> {
        Arc::clone(&self.0.lock().paused)
    }

    /// Returns the request without the paused types. Equal types of requests have equal types without them.
    pub fn without_paused<'r>(&self, request: &'r LeaseRequest) -> Cow<'r, LeaseRequest> {
        let mut known = self.0.lock();
        if known.paused.is_empty() {
            return Cow::Borrowed(request);
        }
        let filtered = known.filtered.as_ref();
        let filtered = filtered.filter(|[of, _]| Arc::ptr_eq(of, &request.types));
        let types = match filtered.map(|[_, types]| Arc::clone(types)) {
            Some(types) => types,
            None => {
                let mut types = RequestedTypes::clone(&request.types);
                types.retain(|task_type, _| !known.paused.contains_key(task_type));
                let types = Arc::new(types);
                known.filtered = Some([Arc::clone(&request.types), Arc::clone(&types)]);
                types
            }
        };
        Cow::Owned(LeaseRequest {
            types,
            ..request.clone()
        })
    }

    /// Reads the paused types if they have changed.
    pub async fn refresh(&self, client: &ShardClient) -> Result<(), Error> {
        let key = key(client);
        let mut version = cmd("HGET");
        version.arg(&key).arg(VERSION);
        let version: Option<String> = client.short(&version).await?;
        if version == self.0.lock().version {
            return Ok(());
        }
        let mut all = cmd("HGETALL");
        all.arg(&key);
        let bytes = MAX_PAUSED_TYPES * (Name::MAX_BYTES + 2 * hostel_task::MAX_REASON_BYTES);
        let mut all: HashMap<String, String> = client.read(bytes, &all).await?;
        let version = all.remove(VERSION);
        let paused = all.iter().filter_map(|(name, pause)| read(name, pause));
        *self.0.lock() = Known {
            version,
            paused: Arc::new(paused.collect()),
            filtered: None,
        };
        // A worker leaves another offer, without the paused types.
        client.offers.clear();
        Ok(())
    }

    /// Pauses a type, or changes the reason of its pause; `None` if too many others are paused.
    pub async fn pause(
        &self,
        client: &ShardClient,
        task_type: &Name,
        reason: Option<Arc<str>>,
    ) -> Result<Option<TypePause>, Error> {
        let since: Option<u64> = client
            .call(SHARD, &SCRIPTS.pause, |call| {
                call.arg(task_type.as_str())
                    .arg(MAX_PAUSED_TYPES)
                    .arg(reason.as_deref().unwrap_or_default());
            })
            .await?;
        let Some(since) = since else {
            return Ok(None);
        };
        self.refresh(client).await.map_err(Error::after_change)?;
        let since = UnixMs(since);
        Ok(Some(TypePause { since, reason }))
    }

    /// Ends the pause of a type, and returns whether it was paused.
    pub async fn resume(&self, client: &ShardClient, task_type: &Name) -> Result<bool, Error> {
        let resumed: u8 = client
            .call(SHARD, &SCRIPTS.resume, |call| {
                call.arg(task_type.as_str());
            })
            .await?;
        self.refresh(client).await.map_err(Error::after_change)?;
        Ok(resumed == 1)
    }
}

fn key(client: &ShardClient) -> String {
    format!("{}:paused", client.tags[SHARD])
}

/// Reads a pause: when it began, and the reason. One that another program has damaged pauses nothing.
fn read(name: &str, pause: &str) -> Option<(Name, TypePause)> {
    let name = Name::parse("task type", name).ok()?;
    let (since, reason) = pause.split_once(' ')?;
    let since = UnixMs(since.parse().ok()?);
    let reason = (!reason.is_empty()).then(|| reason.into());
    Some((name, TypePause { since, reason }))
}

/// Follows the paused types until it is dropped. While Redis is away, those that are known stay paused.
pub(super) async fn follow(client: Arc<ShardClient>, pauses: Arc<Pauses>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = pauses.refresh(&client).await {
            tracing::debug!("cannot read the paused task types: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paused_types_are_left_out_and_the_rest_stays_the_same() {
        let name = |given| Name::parse("name", given).unwrap();
        let pauses = Pauses::default();
        let request = LeaseRequest::for_type(name("node"), name("a"), 1, EVERY);
        let unchanged = pauses.without_paused(&request);
        assert!(matches!(unchanged, Cow::Borrowed(_)));
        let pause = |of: &str| {
            let pause = read(of, "17 why not").expect("a pause");
            *pauses.0.lock() = Known {
                paused: Arc::new([pause].into()),
                ..Known::default()
            };
        };
        pause("other");
        let first = pauses.without_paused(&request).into_owned();
        assert!(first.types.contains_key("a"));
        let again = pauses.without_paused(&request).into_owned();
        assert!(Arc::ptr_eq(&first.types, &again.types));
        pause("a");
        assert!(pauses.without_paused(&request).types.is_empty());
    }

    #[test]
    fn damaged_pauses_pause_nothing() {
        let (name, pause) = read("a", "17 two words").expect("a pause");
        assert_eq!((name.as_str(), pause.since), ("a", UnixMs(17)));
        assert_eq!(pause.reason.as_deref(), Some("two words"));
        assert_eq!(read("a", "17 ").expect("a pause").1.reason, None);
        for (name, pause) in [("a b", "17 "), ("a", "17"), ("a", "x "), ("", "17 ")] {
            assert!(read(name, pause).is_none(), "{name:?} {pause:?}");
        }
    }
}
