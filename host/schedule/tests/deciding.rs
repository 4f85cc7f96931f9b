//! Tests of decisions: what fires, and what is recorded.

use super::*;
use std::collections::BTreeSet;

const NOON: &str = "2026-11-27T12:00:00Z";

/// A schedule that fires every second, with policies.
fn secondly(overlap: Overlap, missed: Missed) -> ScheduleSpec {
    ScheduleSpec {
        overlap,
        missed,
        ..spec(every(1000))
    }
}

fn created(spec: &ScheduleSpec, now: UnixMs) -> Record {
    Record::new(spec, &spec.timing().unwrap(), now)
}

fn run(spec: &ScheduleSpec, record: &Record, is_open: bool, now: UnixMs) -> Decision {
    decide(
        spec,
        &spec.timing().unwrap(),
        record,
        is_open,
        now,
        MAX_FIRINGS,
    )
}

fn after(ms: u64) -> UnixMs {
    UnixMs(at(NOON).0 + ms)
}

fn seconds(decision: &Decision) -> Vec<u64> {
    let firings = decision.firings.iter();
    firings
        .map(|firing| (firing.time.0 - at(NOON).0) / 1000)
        .collect()
}

/// Decides until nothing more is due, as nodes do.
fn settle(spec: &ScheduleSpec, mut record: Record, now: UnixMs) -> (Vec<u64>, Record) {
    let mut all = Vec::new();
    while record.next.is_some_and(|next| next <= now) {
        let decision = run(spec, &record, false, now);
        all.extend(seconds(&decision));
        record = decision.record;
    }
    (all, record)
}

#[test]
fn a_schedule_fires_at_each_of_its_times_and_never_again() {
    let spec = secondly(Overlap::Allow, Missed::Skip);
    let mut record = created(&spec, at(NOON));
    assert_eq!(record.next, Some(after(1000)));
    let mut ids = BTreeSet::new();
    for ms in (0..20_000).step_by(130) {
        let decision = run(&spec, &record, true, after(ms));
        // What was not stored is decided again, and the same.
        assert_eq!(run(&spec, &record, true, after(ms)), decision);
        for firing in &decision.firings {
            assert!(ids.insert(firing.id.clone()), "{}", firing.id);
            assert_eq!(firing.id, task_id(&spec.name, firing.time));
        }
        assert_eq!(decision.record.next, Some(after(ms / 1000 * 1000 + 1000)));
        record = decision.record;
    }
    assert_eq!(ids.len(), 19);
    assert_eq!(record.fired, 19);
    assert_eq!(record.last_fired, Some(after(19_000)));
    assert_eq!(
        ids.first().unwrap().as_str(),
        "schedule:report:2026-11-27T12:00:01Z"
    );
    // A clock that goes back fires nothing.
    assert_eq!(run(&spec, &record, false, after(5000)).firings, []);
}

#[test]
fn a_paused_schedule_does_not_fire_and_misses_nothing() {
    let given = GivenSchedule {
        paused: true,
        ..every(1000)
    };
    let spec = ScheduleSpec {
        overlap: Overlap::Allow,
        missed: Missed::All,
        ..spec(given)
    };
    let timing = spec.timing().unwrap();
    let record = created(&spec, at(NOON));
    assert_eq!(record.next, None);
    assert_eq!(run(&spec, &record, false, after(90_000)).firings, []);
    let record = record.with_paused(false, &spec, &timing, after(90_500));
    assert_eq!(record.next, Some(after(91_000)));
    assert_eq!(
        seconds(&run(&spec, &record, false, after(92_000))),
        [91, 92]
    );
    let record = record.with_paused(true, &spec, &timing, after(93_000));
    assert_eq!(record.next, None);
}

#[test]
fn late_firings_within_the_grace_time_are_in_time() {
    for missed in [Missed::Skip, Missed::Once, Missed::All] {
        let spec = secondly(Overlap::Allow, missed);
        let (fired, record) = settle(&spec, created(&spec, at(NOON)), after(30_000));
        assert_eq!(fired, (1..=30).collect::<Vec<_>>());
        assert_eq!(record.next, Some(after(31_000)));
    }
}

