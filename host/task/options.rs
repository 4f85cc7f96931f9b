//! What a client may ask of a task beside its content: when it starts, how often and how long it is tried,
//! its priority, its group, its tags and its unique key. Pure.

use super::{name::Name, transition::RetryPolicy, unix_ms::UnixMs};
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
    /// How long the task is kept after its end, instead of the time of its
    /// type and state (`Retention`).
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

impl TaskOptions {
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
mod tests {
    use super::*;

    #[test]
    fn options_override_the_policy_of_the_type() {
        let options = TaskOptions {
            max_attempts: Some(2),
            backoff_max: Some(Duration::from_millis(10)),
            ..TaskOptions::default()
        };
        let policy = options.retry_policy(RetryPolicy::default());
        assert_eq!(policy.max_attempts, 2);
        // The delay of the type is cut to the longest one of the task.
        assert_eq!(policy.backoff_initial, Duration::from_millis(10));
        assert_eq!(policy.backoff_max, Duration::from_millis(10));
    }

    #[test]
    fn each_priority_gets_its_share() {
        let cycle = SHARES.iter().sum();
        let turns: Vec<_> = (0..cycle).map(Priority::of_turn).collect();
        for (priority, share) in Priority::ALL.into_iter().zip(SHARES) {
            let turns = turns.iter().filter(|turn| **turn == priority).count() as u64;
            assert_eq!(turns, share, "{priority}");
            assert_eq!(priority.as_str().parse(), Ok(priority));
        }
    }

    #[test]
    fn stored_options_have_what_was_given_only() {
        // What a store has must be readable by every later version.
        let text = |options: &TaskOptions| serde_json::to_string(options).unwrap();
        assert_eq!(text(&TaskOptions::default()), "{}");
        let name = |given| Name::parse("name", given).unwrap();
        let options = TaskOptions {
            start: Start::After(Duration::from_millis(1500)),
            priority: Priority::Low,
            group: Some(name("g")),
            tags: [name("b"), name("a")].into(),
            unique: Some(Unique {
                key: name("k"),
                time: None,
            }),
            ..TaskOptions::default()
        };
        assert_eq!(
            text(&options),
            r#"{"start":{"after":{"secs":1,"nanos":500000000}},"priority":"low","group":"g","tags":["a","b"],"unique":{"key":"k"}}"#
        );
        let read: TaskOptions = serde_json::from_str(&text(&options)).unwrap();
        assert_eq!(read, options);
    }
}
