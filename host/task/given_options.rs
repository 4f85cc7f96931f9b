//! The options of a submission as a client gives them, and their validation. All faults are collected, each with
//! the field that it is in.

use super::{
    options::{MAX_TAGS, Priority, Start, TaskOptions, Unique},
    transition::MAX_RETRY_DELAY,
    unix_ms::UnixMs,
    violations::Violations,
};
use std::time::Duration;

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
        violations: &mut Violations,
    ) -> Self {
        let start = match (given.delay_ms, given.run_at_ms) {
            (0, 0) => Start::Now,
            (delay, 0) => Start::After(time(
                violations,
                "delay_ms",
                delay,
                limits.delay,
                "limits.max_delay_ms",
            )),
            (0, at) => {
                moment(violations, "run_at_ms", at, now, limits.delay);
                Start::At(UnixMs(at))
            }
            _ => {
                violations.refuse("run_at_ms", "a task has delay_ms or run_at_ms, not both");
                Start::Now
            }
        };
        if given.start_by_ms != 0 {
            let by = UnixMs(given.start_by_ms);
            moment(violations, "start_by_ms", by.0, now, limits.delay);
            let due = match start {
                Start::Now => now,
                Start::After(delay) => now.after(delay),
                Start::At(at) => at,
            };
            if by < due {
                let reason = "the task has to start before it is due, or the time has passed";
                violations.refuse("start_by_ms", reason);
            }
        }
        let backoff_initial = backoff(violations, "backoff_initial_ms", given.backoff_initial_ms);
        let backoff_max = backoff(violations, "backoff_max_ms", given.backoff_max_ms);
        if backoff_max.is_some() && backoff_initial > backoff_max {
            let reason = "it is less than backoff_initial_ms";
            violations.refuse("backoff_max_ms", reason);
        }
        if given.max_attempts > limits.attempts {
            let (given, limit) = (given.max_attempts, limits.attempts);
            let reason =
                format!("{given} attempts; this node accepts {limit} (limits.max_attempts)");
            violations.refuse("max_attempts", reason);
        }
        if given.tags.len() > MAX_TAGS {
            let reason = format!("{} tags; a task has at most {MAX_TAGS}", given.tags.len());
            violations.refuse("tags", reason);
        }
        let tags = given.tags.iter().take(MAX_TAGS);
        let tags = tags.filter_map(|tag| violations.name("tags", "tag", tag));
        let tags = tags.collect();
        let unique = violations.optional_name("unique_key", "unique key", &given.unique_key);
        let unique_for = optional_time(
            violations,
            "unique_for_ms",
            given.unique_for_ms,
            limits.keep,
            "limits.max_keep_ms",
        );
        if given.unique_for_ms != 0 && given.unique_key.is_empty() {
            violations.refuse("unique_for_ms", "it needs a unique_key");
        }
        Self {
            start,
            start_by: (given.start_by_ms != 0).then_some(UnixMs(given.start_by_ms)),
            timeout: optional_time(
                violations,
                "timeout_ms",
                given.timeout_ms,
                limits.timeout,
                "plugins.max_timeout_ms",
            ),
            max_attempts: (given.max_attempts != 0).then_some(given.max_attempts),
            backoff_initial,
            backoff_max,
            result_ttl: optional_time(
                violations,
                "result_ttl_ms",
                given.result_ttl_ms,
                limits.keep,
                "limits.max_keep_ms",
            ),
            priority: given.priority,
            group: violations.optional_name("group", "group", &given.group),
            tags,
            unique: unique.map(|key| Unique {
                key,
                time: unique_for,
            }),
        }
    }
}

fn time(
    violations: &mut Violations,
    field: &'static str,
    ms: u64,
    limit: Duration,
    setting: &str,
) -> Duration {
    let given = Duration::from_millis(ms);
    if given > limit {
        let limit = limit.as_millis();
        violations.refuse(
            field,
            format!("{ms} ms; this node accepts {limit} ({setting})"),
        );
    }
    given
}

fn optional_time(
    violations: &mut Violations,
    field: &'static str,
    ms: u64,
    limit: Duration,
    setting: &str,
) -> Option<Duration> {
    (ms != 0).then(|| time(violations, field, ms, limit, setting))
}

