//! What all parts of the queue use: the shards, calling a script on one of them, and what its errors
//! mean to the caller. Knows no verb.

use super::{
    super::Error,
    bulk::{Bulk, no_answer},
    faults::Faults,
    leases::Calls,
    memory,
    script::Scripts,
    store::Stores,
};
use crate::{Publisher, now, task_cache::TaskCache};
use hostel_redis::{Connection, Server, is_refusal};
use hostel_runtime::health::Health;
use hostel_runtime::log_limit::LogLimit;
use hostel_task::{TaskId, UnixMs};
use redis::{ErrorKind, FromRedisValue, RedisError, Script, ScriptInvocation, ServerErrorKind};
use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// How long a call may take, the wait for a new connection included, and apart from the time that what
/// it carries takes on its way.
pub(super) const CALL: Duration = Duration::from_secs(5);

/// What the answer to a lease is expected to have once one took too long, at first and at most: a script
/// gives 8 MiB and one task more.
const EXPECTED: (usize, usize) = (2 << 20, 16 << 20);

/// What the user has to be allowed.
const NEEDS: &str = "the scripts (EVALSHA, EVAL, SCRIPT LOAD), what they call on the keys under \
                     queue.prefix, XREAD, XREVRANGE, HMGET and HGETALL there, PING, and INFO to \
                     know how full its memory is";

/// What the keys look like; another number is another version's.
pub(super) const FORMAT: u32 = 1;

/// What a shard says of itself.
pub(super) struct Opened {
    pub format: u32,
    pub shards: usize,
    /// The identity of the store that it is in.
    pub store: String,
}

pub(super) struct Core {
    pub server: Server,
    connection: Connection,
    /// For results on their way to Redis.
    bulk: Bulk,
    /// For payloads on their way from there, and how many bytes of them an answer is expected to have.
    bulk_answers: Bulk,
    expected: AtomicUsize,
    pub scripts: Scripts,
    /// The hash tag of each shard, which is also what all its keys begin with.
    pub tags: Vec<String>,
    /// Of each shard.
    pub calls: Vec<Calls>,
    pub publisher: Publisher,
    /// What this queue itself has leased and ended.
    pub recent: TaskCache,
    /// How old an ending has to be before anybody forgets it, in milliseconds.
    pub kept: AtomicU64,
    /// Names this queue among all that use the same Redis: whose events are its own.
    pub me: String,
    pub settings: hostel_config::RedisQueue,
    pub faults: Faults,
    /// The store that each shard was found in.
    pub stores: Stores,
    /// Bounds what is logged of shards that fail.
    pub log_limit: LogLimit,
    time: Time,
}

/// The queue's time, as a script last said it.
struct Time {
    begun: Instant,
    /// What it was at `begun`, in milliseconds; 0 when no script has said it yet.
    then: AtomicU64,
}

impl Core {
    pub async fn connect(
        settings: &hostel_config::RedisQueue,
        health: Health,
    ) -> Result<Self, Error> {
        let server = Server::new(&settings.server, "queue", true).map_err(Error::Misconfigured)?;
        let connection = server.connect().await;
        let connection = connection.map_err(|error| explain(&server, &error))?;
        let bulk = Bulk::connect(&server).await;
        let bulk = bulk.map_err(|error| explain(&server, &error))?;
        let bulk_answers = Bulk::connect(&server).await;
        let bulk_answers = bulk_answers.map_err(|error| explain(&server, &error))?;
        let prefix = &settings.server.prefix;
        Ok(Self {
            server,
            connection,
            bulk,
            bulk_answers,
            expected: AtomicUsize::new(0),
            scripts: Scripts::default(),
            tags: (0..settings.shards)
                .map(|shard| format!("{{{prefix}:{shard}}}"))
                .collect(),
            calls: (0..settings.shards).map(|_| Calls::default()).collect(),
            publisher: Publisher::new(),
            recent: TaskCache::default(),
            kept: AtomicU64::new(u64::MAX),
            me: uuid::Uuid::now_v7().simple().to_string(),
            settings: settings.clone(),
            faults: Faults::new(health),
            stores: Stores::new(settings.shards),
            log_limit: LogLimit::new(3, Duration::from_secs(10)),
            time: Time {
                begun: Instant::now(),
                then: AtomicU64::new(0),
            },
        })
    }

