//! What a client may ask of a task beside its content: when it starts, how often and how long it is tried,
//! its priority, its group, its tags and its unique key. Pure.

use super::{
    name::Name,
    record::UnixMs,
    submission::Violation,
    transition::{MAX_RETRY_DELAY, RetryPolicy},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

/// The most tags of a task.
pub const MAX_TAGS: usize = 8;

/// How many of `SHARES.iter().sum()` leases each priority gets while tasks of all three wait.
pub const SHARES: [u64; 3] = [16, 4, 1];

/// The options of a task. The default asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct TaskOptions {
    /// When the task becomes due.
    #[serde(skip_serializing_if = "is_default")]
    pub start: Start,
    /// The task fails with the class `expired` unless an attempt has begun by then.
    #[serde(skip_serializing_if = "is_default")]
    pub start_by: Option<UnixMs>,
    /// How long an attempt may take, instead of the time of its type.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: Option<Duration>,
    /// The number of attempts, the first included, instead of the number of its type.
    #[serde(skip_serializing_if = "is_default")]
    pub max_attempts: Option<u32>,
    /// The longest delay before the second attempt, instead of that of its type.
    #[serde(skip_serializing_if = "is_default")]
    pub backoff_initial: Option<Duration>,
    /// The longest delay before any attempt, instead of that of its type.
    #[serde(skip_serializing_if = "is_default")]
    pub backoff_max: Option<Duration>,
    /// How long the task is kept after its end, instead of `queue.keep_ended_ms`.
    #[serde(skip_serializing_if = "is_default")]
    pub result_ttl: Option<Duration>,
    /// Which tasks of a type are leased first.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// The tenant, customer or account. Groups of a type take turns.
    #[serde(skip_serializing_if = "is_default")]
    pub group: Option<Name>,
    /// Words to find the task by.
    #[serde(skip_serializing_if = "is_default")]
    pub tags: BTreeSet<Name>,
    /// Keeps other tasks with the same key from being made.
    #[serde(skip_serializing_if = "is_default")]
    pub unique: Option<Unique>,
}

/// When a task becomes due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// When it is submitted.
    #[default]
    Now,
    /// So long after it was submitted.
    After(Duration),
    /// At this time.
    At(UnixMs),
}

/// Which tasks of a type are leased first. A lower priority is slowed by a higher one and never starved.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Before the others.
    High,
    /// The default.
    #[default]
    Normal,
    /// After the others.
    Low,
}

/// While a task has this key, another submission with it is answered with the id of that task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Unique {
    /// The key, unique among the tasks of a type.
    pub key: Name,
    /// How long the task has the key at least, from its submission on; without it, until it has ended.
    #[serde(default, rename = "for", skip_serializing_if = "is_default")]
    pub time: Option<Duration>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The options of a submission as a client gives them: zero, or an empty text, is "not given".
#[derive(Debug, Clone, Default)]
pub struct GivenOptions {
    /// Milliseconds until the task is due.
    pub delay_ms: u64,
    /// When the task is due, in milliseconds since the Unix epoch.
    pub run_at_ms: u64,
    /// By when an attempt has to begin, in milliseconds since the Unix epoch.
    pub start_by_ms: u64,
    /// How long an attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// The number of attempts.
    pub max_attempts: u32,
    /// The longest delay before the second attempt, in milliseconds.
    pub backoff_initial_ms: u64,
    /// The longest delay before any attempt, in milliseconds.
    pub backoff_max_ms: u64,
    /// How long the task is kept after its end, in milliseconds.
    pub result_ttl_ms: u64,
    /// The priority.
    pub priority: Priority,
    /// The group.
    pub group: String,
    /// The tags.
    pub tags: Vec<String>,
    /// The unique key.
    pub unique_key: String,
    /// How long the task has the unique key at least, in milliseconds.
    pub unique_for_ms: u64,
}

