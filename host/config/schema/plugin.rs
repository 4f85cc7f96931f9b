//! `[plugin.NAME]`

use super::{
    super::{
        group::{self, Visibility, section, settings, tables},
        setting::{DAY, SECOND, Setting, millis, number, text},
    },
    plugins::{ComponentOverrides, MAX_TASK_TIMEOUT_MS, SandboxOverrides},
    texts::Texts,
};
use hostel_task::{
    GivenLimit, GivenLimits, MAX_CLUSTER_CONCURRENCY, MAX_CONCURRENCY, MAX_PENDING,
    MAX_RETRY_DELAY, Name, Rate,
};
use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

const MAX_BACKOFF_MS: u64 = MAX_RETRY_DELAY.as_secs() * 1000;

/// How long ended tasks may be kept.
pub(super) const KEEP_MS: RangeInclusive<u64> = SECOND..=3650 * DAY;

settings! {
    /// Settings of a single plugin; NAME is the name in its manifest.
    struct Plugin: Default {
        /// `[plugin.NAME.limits]`
        limits: SandboxOverrides = section();

        /// `[plugin.NAME.component]`
        component: ComponentOverrides = section();

        /// What the plugin reads through wasi:config: any keys; numbers and booleans become text.
        /// `hostel config show` masks the values. A change takes effect when the node restarts.
        config: BTreeMap<String, String> = Texts {
            example: ("quality", "80"),
            visibility: Visibility::OnRequest,
        };

        /// `[plugin.NAME.task.TYPE]`
        task: BTreeMap<Name, TaskTypeOverrides> = tables("task type", "thumbnail");
    }
}

settings! {
    /// Overrides what the plugin declares for one of its task types.
    struct TaskTypeOverrides: Default {
        /// How long an attempt may take.
        timeout: Option<Duration> = millis(1..=MAX_TASK_TIMEOUT_MS).example(20_000);

        /// Number of attempts of a task.
        max_attempts: Option<u32> = number(1..=1000).example(3);

        /// Maximum of the random delay before the second attempt. It doubles with each further
        /// attempt.
        backoff_initial: Option<Duration> = millis(0..=MAX_BACKOFF_MS).example(1000);

        /// Maximum of the delay between any two attempts.
        backoff_max: Option<Duration> = millis(0..=MAX_BACKOFF_MS).example(60_000);

        /// Number of tasks of this type that run on a node at the same time.
        max_concurrency: Option<usize> = number(1..=MAX_CONCURRENCY).example(4);

        /// Number of tasks of this type that run on all nodes together at the same time.
        max_cluster_concurrency: Option<usize> = number(1..=MAX_CLUSTER_CONCURRENCY).example(10);

        /// How often tasks of this type begin on all nodes together, retries included: a number per
        /// second (s), minute (m), hour (h) or day (d). Within any time no more begin than this gives
        /// in that time and a burst: what it gives in a second, or BURST in "60/m burst 10".
        max_rate: Option<Rate> = rate().example("100/s");

        /// Number of pending tasks of this type. While there are as many, further ones are refused.
        max_pending: Option<usize> = number(1..=MAX_PENDING).example(10_000);

        /// How long a completed task of this type is kept, instead of queue.keep_completed_ms.
        keep_completed: Option<Duration> = millis(KEEP_MS).example(3_600_000);

        /// How long a failed task of this type is kept, instead of queue.keep_failed_ms.
        keep_failed: Option<Duration> = millis(KEEP_MS).example(604_800_000);

        /// How long a cancelled task of this type is kept, instead of queue.keep_cancelled_ms.
        keep_cancelled: Option<Duration> = millis(KEEP_MS).example(3_600_000);

        /// `[plugin.NAME.task.TYPE.group]`
        group: TaskGroupLimits = section();
    }
}

settings! {
    /// Limits of each group of tasks of the type, beside those of the type. Tasks without a group
    /// have none. `hostel types limit` sets those of a single group.
    struct TaskGroupLimits: Default {
        /// Number of tasks of a group that run on a node at the same time.
        max_concurrency: Option<usize> = number(1..=MAX_CONCURRENCY).example(2);

        /// Number of tasks of a group that run on all nodes together at the same time.
        max_cluster_concurrency: Option<usize> = number(1..=MAX_CLUSTER_CONCURRENCY).example(5);

        /// How often tasks of a group begin on all nodes together.
        max_rate: Option<Rate> = rate().example("10/s");

        /// Number of pending tasks of a group.
        max_pending: Option<usize> = number(1..=MAX_PENDING).example(1000);
    }
}

fn rate() -> Setting<Rate> {
    text(|given| given.parse())
}

impl TaskTypeOverrides {
    /// Returns the limits of the type.
    pub fn limits(&self) -> GivenLimits {
        GivenLimits {
            max_concurrency: self.max_concurrency.map(GivenLimit::Max),
            max_cluster_concurrency: self.max_cluster_concurrency.map(GivenLimit::Max),
            max_rate: self.max_rate.map(GivenLimit::Max),
            max_pending: self.max_pending.map(GivenLimit::Max),
        }
    }
}

impl TaskGroupLimits {
    /// Returns the limits of each group.
    pub fn limits(&self) -> GivenLimits {
        GivenLimits {
            max_concurrency: self.max_concurrency.map(GivenLimit::Max),
            max_cluster_concurrency: self.max_cluster_concurrency.map(GivenLimit::Max),
            max_rate: self.max_rate.map(GivenLimit::Max),
            max_pending: self.max_pending.map(GivenLimit::Max),
        }
    }
}