#[test]
fn missed_firings_follow_the_policy() {
    let hour = 3600;
    // At 13:00:00, those up to a minute before are in time, and the others were missed.
    let in_time: Vec<u64> = (hour - 60..=hour).collect();
    for (missed, count) in [
        (Missed::Skip, 0),
        (Missed::Once, 1),
        (Missed::All, MAX_MISSED as u64),
    ] {
        let spec = secondly(Overlap::Allow, missed);
        let (fired, record) = settle(&spec, created(&spec, at(NOON)), after(hour * 1000));
        let expected: Vec<u64> = (hour - 60 - count..hour - 60)
            .chain(in_time.clone())
            .collect();
        assert_eq!(fired, expected, "{missed}");
        assert_eq!(record.handled, after(hour * 1000));
    }
    // Fewer than the most: all of them.
    let spec = ScheduleSpec {
        overlap: Overlap::Allow,
        missed: Missed::All,
        ..spec(cron("0 9 * * *", "Europe/Berlin"))
    };
    let record = created(&spec, at(NOON));
    let (fired, _) = settle(&spec, record.clone(), at("2026-12-01T12:00:00Z"));
    assert_eq!(fired.len(), 4);
    let once = ScheduleSpec {
        missed: Missed::Once,
        ..spec
    };
    let decision = run(&once, &record, false, at("2026-12-01T12:00:00Z"));
    let ids: Vec<_> = decision.firings.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, ["schedule:report:2026-12-01T08:00:00Z"]);
    assert_eq!(decision.record.next, Some(at("2026-12-02T08:00:00Z")));
}

#[test]
fn a_year_of_missed_firings_is_bounded() {
    for missed in [Missed::Skip, Missed::Once, Missed::All] {
        let spec = ScheduleSpec {
            overlap: Overlap::Allow,
            missed,
            ..spec(cron("* * * * * *", "Europe/Berlin"))
        };
        let now = at("2027-11-27T12:00:00Z");
        let decision = run(&spec, &created(&spec, at(NOON)), false, now);
        assert_eq!(decision.firings.len(), MAX_FIRINGS);
        assert!(decision.record.next.unwrap() <= now);
    }
}

#[test]
fn skip_passes_over_firings_while_the_task_is_open() {
    let spec = secondly(Overlap::Skip, Missed::Once);
    let first = run(&spec, &created(&spec, at(NOON)), false, after(1000));
    assert_eq!(seconds(&first), [1]);
    let open = run(&spec, &first.record, true, after(3000));
    assert_eq!(open.firings, []);
    assert_eq!((open.record.skipped, open.record.fired), (2, 1));
    assert_eq!(open.record.last_fired, Some(after(1000)));
    let ended = run(&spec, &open.record, false, after(4000));
    assert_eq!(seconds(&ended), [4]);
    // Of several that are due, the first is open when the others come.
    let late = run(&spec, &first.record, false, after(5000));
    assert_eq!(seconds(&late), [2]);
    assert_eq!(late.record.skipped, 3);
}

#[test]
fn queue_keeps_one_firing_until_the_task_has_ended() {
    let spec = secondly(Overlap::Queue, Missed::Skip);
    let first = run(&spec, &created(&spec, at(NOON)), false, after(1000));
    let waits = run(&spec, &first.record, true, after(2000));
    assert_eq!(waits.firings, []);
    assert_eq!(waits.record.waiting, Some(after(2000)));
    // It waits longer than the grace time, and others are skipped.
    let mut record = waits.record;
    for second in 3..=200 {
        let decision = run(&spec, &record, true, after(second * 1000));
        assert_eq!(decision.firings, []);
        record = decision.record;
        assert_eq!(record.next, Some(after(second * 1000 + 1000)));
    }
    assert_eq!(record.skipped, 198);
    let ended = run(&spec, &record, false, after(200_500));
    assert_eq!(seconds(&ended), [2]);
    assert_eq!(ended.record.waiting, None);
    // The one that waited is open now.
    let next = run(&spec, &ended.record, true, after(201_000));
    assert_eq!(next.record.waiting, Some(after(201_000)));
}

#[test]
fn a_firing_that_waits_is_polled() {
    let spec = ScheduleSpec {
        overlap: Overlap::Queue,
        ..spec(cron("@daily", "UTC"))
    };
    let midnight = at("2026-11-28T00:00:00Z");
    let first = run(&spec, &created(&spec, at(NOON)), false, midnight);
    let next_day = at("2026-11-29T00:00:00Z");
    let waits = run(&spec, &first.record, true, next_day);
    assert_eq!(waits.record.waiting, Some(next_day));
    assert_eq!(waits.record.next, Some(next_day.after(POLL_INTERVAL)));
    let paused = waits
        .record
        .with_paused(true, &spec, &spec.timing().unwrap(), next_day);
    assert_eq!((paused.waiting, paused.next), (None, None));
}

