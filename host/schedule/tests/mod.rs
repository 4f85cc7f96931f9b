//! Tests of validation, times and decisions, and what they have in common.

mod clock_changes;
mod deciding;
mod validation;

use super::*;
use bytes::Bytes;
use hostel_task::{SubmissionLimits, UnixMs};

const LIMITS: SubmissionLimits = SubmissionLimits {
    payload_bytes: 1 << 20,
    metadata_entries: 4,
    metadata_bytes: 100,
};

/// A moment, such as `2026-11-27T00:00:00Z`.
fn at(text: &str) -> UnixMs {
    let moment: jiff::Timestamp = text.parse().unwrap();
    UnixMs(moment.as_millisecond().try_into().unwrap())
}

fn text(time: UnixMs) -> String {
    let ms = i64::try_from(time.0).unwrap();
    jiff::Timestamp::from_millisecond(ms).unwrap().to_string()
}

fn cron(pattern: &str, zone: &str) -> GivenSchedule {
    GivenSchedule {
        name: "report".into(),
        cron: pattern.into(),
        time_zone: zone.into(),
        task_type: "echo".into(),
        payload: Bytes::from_static(b"hello"),
        ..GivenSchedule::default()
    }
}

fn every(ms: u64) -> GivenSchedule {
    GivenSchedule {
        every_ms: ms,
        ..cron("", "")
    }
}

fn spec(given: GivenSchedule) -> ScheduleSpec {
    ScheduleSpec::new(given, &LIMITS, at("2026-01-01T00:00:00Z")).unwrap()
}

/// The fields of all faults.
fn faults(given: GivenSchedule) -> Vec<&'static str> {
    let refused = ScheduleSpec::new(given, &LIMITS, at("2026-01-01T00:00:00Z"));
    let violations = refused.unwrap_err().0.into_iter();
    violations.map(|violation| violation.field).collect()
}
