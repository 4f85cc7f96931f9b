//! The connection of a queue to its shards: runs scripts and commands on one of them, and holds what all
//! parts of the queue share.

use super::{
    bulk::BulkConnection,
    errors::{explain, no_answer},
    faults::Faults,
    lease_sequence::LeaseSequence,
    offers::Offers,
    scripts::{Scripts, ms},
    store_identity::StoreIdentities,
};
use crate::{Error, Publisher, now, task_cache::TaskCache};
use hostel_redis::{Connection, Server};
use hostel_runtime::{health::Health, log_limit::LogLimit};
use hostel_task::{TaskId, UnixMs};
use redis::{Cmd, FromRedisValue, RedisResult, Script, ScriptInvocation};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// How long a call may take, including the wait for a new connection and without the time that its bytes
/// take on their way.
pub(super) const CALL: Duration = Duration::from_secs(5);

/// The expected bytes of a lease after one that took too long, at first and at most: a task may be larger
/// than the limit of a lease.
const EXPECTED: (usize, usize) = (2 << 20, 16 << 20);

/// The version of the format of the keys, and the one before, which is migrated.
pub(super) const FORMAT: u32 = 2;
pub(super) const OLD_FORMAT: u32 = 1;

/// How many tasks one script migrates.
const MIGRATED_AT_ONCE: usize = 500;

/// The settings that are in force in a shard.
pub(super) struct Opened {
    pub format: u32,
    pub shards: usize,
    /// The identity of the store that the shard is in.
    pub store: String,
}

/// Calls the shards of a queue.
pub(super) struct ShardClient {
    pub server: Server,
    connection: Connection,
    /// For results sent to Redis.
    bulk: BulkConnection,
    /// For payloads leased from Redis, and the expected bytes of the next lease.
    leases: BulkConnection,
    expected: AtomicUsize,
    /// For what clients read. It is separate from `leases`, since a lease counts while it is on its way.
    reads: BulkConnection,
    pub scripts: Scripts,
    /// The hash tag of each shard, with which all its keys begin.
    pub tags: Vec<String>,
    /// The lease calls to each shard.
    pub lease_sequences: Vec<LeaseSequence>,
    /// The request that waits for tasks.
    pub offers: Offers,
    /// Held while tasks of limited types are leased (`permits`).
    pub limited_leases: Arc<Mutex<()>>,
    pub publisher: Publisher,
    /// Tasks that this queue itself has leased and finished.
    pub task_cache: TaskCache,
    /// The age at which the first completed tasks are purged, in milliseconds.
    pub keep_completed_ms: AtomicU64,
    /// The id of this queue, which distinguishes its events from those of others.
    pub queue_id: String,
    pub settings: hostel_config::RedisQueue,
    pub faults: Faults,
    pub stores: StoreIdentities,
    /// Limits the log lines about shards that fail.
    pub log_limit: LogLimit,
    clock: Clock,
}

/// The queue's time, as a script last returned it.
struct Clock {
    created: Instant,
    /// The queue's time at `created`, in milliseconds; 0 before a script has returned it.
    at_creation: AtomicU64,
}

impl ShardClient {
    pub async fn connect(
        settings: &hostel_config::RedisQueue,
        health: Health,
    ) -> Result<Self, Error> {
        let server = Server::new(&settings.server, "queue", true).map_err(Error::Misconfigured)?;
        let reserve_percent = settings.reserve_percent;
        let connection = server.connect().await;
        let connection = connection.map_err(|error| explain(&server, reserve_percent, &error))?;
        let bulk = BulkConnection::connect(&server, reserve_percent).await?;
        let leases = BulkConnection::connect(&server, reserve_percent).await?;
        let reads = BulkConnection::connect(&server, reserve_percent).await?;
        let prefix = &settings.server.prefix;
        let shards = 0..settings.shards;
        Ok(Self {
            server,
            connection,
            bulk,
            leases,
            expected: AtomicUsize::new(0),
            reads,
            scripts: Scripts::default(),
            tags: shards
                .clone()
                .map(|shard| format!("{{{prefix}:{shard}}}"))
                .collect(),
            lease_sequences: shards.map(|_| LeaseSequence::default()).collect(),
            offers: Offers::default(),
            limited_leases: Arc::default(),
            publisher: Publisher::new(),
            task_cache: TaskCache::default(),
            keep_completed_ms: AtomicU64::new(u64::MAX),
            queue_id: uuid::Uuid::now_v7().simple().to_string(),
            settings: settings.clone(),
            faults: Faults::new(health),
            stores: StoreIdentities::new(settings.shards),
            log_limit: LogLimit::new(3, Duration::from_secs(10)),
            clock: Clock {
                created: Instant::now(),
                at_creation: AtomicU64::new(0),
            },
        })
    }

    /// Records the queue's time that a script has returned.
    pub fn set_time(&self, now: UnixMs) {
        let at_creation = now.0.saturating_sub(ms(self.clock.created.elapsed()));
        self.clock.at_creation.store(at_creation, Ordering::Relaxed);
    }

