//! What a schedule is, as a client or the configuration gives it. The constructor enforces every limit and
//! reports all faults at once.

use super::{
    cron::{self, ZonedCron},
    payload,
    timing::Timing,
    when::When,
};
use bytes::Bytes;
use hostel_task::{
    Name, Priority, Submission, SubmissionLimits, Target, TaskId, TaskOptions, UnixMs, Violations,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

/// The longest name of a schedule in bytes: the ids of its tasks are made of it.
pub const MAX_NAME_BYTES: usize = 64;

/// The longest cron pattern in bytes.
pub const MAX_CRON_BYTES: usize = 256;

/// The shortest interval.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// The longest interval.
pub const MAX_INTERVAL: Duration = Duration::from_secs(366 * 86_400);

/// The largest jitter.
pub const MAX_JITTER: Duration = Duration::from_secs(86_400);

/// The largest payload in bytes. It is stored with the schedule, and read for every firing.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 10;

/// The longest name of a time zone in bytes.
const MAX_ZONE_BYTES: usize = 64;

/// A schedule that is within the limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ScheduleSpec {
    /// The name, unique in its queue.
    pub name: Name,
    /// When it fires.
    pub when: When,
    /// The type of its tasks.
    pub task_type: Name,
    /// The payload of its tasks.
    #[serde(with = "payload")]
    pub payload: Bytes,
    /// The metadata of its tasks.
    pub metadata: BTreeMap<String, String>,
    /// The group of its tasks.
    pub group: Option<Name>,
    /// The priority of its tasks.
    pub priority: Priority,
    /// The node that runs its tasks, if only one may.
    pub node: Option<Name>,
    /// The label of the nodes that run its tasks, if not all may.
    pub label: Option<Name>,
    /// What happens to a firing while the task of the one before is open.
    pub overlap: Overlap,
    /// What happens to firings that no node could make in time.
    pub missed: Missed,
    /// Each firing is delayed by up to this time.
    pub jitter: Duration,
    /// Whether it is paused when it is created.
    pub paused: bool,
}

/// What happens to a firing while the task of the one before is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// It does not happen.
    #[default]
    Skip,
    /// It happens when that task has ended. One firing waits at most; others are skipped.
    Queue,
    /// It happens.
    Allow,
}

/// What happens to firings that are more than [`GRACE`](super::GRACE) late, because no node could make
/// them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// None happens.
    Skip,
    /// The latest happens.
    #[default]
    Once,
    /// The latest [`MAX_MISSED`](super::MAX_MISSED) happen.
    All,
}

/// A schedule as it is given: zero, or an empty text, is "not given".
#[derive(Debug, Clone, Default)]
pub struct GivenSchedule {
    /// The name.
    pub name: String,
    /// The cron pattern.
    pub cron: String,
    /// The time zone of the pattern; UTC by default.
    pub time_zone: String,
    /// The interval in milliseconds.
    pub every_ms: u64,
    /// The task type.
    pub task_type: String,
    /// The payload.
    pub payload: Bytes,
    /// The metadata.
    pub metadata: BTreeMap<String, String>,
    /// The group.
    pub group: String,
    /// high, normal or low.
    pub priority: String,
    /// The node.
    pub node: String,
    /// The label.
    pub label: String,
    /// skip, queue or allow.
    pub overlap: String,
    /// skip, once or all.
    pub missed: String,
    /// The jitter in milliseconds.
    pub jitter_ms: u64,
    /// Whether it is paused.
    pub paused: bool,
}

impl ScheduleSpec {
    /// Makes a schedule that is within the limits, or returns all its faults. `limits` are those of a
    /// task; its payload has at most [`MAX_PAYLOAD_BYTES`] besides. `now` is the time from which on it
    /// has to fire.
    pub fn new(
        given: GivenSchedule,
        limits: &SubmissionLimits,
        now: UnixMs,
    ) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let name = violations.name("name", "schedule name", &given.name);
        if given.name.len() > MAX_NAME_BYTES && name.is_some() {
            let length = given.name.len();
            let reason = format!("{length} bytes; at most {MAX_NAME_BYTES} are allowed");
            violations.refuse("name", reason);
        }
        let when = when(&mut violations, &given, now);
        let task_type = violations.name("task_type", "task type", &given.task_type);
        let group = violations.optional_name("group", "group", &given.group);
        let node = violations.optional_name("node", "node", &given.node);
        let label = violations.optional_name("label", "label", &given.label);
        if !given.node.is_empty() && !given.label.is_empty() {
            violations.refuse("label", "a schedule has a node or a label, not both");
        }
        let priority = choice(&mut violations, "priority", &given.priority);
        let overlap = choice(&mut violations, "overlap", &given.overlap);
        let missed = choice(&mut violations, "missed", &given.missed);
        let jitter = jitter(&mut violations, &given);
        let limits = SubmissionLimits {
            payload_bytes: limits.payload_bytes.min(MAX_PAYLOAD_BYTES),
            ..limits.clone()
        };
        if given.payload.len() > limits.payload_bytes {
            let (given, limit) = (given.payload.len(), limits.payload_bytes);
            let reason = format!("{given} bytes; the payload of a schedule has at most {limit}");
            violations.refuse("payload", reason);
        }
        // The name and the type stand for themselves above.
        let probe = Submission::new("a", "a", Bytes::new(), given.metadata.clone(), &limits);
        if let Err(refused) = probe {
            violations.0.extend(refused.0);
        }
        match (name, when, task_type) {
            (Some(name), Some(when), Some(task_type)) if violations.is_empty() => Ok(Self {
                name,
                when,
                task_type,
                payload: given.payload,
                metadata: given.metadata,
                group,
                priority,
                node,
                label,
                overlap,
                missed,
                jitter,
                paused: given.paused,
            }),
            _ => Err(violations),
        }
    }

    /// Returns the task of a firing.
    pub fn submission(&self, id: &TaskId) -> Result<Submission, String> {
        // Everything was checked when the schedule was made; a limit that has changed since counts for
        // later schedules.
        let limits = SubmissionLimits {
            payload_bytes: MAX_PAYLOAD_BYTES,
            metadata_entries: usize::MAX,
            metadata_bytes: usize::MAX,
        };
        let (task_type, payload) = (self.task_type.as_str(), self.payload.clone());
        let metadata = self.metadata.clone();
        let task = Submission::new(id.as_str(), task_type, payload, metadata, &limits);
        let options = TaskOptions {
            group: self.group.clone(),
            priority: self.priority,
            ..TaskOptions::default()
        };
        let task = task.map_err(|error| error.to_string())?;
        Ok(task.to(self.target()).with(options))
    }

    /// Which nodes may run its tasks.
    pub fn target(&self) -> Target {
        match (&self.node, &self.label) {
            (Some(node), _) => Target::Node(node.clone()),
            (None, Some(label)) => Target::Label(label.clone()),
            (None, None) => Target::Any,
        }
    }

    /// Returns its times. Fails only if the schedule was stored by a version that knows other patterns or
    /// zones.
    pub fn timing(&self) -> Result<Timing, String> {
        Timing::new(&self.when)
    }
}

