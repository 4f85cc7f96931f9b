//! The limits that are set at run time: scripts over the queue's first shard (`scripts/limits`).

use super::queue::RedisQueue;
use crate::{
    error::Error,
    limit_store::{LimitStore, MAX_LIMITS, PutLimits, StoredLimits, decode, encode},
};
use async_trait::async_trait;
use hostel_task::{GivenLimits, LimitScope};
use redis::Script;
use std::sync::LazyLock;

/// The shard that has the limits.
const SHARD: usize = 0;

/// The most bytes of all limits: two names and four values for each.
const MAX_BYTES: usize = MAX_LIMITS * 640;

struct Scripts {
    read: Script,
    /// Sets limits: refused by Redis while its memory is full.
    put: Script,
    remove: Script,
}

static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    read: Script::new(concat!(
        "#!lua flags=no-writes\n",
        include_str!("scripts/limits/read.lua")
    )),
    put: Script::new(include_str!("scripts/limits/put.lua")),
    remove: Script::new(concat!(
        "#!lua flags=allow-oom\n",
        include_str!("scripts/limits/put.lua")
    )),
});

fn corrupt(version: &str) -> Error {
    Error::Corrupt(format!(
        "the version {version:?} of the limits is no number"
    ))
}

#[async_trait]
impl LimitStore for RedisQueue {
    async fn limits(&self, known: u64) -> Result<Option<StoredLimits>, Error> {
        let answer: Vec<String> = self
            .client()?
            .call_for_read(SHARD, &SCRIPTS.read, MAX_BYTES, |call| {
                call.arg(known.to_string());
            })
            .await?;
        let (version, stored) = answer.split_first().ok_or_else(|| corrupt(""))?;
        let version: u64 = version.parse().map_err(|_| corrupt(version))?;
        if version == known {
            return Ok(None);
        }
        let stored = stored.chunks_exact(2);
        let stored = stored.map(|pair| (pair[0].clone(), pair[1].clone()));
        Ok(Some(decode(version, stored)))
    }

    async fn put_limits(
        &self,
        scope: &LimitScope,
        limits: &GivenLimits,
        expected: u64,
    ) -> Result<PutLimits, Error> {
        let (script, text) = if limits.is_empty() {
            (&SCRIPTS.remove, String::new())
        } else {
            (&SCRIPTS.put, encode(limits)?)
        };
        let answer: String = self
            .client()?
            .call(SHARD, script, |call| {
                call.arg(scope.to_string())
                    .arg(text)
                    .arg(expected.to_string())
                    .arg(MAX_LIMITS);
            })
            .await?;
        Ok(match answer.as_str() {
            "changed" => PutLimits::Changed,
            "full" => PutLimits::Full,
            version => PutLimits::Stored(version.parse().map_err(|_| corrupt(version))?),
        })
    }
}