/// What the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionLimits {
    /// The longest delay, and how far ahead `run_at_ms` and `start_by_ms` may be.
    pub delay: Duration,
    /// The longest time of an attempt (`plugins.max_timeout_ms`).
    pub timeout: Duration,
    /// The most attempts.
    pub attempts: u32,
    /// The longest time that a task is kept after its end, and that a unique key is held.
    pub keep: Duration,
}

impl TaskOptions {
    /// Validates options at the time `now` of the queue. Adds every fault to `violations`, each with the
    /// field of `Task` that it is in.
    pub fn validate(
        given: &GivenOptions,
        limits: &OptionLimits,
        now: UnixMs,
        violations: &mut Vec<Violation>,
    ) -> Self {
        let mut fields = Fields { violations };
        let start = match (given.delay_ms, given.run_at_ms) {
            (0, 0) => Start::Now,
            (delay, 0) => {
                Start::After(fields.time("delay_ms", delay, limits.delay, "limits.max_delay_ms"))
            }
            (0, at) => {
                fields.moment("run_at_ms", at, now, limits.delay);
                Start::At(UnixMs(at))
            }
            _ => {
                fields.refuse(
                    "run_at_ms",
                    "a task has delay_ms or run_at_ms, not both".into(),
                );
                Start::Now
            }
        };
        if given.start_by_ms != 0 {
            let by = UnixMs(given.start_by_ms);
            fields.moment("start_by_ms", by.0, now, limits.delay);
            let due = match start {
                Start::Now => now,
                Start::After(delay) => now.after(delay),
                Start::At(at) => at,
            };
            if by < due {
                let reason = "the task has to start before it is due, or the time has passed";
                fields.refuse("start_by_ms", reason.into());
            }
        }
        let backoff_initial = fields.backoff("backoff_initial_ms", given.backoff_initial_ms);
        let backoff_max = fields.backoff("backoff_max_ms", given.backoff_max_ms);
        if backoff_max.is_some() && backoff_initial > backoff_max {
            let reason = "it is less than backoff_initial_ms";
            fields.refuse("backoff_max_ms", reason.into());
        }
        if given.max_attempts > limits.attempts {
            let (given, limit) = (given.max_attempts, limits.attempts);
            let reason =
                format!("{given} attempts; this node accepts {limit} (limits.max_attempts)");
            fields.refuse("max_attempts", reason);
        }
        if given.tags.len() > MAX_TAGS {
            let reason = format!("{} tags; a task has at most {MAX_TAGS}", given.tags.len());
            fields.refuse("tags", reason);
        }
        let tags = given.tags.iter().take(MAX_TAGS);
        let tags = tags.filter_map(|tag| fields.name("tags", "tag", tag));
        let tags = tags.collect();
        let unique = fields.optional_name("unique_key", "unique key", &given.unique_key);
        let unique_for = fields.optional_time(
            "unique_for_ms",
            given.unique_for_ms,
            limits.keep,
            "limits.max_keep_ms",
        );
        if given.unique_for_ms != 0 && given.unique_key.is_empty() {
            fields.refuse("unique_for_ms", "it needs a unique_key".into());
        }
        Self {
            start,
            start_by: (given.start_by_ms != 0).then_some(UnixMs(given.start_by_ms)),
            timeout: fields.optional_time(
                "timeout_ms",
                given.timeout_ms,
                limits.timeout,
                "plugins.max_timeout_ms",
            ),
            max_attempts: (given.max_attempts != 0).then_some(given.max_attempts),
            backoff_initial,
            backoff_max,
            result_ttl: fields.optional_time(
                "result_ttl_ms",
                given.result_ttl_ms,
                limits.keep,
                "limits.max_keep_ms",
            ),
            priority: given.priority,
            group: fields.optional_name("group", "group", &given.group),
            tags,
            unique: unique.map(|key| Unique {
                key,
                time: unique_for,
            }),
        }
    }