fn choice<T: FromStr<Err = String> + Default>(
    violations: &mut Violations,
    field: &'static str,
    given: &str,
) -> T {
    if given.is_empty() {
        return T::default();
    }
    let parsed = given
        .parse()
        .map_err(|error| violations.refuse(field, error));
    parsed.unwrap_or_default()
}

fn when(violations: &mut Violations, given: &GivenSchedule, now: UnixMs) -> Option<When> {
    match (given.cron.is_empty(), given.every_ms) {
        (true, 0) => {
            violations.refuse("cron", "a schedule needs cron or every_ms");
            zone(violations, given);
            None
        }
        (true, ms) => {
            if !given.time_zone.is_empty() {
                let reason = "an interval follows real time and has no time zone";
                violations.refuse("time_zone", reason);
            }
            let interval = Duration::from_millis(ms);
            if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
                let (min, max) = (MIN_INTERVAL.as_millis(), MAX_INTERVAL.as_millis());
                let reason = format!("{ms} ms; an interval has {min} to {max}");
                violations.refuse("every_ms", reason);
                return None;
            }
            Some(When::Every(interval))
        }
        (false, 0) => pattern(violations, given, now),
        (false, _) => {
            let reason = "a schedule has cron or every_ms, not both";
            violations.refuse("every_ms", reason);
            pattern(violations, given, now)
        }
    }
}

fn zone(
    violations: &mut Violations,
    given: &GivenSchedule,
) -> Option<(String, jiff::tz::TimeZone)> {
    let name = match given.time_zone.as_str() {
        "" => "UTC",
        given => given,
    };
    if name.len() > MAX_ZONE_BYTES {
        let reason = format!("{} bytes; at most {MAX_ZONE_BYTES} are allowed", name.len());
        violations.refuse("time_zone", reason);
        return None;
    }
    match cron::zone(name) {
        // The name as the database spells it.
        Ok(zone) => Some((zone.iana_name().unwrap_or(name).to_owned(), zone)),
        Err(reason) => {
            violations.refuse("time_zone", reason);
            None
        }
    }
}

fn pattern(violations: &mut Violations, given: &GivenSchedule, now: UnixMs) -> Option<When> {
    let zone = zone(violations, given);
    if given.cron.len() > MAX_CRON_BYTES {
        let length = given.cron.len();
        let reason = format!("{length} bytes; at most {MAX_CRON_BYTES} are allowed");
        violations.refuse("cron", reason);
        return None;
    }
    let parsed = cron::parse(&given.cron);
    let parsed = parsed
        .map_err(|reason| violations.refuse("cron", reason))
        .ok()?;
    let (zone, tz) = match zone {
        Some((zone, tz)) => (Some(zone), tz),
        None => (None, jiff::tz::TimeZone::UTC),
    };
    if ZonedCron::new(parsed, tz).next_after(now).is_none() {
        violations.refuse("cron", format!("{:?} never fires", given.cron));
        return None;
    }
    let pattern: Vec<_> = given.cron.split_ascii_whitespace().collect();
    let pattern = pattern.join(" ");
    zone.map(|zone| When::Cron { pattern, zone })
}

fn jitter(violations: &mut Violations, given: &GivenSchedule) -> Duration {
    let jitter = Duration::from_millis(given.jitter_ms);
    if jitter > MAX_JITTER {
        let (ms, limit) = (given.jitter_ms, MAX_JITTER.as_millis());
        violations.refuse("jitter_ms", format!("{ms} ms; at most {limit} are allowed"));
    } else if given.every_ms != 0 && given.jitter_ms >= given.every_ms {
        let reason = format!("{} ms; it has to be less than every_ms", given.jitter_ms);
        violations.refuse("jitter_ms", reason);
    }
    jitter
}

/// Texts of a choice.
macro_rules! texts {
    ($type:ident, $what:literal: $($variant:ident = $text:literal),*) => {
        impl $type {
            /// Returns its text.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(given: &str) -> Result<Self, String> {
                match given {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(format!(concat!("{:?} is not ", $what), given)),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

texts!(Overlap, "skip, queue or allow": Skip = "skip", Queue = "queue", Allow = "allow");
texts!(Missed, "skip, once or all": Skip = "skip", Once = "once", All = "all");
