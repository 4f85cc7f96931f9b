//! The options of a task as arguments of `hostel submit`.

use crate::{
    proto::distributed::{Priority as WirePriority, Task},
    task::Priority,
};
use clap::Args;
use jiff::{Span, SpanRelativeTo, Timestamp};

const HEADING: &str = "Options of the task";

/// What a task may ask for beside its content. The node checks it.
#[derive(Debug, Args)]
#[group(skip)]
pub struct TaskOptionArgs {
    /// Start the task so long after its submission, such as 10s, 500ms or "2h 30m"
    #[arg(long, value_name = "TIME", value_parser = milliseconds, help_heading = HEADING)]
    delay: Option<u64>,
    /// Start the task at this time: RFC 3339, such as 2027-01-31T08:00:00+01:00, or milliseconds
    /// since the Unix epoch
    #[arg(
        long,
        value_name = "WHEN",
        value_parser = unix_ms,
        conflicts_with = "delay",
        help_heading = HEADING
    )]
    run_at: Option<u64>,
    /// Fail the task unless an attempt has begun by this time
    #[arg(long, value_name = "WHEN", value_parser = unix_ms, help_heading = HEADING)]
    start_by: Option<u64>,
    /// How long an attempt may take
    #[arg(long, value_name = "TIME", value_parser = milliseconds, help_heading = HEADING)]
    timeout: Option<u64>,
    /// The number of attempts, the first included
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = HEADING
    )]
    max_attempts: Option<u32>,
    /// The longest delay before the second attempt; it doubles with each further one
    #[arg(long, value_name = "TIME", value_parser = milliseconds, help_heading = HEADING)]
    backoff_initial: Option<u64>,
    /// The longest delay before any attempt
    #[arg(long, value_name = "TIME", value_parser = milliseconds, help_heading = HEADING)]
    backoff_max: Option<u64>,
    /// How long the task and its result are kept after its end
    #[arg(long, value_name = "TIME", value_parser = milliseconds, help_heading = HEADING)]
    keep: Option<u64>,
    /// high, normal or low: a task of low priority is slowed by others and never starved
    #[arg(long, value_name = "PRIORITY", default_value_t, help_heading = HEADING)]
    priority: Priority,
    /// The tenant, customer or account; the groups of a type take turns
    #[arg(
        long,
        value_name = "GROUP",
        default_value = "",
        hide_default_value = true,
        help_heading = HEADING
    )]
    group: String,
    /// A name to find the task by; may be repeated
    #[arg(long = "tag", value_name = "TAG", help_heading = HEADING)]
    tags: Vec<String>,
    /// Make no task while another of the type has this key
    #[arg(
        long,
        value_name = "KEY",
        default_value = "",
        hide_default_value = true,
        help_heading = HEADING
    )]
    unique_key: String,
    /// How long the task has the key at least, even if it ends before
    #[arg(
        long,
        value_name = "TIME",
        value_parser = milliseconds,
        requires = "unique_key",
        help_heading = HEADING
    )]
    unique_for: Option<u64>,
}

impl TaskOptionArgs {
    /// Sets the options of `task`.
    pub fn set(&self, task: Task) -> Task {
        let given = Option::unwrap_or_default;
        Task {
            delay_ms: given(self.delay),
            run_at_ms: given(self.run_at),
            start_by_ms: given(self.start_by),
            timeout_ms: given(self.timeout),
            max_attempts: self.max_attempts.unwrap_or_default(),
            backoff_initial_ms: given(self.backoff_initial),
            backoff_max_ms: given(self.backoff_max),
            result_ttl_ms: given(self.keep),
            priority: WirePriority::from(self.priority).into(),
            group: self.group.clone(),
            tags: self.tags.clone(),
            unique_key: self.unique_key.clone(),
            unique_for_ms: given(self.unique_for),
            ..task
        }
    }
}

/// Parses a length of time.
pub(super) fn milliseconds(given: &str) -> Result<u64, String> {
    let span: Span = given.parse().map_err(|_| {
        format!("{given:?} is not a length of time such as 10s, 500ms, 7d or \"2h 30m\"")
    })?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|error| error.to_string())?;
    match u64::try_from(duration.as_millis()) {
        Ok(ms) if ms > 0 => Ok(ms),
        _ => Err(format!("{given:?} is less than a millisecond")),
    }
}

/// Parses a moment.
fn unix_ms(given: &str) -> Result<u64, String> {
    if let Ok(ms) = given.parse() {
        return Ok(ms);
    }
    let time: Timestamp = given.parse().map_err(|_| {
        format!(
            "{given:?} is neither a time such as 2027-01-31T08:00:00+01:00 nor milliseconds since the \
             Unix epoch"
        )
    })?;
    let ms = u64::try_from(time.as_millisecond());
    ms.map_err(|_| format!("{given:?} is before the Unix epoch"))
}

/// Parses a moment, or how long ago it was.
pub(super) fn moment(given: &str) -> Result<u64, String> {
    let Ok(ago) = milliseconds(given) else {
        return unix_ms(given).map_err(|error| format!("{error}, nor how long ago, such as 1h"));
    };
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    Ok(now.saturating_sub(ago))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_may_be_in_the_past() {
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap();
        let hour_ago = moment("1h").unwrap();
        assert!((now - 3_600_000..=now).contains(&hour_ago), "{hour_ago}");
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(1000));
        assert_eq!(moment("1801292400000"), Ok(1_801_292_400_000));
        assert!(moment("yesterday").unwrap_err().contains("such as 1h"));
    }

    #[test]
    fn lengths_of_time_have_units() {
        for (given, ms) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("1.5s", 1500),
            ("1h30m", 5_400_000),
            ("2h 30m", 9_000_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(milliseconds(given), Ok(ms), "{given}");
        }
        for given in ["", "10", "s", "-1s", "0s", "1us", "1 month", "never"] {
            let refused = milliseconds(given).unwrap_err();
            assert!(!refused.is_empty(), "{given}");
        }
    }

    #[test]
    fn a_moment_has_an_offset_or_is_a_number() {
        for (given, ms) in [
            ("1801292400000", 1_801_292_400_000),
            ("1970-01-01T00:00:01Z", 1000),
            ("1970-01-01T01:00:00.25+01:00", 250),
        ] {
            assert_eq!(unix_ms(given), Ok(ms), "{given}");
        }
        for given in [
            "",
            "-1",
            "tomorrow",
            "2027-01-31",
            "2027-01-31T08:00:00",
            "1969-01-01T00:00:00Z",
        ] {
            assert!(unix_ms(given).is_err(), "{given}");
        }
    }
}
