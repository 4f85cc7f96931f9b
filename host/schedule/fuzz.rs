//! A fuzz target of schedules: patterns, zones and numbers of any kind.

use crate::{GivenSchedule, Record, ScheduleSpec, decide};
use hostel_fuzz::{Choices, Target};
use hostel_task::{SubmissionLimits, UnixMs};

/// The year 3000. Whatever fires has fired twice between this and the last time that is computed.
const LAST: u64 = 32_503_680_000_000;

/// What is accepted fires at later and later times, and is decided upon; else there is a reason.
pub const SCHEDULES: Target = Target {
    name: "schedules",
    seeds: Vec::new,
    check: |bytes| {
        let mut choices = Choices::new(bytes);
        let cron = choices.near_text(&[
            "* * * * *",
            "*/15 9-17 * * MON-FRI",
            "0 0 L * *",
            "30 2 15W JAN,jul ?",
            "0 0 29 2 +MON",
            "*/10 0 0 * * 5#2",
            "@hourly",
        ]);
        let zones = [
            "UTC",
            "Europe/Berlin",
            "Australia/Lord_Howe",
            "Pacific/Apia",
        ];
        let every = choices.flag();
        let given = GivenSchedule {
            name: "s".into(),
            cron: if every { String::new() } else { cron },
            time_zone: if every {
                String::new()
            } else if choices.flag() {
                (*choices.one_of(&zones)).into()
            } else {
                choices.near_text(&zones)
            },
            every_ms: if every { choices.number() } else { 0 },
            task_type: "echo".into(),
            overlap: (*choices.one_of(&["", "skip", "queue", "allow"])).into(),
            missed: (*choices.one_of(&["skip", "once", "all"])).into(),
            jitter_ms: u64::from(choices.small_number()),
            ..GivenSchedule::default()
        };
        let limits = SubmissionLimits {
            payload_bytes: 0,
            metadata_entries: 0,
            metadata_bytes: 0,
        };
        let after = UnixMs(choices.number() % LAST);
        let spec = match ScheduleSpec::new(given, &limits, after) {
            Ok(spec) => spec,
            Err(error) => return assert!(!error.to_string().is_empty()),
        };
        let timing = spec.timing().expect("what was accepted has times");
        let mut before = after;
        for time in timing.upcoming(after, 5) {
            assert!(time > before, "{time:?} follows {before:?}");
            before = time;
        }
        // It is late by less than an hour.
        let record = Record::new(&spec, &timing, after);
        let now = UnixMs(after.0 + choices.number() % 3_600_000);
        let decision = decide(&spec, &timing, &record, choices.flag(), now, 10);
        assert!(decision.record.handled >= record.handled);
        for firing in &decision.firings {
            assert!(firing.time > after && firing.time <= now);
            spec.submission(&firing.id).expect("a valid task");
        }
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn fuzz_schedules() {
        super::SCHEDULES.run();
    }
}