    /// The queue's time; this machine's time before a script has returned it.
    pub fn now(&self) -> UnixMs {
        match self.clock.at_creation.load(Ordering::Relaxed) {
            0 => now(),
            at_creation => UnixMs(at_creation).after(self.clock.created.elapsed()),
        }
    }

    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }

    pub fn shards(&self) -> std::ops::Range<usize> {
        0..self.tags.len()
    }

    /// The shard of a task.
    pub fn shard_of(&self, id: &TaskId) -> usize {
        self.shard_of_text(id.as_str())
    }

    /// The shard of a task's id, or of a unique key. It is the same in every version: FNV-1a, 64 bits.
    pub fn shard_of_text(&self, text: &str) -> usize {
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        usize::try_from(hash % self.tags.len() as u64).unwrap_or_default()
    }

    /// Returns the key of a kind of a task.
    pub fn key(&self, kind: &str, id: &TaskId) -> String {
        let tag = &self.tags[self.shard_of(id)];
        format!("{tag}:{kind}:{id}")
    }

    /// Runs a script on a shard over a connection, without a time limit. `push_args` adds the arguments
    /// after the queue's id. Of the two keys, the first never exists (see `scripts/shared/base.lua`).
    pub async fn run<T: FromRedisValue>(
        &self,
        shard: usize,
        script: &Script,
        mut connection: Connection,
        push_args: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> RedisResult<T> {
        let tag = &self.tags[shard];
        let mut invocation = script.key(tag);
        invocation.key(format!("{tag}:shard")).arg(&self.queue_id);
        push_args(&mut invocation);
        invocation.invoke_async(&mut connection).await
    }

    /// Runs a script with a short call.
    pub async fn call<T: FromRedisValue>(
        &self,
        shard: usize,
        script: &Script,
        push_args: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, Error> {
        let answer = self.run(shard, script, self.connection(), push_args);
        self.within(answer).await
    }

    /// Runs a script whose arguments have so many bytes.
    pub async fn call_with_bulk_args<T: FromRedisValue>(
        &self,
        shard: usize,
        script: &Script,
        bytes: usize,
        push_args: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, Error> {
        self.call_over(&self.bulk, shard, script, bytes, push_args)
            .await
    }

    /// Runs a script that leases tasks of so many bytes, unless a single one is larger: after a call that
    /// took too long the next one may take longer, and after a success less long.
    pub async fn call_for_lease<T: FromRedisValue>(
        &self,
        shard: usize,
        script: &Script,
        bytes: usize,
        push_args: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, Error> {
        let (expected, began) = (self.expected.load(Ordering::Relaxed), Instant::now());
        let bytes = bytes.max(expected);
        let answer = self.call_over(&self.leases, shard, script, bytes, push_args);
        let answer = answer.await;
        let expected = match &answer {
            Ok(_) => expected / 2,
            Err(_) if began.elapsed() < CALL => expected,
            Err(_) => (expected * 2).clamp(EXPECTED.0, EXPECTED.1),
        };
        self.expected.store(expected, Ordering::Relaxed);
        answer
    }

    /// Runs a script that reads up to so many bytes for a client.
    pub async fn call_for_read<T: FromRedisValue>(
        &self,
        shard: usize,
        script: &Script,
        bytes: usize,
        push_args: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, Error> {
        self.call_over(&self.reads, shard, script, bytes, push_args)
            .await
    }

    /// Runs a script over a connection for large arguments or answers.
    async fn call_over<T: FromRedisValue>(
        &self,
        connection: &BulkConnection,
        shard: usize,
        script: &Script,
        bytes: usize,
        push_args: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, Error> {
        let answer = self.run(shard, script, connection.connection(), push_args);
        connection.within(CALL, bytes, answer).await
    }

    /// Sends a command that reads so many bytes for a client.
    pub async fn read<T: FromRedisValue>(&self, bytes: usize, command: &Cmd) -> Result<T, Error> {
        let mut connection = self.reads.connection();
        let answer = command.query_async(&mut connection);
        self.reads.within(CALL, bytes, answer).await
    }

    /// Sends a command with a short answer.
    pub async fn short<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let mut connection = self.connection();
        self.within(command.query_async(&mut connection)).await
    }

    /// Waits for the answer to a short call.
    pub async fn within<T>(
        &self,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(CALL, answer).await {
            Ok(answer) => {
                answer.map_err(|error| explain(&self.server, self.settings.reserve_percent, &error))
            }
            Err(_) => Err(no_answer(CALL)),
        }
    }

    /// Returns the answers of the shards that succeeded, and logs a failure, at a limited rate. `Err` if
    /// every shard failed. `what` completes "cannot ...".
    pub fn collect_available<T>(
        &self,
        what: &str,
        answers: impl IntoIterator<Item = (usize, Result<T, Error>)>,
    ) -> Result<Vec<T>, Error> {
        let (mut available, mut failed) = (Vec::new(), None);
        for (shard, answer) in answers {
            match answer {
                Ok(answer) => available.push(answer),
                Err(error) => failed = Some((shard, error)),
            }
        }
        if let Some((shard, error)) = failed {
            if available.is_empty() {
                return Err(error);
            }
            if let Some(left_out) = self.log_limit.permit() {
                tracing::warn!(shard, left_out, "cannot {what}: {error}");
            }
        }
        Ok(available)
    }

    /// Prepares a shard for use, and returns the settings in force there.
    pub async fn open(&self, shard: usize) -> Result<Opened, Error> {
        let (shards, identity) = (self.tags.len(), uuid::Uuid::now_v7().simple().to_string());
        let (format, shards, store) = self
            .call(shard, &self.scripts.open, |call| {
                call.arg(shards).arg(identity);
            })
            .await?;
        Ok(Opened {
            format,
            shards,
            store,
        })
    }

    /// Changes a shard of format 1 into one of format 2.
    pub async fn migrate(&self, shard: usize) -> Result<(), Error> {
        tracing::info!(
            shard,
            "changing the tasks in Redis from format 1 to format 2"
        );
        loop {
            let migrate = self.call(shard, &self.scripts.migrate, |call| {
                call.arg(MIGRATED_AT_ONCE);
            });
            let left: u64 = migrate.await?;
            if left == 0 {
                return Ok(());
            }
        }
    }
}
