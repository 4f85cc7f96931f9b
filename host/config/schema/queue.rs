//! `[queue]`

use super::{
    super::{
        group::{self, inline, kinds, settings},
        setting::{DAY, Defaulted, GIB, HOUR, MIB, SECOND, TIB, bytes, millis, number, path},
    },
    backends::Redis,
};
use std::{path::PathBuf, time::Duration};

settings! {
    /// The queue of tasks.
    struct Queue {
        /// `kind`, with the settings of that kind.
        backend: QueueBackend = inline();

        /// How long a completed task is kept after its end, with its result. Until then its id names
        /// it; after that the same submission makes a new task. A result_ttl_ms of the task counts
        /// instead, and a time of its type in `[plugin.NAME.task.TYPE]`. All nodes that share a queue
        /// should have the same times: the shortest counts.
        keep_completed: Duration = keep(1);

        /// The same for failed tasks, the dead letters.
        keep_failed: Duration = keep(7);

        /// The same for cancelled tasks.
        keep_cancelled: Duration = keep(1);

        /// How long a lease lasts after its last renewal. After that the task goes to another node. A
        /// task that was lost in this way three times is charged with an attempt.
        lease_ttl: Duration = millis(SECOND..=HOUR).default(Duration::from_secs(15));

        /// Results of this node that the queue has not confirmed yet. At half of it the node stops
        /// leasing tasks; when it is used up, attempts that end keep their slots until there is room.
        max_unwritten_bytes: usize = bytes(MIB..=TIB).default(64 * MIB);
    }
}

kinds! {
    /// Where tasks are kept: "sqlite" is a file of this node, "redis" a Redis that several nodes share.
    enum QueueBackend {
        /// In a file of this node.
        Sqlite(Sqlite) = "sqlite";
        /// Shared by all nodes with the same Redis and prefix.
        Redis(RedisQueue) = "redis";
    }
}

settings! {
    /// Settings of the queue of kind "sqlite".
    struct Sqlite {
        /// The database file. By default queue.db in data_dir.
        path: PathBuf = path().default_with(|dirs| dirs.data.join("queue.db")).example("queue.db");

        /// Number of tasks that may be pending or running; further submissions are refused.
        max_open_tasks: usize = open_tasks();

        /// Number of operations that share one commit to disk.
        max_batch: usize = number(1..=10_000).default(512);

        /// Disk space that is reserved, in a file beside the database, for operations other than
        /// submissions; at most an eighth of the file system. Submissions are refused before it is
        /// used. 0 reserves nothing.
        reserve_bytes: u64 = bytes(0..=64 * GIB as u64).default(32 * MIB as u64);
    }
}

settings! {
    /// Settings of the queue of kind "redis".
    struct RedisQueue {
        /// The Redis server.
        server: Redis = inline();

        /// Number of shards that the tasks are divided into. Each shard is on one node of a Redis
        /// Cluster; with a single Redis, use one. It has to be the same on all nodes, and must not be
        /// changed while there are tasks.
        shards: u32 = number(1..=256).default(1);

        /// Number of tasks that may be pending or running, on all nodes together; further submissions
        /// are refused. With several shards, each has an equal part of it.
        max_open_tasks: usize = open_tasks();

        /// Number of replicas that must have a task before its submission is confirmed.
        replicas: u32 = number(0..=100).default(0);

        /// Percentage of the server's maxmemory that submissions leave free for the other
        /// operations on tasks, which Redis accepts at any memory usage. The node's user needs the
        /// permission for INFO; without it, submissions are refused at maxmemory only.
        reserve_percent: u64 = number(0..=90).default(RedisQueue::RESERVE_PERCENT);
    }
}

impl RedisQueue {
    /// The default of `reserve_percent`.
    pub const RESERVE_PERCENT: u64 = 10;
}

/// How long ended tasks are kept, in days by default.
fn keep(days: u64) -> Defaulted<Duration> {
    millis(super::plugin::KEEP_MS).default(Duration::from_millis(days * DAY))
}

fn open_tasks() -> Defaulted<usize> {
    number(1..=1_000_000_000).default(1_000_000)
}