fn backoff(violations: &mut Violations, field: &'static str, ms: u64) -> Option<Duration> {
    let given = Duration::from_millis(ms);
    if given > MAX_RETRY_DELAY {
        let limit = MAX_RETRY_DELAY.as_millis();
        violations.refuse(field, format!("{ms} ms; a delay has at most {limit}"));
    }
    (ms != 0).then_some(given)
}

fn moment(violations: &mut Violations, field: &'static str, at: u64, now: UnixMs, ahead: Duration) {
    if UnixMs(at) > now.after(ahead) {
        let ahead = ahead.as_millis();
        let reason = format!("it is more than {ahead} ms ahead (limits.max_delay_ms)");
        violations.refuse(field, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RetryPolicy;

    const LIMITS: OptionLimits = OptionLimits {
        delay: Duration::from_secs(100),
        timeout: Duration::from_secs(10),
        attempts: 5,
        keep: Duration::from_secs(1000),
    };

    const NOW: UnixMs = UnixMs(1_000_000);

    fn validate(given: GivenOptions) -> Result<TaskOptions, Vec<&'static str>> {
        let mut violations = Violations::default();
        let options = TaskOptions::validate(&given, &LIMITS, NOW, &mut violations);
        if violations.is_empty() {
            Ok(options)
        } else {
            Err(violations.0.into_iter().map(|it| it.field).collect())
        }
    }

    #[test]
    fn what_is_not_given_is_default() {
        let options = validate(GivenOptions::default()).unwrap();
        assert!(options.is_default());
        assert_eq!(options.due_at(NOW), NOW);
        let of_type = RetryPolicy::default();
        assert_eq!(options.retry_policy(of_type), of_type);
    }

    #[test]
    fn all_faults_are_reported_at_once_and_each_edge_is_accepted() {
        let edge = GivenOptions {
            delay_ms: 100_000,
            start_by_ms: NOW.0 + 100_000,
            timeout_ms: 10_000,
            max_attempts: 5,
            backoff_initial_ms: 7 * 24 * 3600 * 1000,
            backoff_max_ms: 7 * 24 * 3600 * 1000,
            result_ttl_ms: 1_000_000,
            group: "g".into(),
            tags: vec!["t".into(); MAX_TAGS],
            unique_key: "k".into(),
            unique_for_ms: 1_000_000,
            ..GivenOptions::default()
        };
        let options = validate(edge).unwrap();
        assert_eq!(options.tags.len(), 1, "tags are a set");
        assert_eq!(options.due_at(NOW), UnixMs(NOW.0 + 100_000));
        let beyond = GivenOptions {
            delay_ms: 100_001,
            start_by_ms: 1,
            timeout_ms: 10_001,
            max_attempts: 6,
            backoff_initial_ms: u64::MAX,
            backoff_max_ms: 1,
            result_ttl_ms: u64::MAX,
            group: "a b".into(),
            tags: vec![String::new(); MAX_TAGS + 1],
            unique_for_ms: u64::MAX,
            ..GivenOptions::default()
        };
        let fields = validate(beyond).unwrap_err();
        for field in [
            "delay_ms",
            "start_by_ms",
            "timeout_ms",
            "max_attempts",
            "backoff_initial_ms",
            "backoff_max_ms",
            "result_ttl_ms",
            "group",
            "tags",
            "unique_for_ms",
        ] {
            assert!(fields.contains(&field), "{field}: {fields:?}");
        }
        let both = GivenOptions {
            delay_ms: 1,
            run_at_ms: 1,
            ..GivenOptions::default()
        };
        assert_eq!(validate(both).unwrap_err(), ["run_at_ms"]);
        let far = GivenOptions {
            run_at_ms: NOW.0 + 100_001,
            ..GivenOptions::default()
        };
        assert_eq!(validate(far).unwrap_err(), ["run_at_ms"]);
    }

    #[test]
    fn a_time_in_the_past_is_due_now() {
        let options = validate(GivenOptions {
            run_at_ms: 1,
            ..GivenOptions::default()
        });
        assert_eq!(options.unwrap().due_at(NOW), NOW);
    }
}