#[test]
fn jitter_delays_each_firing_by_a_part_that_all_nodes_agree_on() {
    let given = GivenSchedule {
        jitter_ms: 900,
        ..every(1000)
    };
    let spec = ScheduleSpec {
        overlap: Overlap::Allow,
        ..spec(given)
    };
    let mut delays = BTreeSet::new();
    let mut record = created(&spec, at(NOON));
    for second in 1..=200 {
        let next = record.next.unwrap();
        let delay = next.0 - after(second * 1000).0;
        assert!(delay <= 900, "{delay}");
        delays.insert(delay / 100);
        assert_eq!(run(&spec, &record, false, UnixMs(next.0 - 1)).firings, []);
        let decision = run(&spec, &record, false, next);
        assert_eq!(seconds(&decision), [second]);
        record = decision.record;
    }
    assert!(delays.len() >= 9, "{delays:?}");
    // A jitter longer than the grace time makes no firing a missed one.
    let given = GivenSchedule {
        jitter_ms: 3_600_000,
        ..cron("@daily", "UTC")
    };
    let spec = ScheduleSpec {
        missed: Missed::Skip,
        ..self::spec(given)
    };
    let record = created(&spec, at(NOON));
    assert_eq!(
        run(&spec, &record, false, record.next.unwrap())
            .firings
            .len(),
        1
    );
}

#[test]
fn a_replaced_schedule_fires_at_its_new_times_from_now_on() {
    let before = secondly(Overlap::Allow, Missed::All);
    let record = run(&before, &created(&before, at(NOON)), false, after(1000)).record;
    let now = after(600_000);
    let replaced =
        |spec: &ScheduleSpec| record.replaced(&before, spec, &spec.timing().unwrap(), now);
    // Other content: what was missed is still made up for.
    let content = ScheduleSpec {
        payload: Bytes::from_static(b"other"),
        ..before.clone()
    };
    assert_eq!(replaced(&content), record);
    // Other times: those before now are not its own.
    let times = ScheduleSpec {
        when: When::Every(std::time::Duration::from_secs(5)),
        ..before.clone()
    };
    assert_eq!(replaced(&times).next, Some(after(605_000)));
    assert_eq!(replaced(&times).fired, 1);
    let paused = ScheduleSpec {
        paused: true,
        ..before.clone()
    };
    assert!(replaced(&paused).paused);
    // A pause by hand stays if the schedule does not say otherwise.
    let by_hand = record.with_paused(true, &before, &before.timing().unwrap(), now);
    let timing = content.timing().unwrap();
    assert!(by_hand.replaced(&before, &content, &timing, now).paused);
}

#[test]
fn a_record_of_an_earlier_version_is_read() {
    let record: Record = serde_json::from_str(r#"{"handled": 5, "paused": true}"#).unwrap();
    assert_eq!(
        (record.handled, record.paused, record.next),
        (UnixMs(5), true, None)
    );
}

#[test]
fn fewer_firings_are_the_earliest_and_the_rest_follows() {
    for overlap in [Overlap::Allow, Overlap::Skip, Overlap::Queue] {
        let spec = secondly(overlap, Missed::All);
        let record = created(&spec, at(NOON));
        let timing = spec.timing().unwrap();
        let whole = run(&spec, &record, false, after(5000));
        for max in 0..=whole.firings.len() {
            let part = decide(&spec, &timing, &record, false, after(5000), max);
            assert_eq!(part.firings[..], whole.firings[..max], "{overlap}");
            let is_open = overlap != Overlap::Allow && max > 0;
            let rest = run(&spec, &part.record, is_open, after(5000));
            assert_eq!(rest.firings[..], whole.firings[max..], "{overlap}");
            assert_eq!(rest.record, whole.record, "{overlap}");
        }
    }
    // One that waits is among them.
    let spec = secondly(Overlap::Queue, Missed::All);
    let first = run(&spec, &created(&spec, at(NOON)), false, after(1000));
    let waits = run(&spec, &first.record, true, after(2000));
    let timing = spec.timing().unwrap();
    let none = decide(&spec, &timing, &waits.record, false, after(2100), 0);
    assert_eq!(
        (none.firings.len(), none.record.waiting),
        (0, Some(after(2000)))
    );
}