    /// Takes over the time that a script has answered.
    pub fn note_time(&self, now: UnixMs) {
        let then = now.0.saturating_sub(ms(self.time.begun.elapsed()));
        self.time.then.store(then, Ordering::Relaxed);
    }

    /// The queue's time; this machine's until a script has answered.
    pub fn now(&self) -> UnixMs {
        match self.time.then.load(Ordering::Relaxed) {
            0 => now(),
            then => UnixMs(then).after(self.time.begun.elapsed()),
        }
    }

    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }

    pub fn shards(&self) -> std::ops::Range<usize> {
        0..self.tags.len()
    }

    /// Where a task is. The same in every version: FNV-1a, 64 bits.
    pub fn shard_of(&self, id: &TaskId) -> usize {
        let hash = id
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        usize::try_from(hash % self.tags.len() as u64).unwrap_or_default()
    }

    /// A script on a shard, with the name of this queue. Of the two keys, the first is never there
    /// (see `script/common.lua`).
    pub fn invocation<'s>(&self, shard: usize, script: &'s Script) -> ScriptInvocation<'s> {
        let tag = &self.tags[shard];
        let mut invocation = script.key(tag);
        invocation.key(format!("{tag}:n")).arg(&self.me);
        invocation
    }

    /// Runs a script on a shard; `fill` gives what follows the name of the queue.
    pub async fn call<T: FromRedisValue>(
        &self,
        shard: usize,
        script: &Script,
        fill: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, Error> {
        let mut invocation = self.invocation(shard, script);
        fill(&mut invocation);
        let mut connection = self.connection();
        self.within(invocation.invoke_async(&mut connection)).await
    }

    /// The same for a script that is given so many bytes.
    pub async fn call_with_bulk<T: FromRedisValue>(
        &self,
        shard: usize,
        script: &Script,
        bytes: usize,
        fill: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, Error> {
        let mut invocation = self.invocation(shard, script);
        fill(&mut invocation);
        let mut connection = self.bulk.connection();
        let answer = invocation.invoke_async(&mut connection);
        self.bulk.within(self, bytes, answer).await
    }

    /// The same for a script whose answer carries payloads, nobody knows how many beforehand: after one
    /// that took too long the next may take longer, and the other way round.
    pub async fn call_for_bulk<T: FromRedisValue>(
        &self,
        shard: usize,
        script: &Script,
        fill: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, Error> {
        let mut invocation = self.invocation(shard, script);
        fill(&mut invocation);
        let mut connection = self.bulk_answers.connection();
        let (expected, began) = (self.expected.load(Ordering::Relaxed), Instant::now());
        let answer = invocation.invoke_async(&mut connection);
        let answer = self.bulk_answers.within(self, expected, answer).await;
        let expected = match &answer {
            Ok(_) => expected / 2,
            Err(_) if began.elapsed() < CALL => expected,
            Err(_) => (expected * 2).clamp(EXPECTED.0, EXPECTED.1),
        };
        self.expected.store(expected, Ordering::Relaxed);
        answer
    }

    pub fn explain(&self, error: &RedisError) -> Error {
        match error.code() {
            Some("OOM") => Error::Full {
                reason: memory::full(self.settings.reserve_percent),
            },
            _ => explain(&self.server, error),
        }
    }

    /// Of a call to several shards, what those answered that work; what fails is logged, at a rate.
    /// `Err` when none works.
    pub fn working<T>(
        &self,
        what: &str,
        answers: impl IntoIterator<Item = (usize, Result<T, Error>)>,
    ) -> Result<Vec<T>, Error> {
        let (mut working, mut failed) = (Vec::new(), None);
        for (shard, answer) in answers {
            match answer {
                Ok(answer) => working.push(answer),
                Err(error) => failed = Some((shard, error)),
            }
        }
        match failed {
            Some((_, error)) if working.is_empty() => return Err(error),
            Some((shard, error)) => {
                if let Some(left_out) = self.log_limit.permit() {
                    tracing::warn!(shard, left_out, "cannot {what}: {error}");
                }
            }
            None => {}
        }
        Ok(working)
    }

    /// Has a shard ready for use, and says what is in force there.
    pub async fn open(&self, shard: usize) -> Result<Opened, Error> {
        let (shards, identity) = (self.tags.len(), uuid::Uuid::now_v7().simple().to_string());
        let (format, shards, store) = self
            .call(shard, &self.scripts.open, |call| {
                call.arg(FORMAT).arg(shards).arg(identity);
            })
            .await?;
        Ok(Opened {
            format,
            shards,
            store,
        })
    }

    /// The answer, or what its absence means.
    pub async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(CALL, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => Err(no_answer(CALL)),
        }
    }
}

/// A time as scripts take it, in milliseconds: at most what a double can add to the clock.
pub(super) fn ms(time: Duration) -> u64 {
    const MOST: u64 = 1 << 41;
    u64::try_from(time.as_millis()).unwrap_or(MOST).min(MOST)
}

/// An error by what the caller can do. What a server says of its own state (it loads, it is a
/// replica, its memory or disk is full, its cluster is down) passes; nothing was done then.
fn explain(server: &Server, error: &RedisError) -> Error {
    // The one state that has no word of its own.
    let crowded = || error.to_string().contains("max number of clients");
    let wrong = matches!(
        error.kind(),
        ErrorKind::Parse
            | ErrorKind::UnexpectedReturnType
            | ErrorKind::Server(ServerErrorKind::ResponseError)
    ) || error.code() == Some("WRONGTYPE");
    if wrong && !is_refusal(error) && !crowded() {
        return Error::Corrupt(error.to_string());
    }
    let lost = error.is_io_error() || error.is_timeout() || error.is_connection_dropped();
    Error::Unavailable {
        reason: server.problem(error, NEEDS),
        // The client of a cluster tries again by itself, and tells of its last try only.
        outcome_unknown: server.is_cluster() || (lost && !error.is_connection_refusal()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it comes over the wire.
    fn said(line: &str) -> RedisError {
        let answer = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        answer.and_then(redis::Value::extract_error).unwrap_err()
    }

    fn explained(cluster: bool, error: &RedisError) -> Error {
        let mut settings = hostel_config::Redis::at("redis://127.0.0.1:1", "test").unwrap();
        settings.cluster = cluster;
        explain(&Server::new(&settings, "queue", true).unwrap(), error)
    }

    #[test]
    fn what_a_server_says_of_its_state_passes() {
        for line in [
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "CLUSTERDOWN The cluster is down",
            "MOVED 3999 127.0.0.1:6381",
            "ASK 3999 127.0.0.1:6381",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist",
            "NOREPLICAS Not enough good replicas to write.",
            "ERR max number of clients reached",
        ] {
            let word = line.split(' ').next().unwrap_or_default();
            match explained(false, &said(line)) {
                Error::Unavailable {
                    reason,
                    outcome_unknown: false,
                } => assert!(word == "ERR" || reason.contains(word), "{reason}"),
                other => panic!("{line}: {other:?}"),
            }
            // What came before the last try of a cluster's client is not known.
            match explained(true, &said(line)) {
                Error::Unavailable {
                    outcome_unknown, ..
                } => assert!(outcome_unknown, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_nobody_can_wait_for_is_corrupt() {
        for line in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "ERR user_script:1: attempt to perform arithmetic on a nil value",
        ] {
            let error = explained(false, &said(line));
            assert!(matches!(error, Error::Corrupt(_)), "{line}: {error:?}");
        }
    }

    #[test]
    fn who_is_refused_is_told_what_to_check() {
        for line in [
            "NOAUTH Authentication required.",
            "NOPERM this user has no permissions",
        ] {
            let error = explained(false, &said(line)).to_string();
            assert!(error.contains("queue.url"), "{error}");
        }
    }
}