    /// Whether nothing is asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns when a task that is submitted at `now` becomes due.
    pub fn due_at(&self, now: UnixMs) -> UnixMs {
        match self.start {
            Start::Now => now,
            Start::After(delay) => now.after(delay),
            Start::At(at) => at.max(now),
        }
    }

    /// Returns the retry policy of a task of a type with the policy `of_type`.
    pub fn retry_policy(&self, of_type: RetryPolicy) -> RetryPolicy {
        let backoff_initial = self.backoff_initial.unwrap_or(of_type.backoff_initial);
        let backoff_max = self.backoff_max.unwrap_or(of_type.backoff_max);
        RetryPolicy {
            max_attempts: self.max_attempts.unwrap_or(of_type.max_attempts),
            backoff_initial: backoff_initial.min(backoff_max),
            backoff_max,
        }
    }

    /// Returns the size of names and tags in bytes.
    pub fn bytes(&self) -> usize {
        let length = |name: &Name| name.as_str().len();
        let tags: usize = self.tags.iter().map(length).sum();
        tags + self.group.as_ref().map_or(0, length)
            + self.unique.as_ref().map_or(0, |unique| length(&unique.key))
    }
}

/// Collects the faults of fields.
struct Fields<'v> {
    violations: &'v mut Vec<Violation>,
}

impl Fields<'_> {
    fn refuse(&mut self, field: &'static str, reason: String) {
        self.violations.push(Violation { field, reason });
    }

    fn time(&mut self, field: &'static str, ms: u64, limit: Duration, setting: &str) -> Duration {
        let given = Duration::from_millis(ms);
        if given > limit {
            let limit = limit.as_millis();
            self.refuse(
                field,
                format!("{ms} ms; this node accepts {limit} ({setting})"),
            );
        }
        given
    }

    fn optional_time(
        &mut self,
        field: &'static str,
        ms: u64,
        limit: Duration,
        setting: &str,
    ) -> Option<Duration> {
        (ms != 0).then(|| self.time(field, ms, limit, setting))
    }

    fn backoff(&mut self, field: &'static str, ms: u64) -> Option<Duration> {
        let given = Duration::from_millis(ms);
        if given > MAX_RETRY_DELAY {
            let limit = MAX_RETRY_DELAY.as_millis();
            self.refuse(field, format!("{ms} ms; a delay has at most {limit}"));
        }
        (ms != 0).then_some(given)
    }

    fn moment(&mut self, field: &'static str, at: u64, now: UnixMs, ahead: Duration) {
        if UnixMs(at) > now.after(ahead) {
            let ahead = ahead.as_millis();
            let reason = format!("it is more than {ahead} ms ahead (limits.max_delay_ms)");
            self.refuse(field, reason);
        }
    }

    fn name(&mut self, field: &'static str, what: &'static str, given: &str) -> Option<Name> {
        match Name::parse(what, given) {
            Ok(name) => Some(name),
            Err(error) => {
                self.refuse(field, error.to_string());
                None
            }
        }
    }

    fn optional_name(
        &mut self,
        field: &'static str,
        what: &'static str,
        given: &str,
    ) -> Option<Name> {
        (!given.is_empty())
            .then(|| self.name(field, what, given))
            .flatten()
    }
}

impl Priority {
    /// All priorities, the highest first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// Returns the priority whose turn it is for lease number `number`. If none of its tasks can be
    /// leased, the others follow from the highest on. In 21 leases in a row high has 16 turns, normal 4
    /// and low 1, spread evenly.
    pub fn of_turn(number: u64) -> Self {
        let cycle: u64 = SHARES.iter().sum();
        match number % cycle {
            10 => Self::Low,
            2 | 7 | 13 | 18 => Self::Normal,
            _ => Self::High,
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|priority| priority.as_str() == given)
            .ok_or_else(|| format!("{given:?} is not a priority; they are high, normal and low"))
    }
}

#[cfg(test)]
mod tests;
