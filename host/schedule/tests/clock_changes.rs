//! The times of patterns and intervals where the clocks of a zone are set.

use super::*;

/// The next times after a moment.
fn times(pattern: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let spec = ScheduleSpec::new(cron(pattern, zone), &LIMITS, at(after)).unwrap();
    let times = spec.timing().unwrap().upcoming(at(after), count);
    times.into_iter().map(text).collect()
}

#[test]
fn a_fixed_time_that_does_not_exist_fires_at_the_next_that_does() {
    // Berlin, 2026-03-29: after 01:59:59 comes 03:00:00.
    for (pattern, expected) in [
        ("30 2 * * *", "2026-03-29T01:00:00Z"),
        ("0 2 * * *", "2026-03-29T01:00:00Z"),
        ("15 30 2 * * *", "2026-03-29T01:00:00Z"),
        ("59 1 * * *", "2026-03-29T00:59:00Z"),
        ("0 3 * * *", "2026-03-29T01:00:00Z"),
        ("30 3 * * *", "2026-03-29T01:30:00Z"),
    ] {
        let found = times(pattern, "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
        assert_eq!(found[0], expected, "{pattern}");
        // 23 hours later, or less where the first had to be moved.
        let times = [0, 1].map(|n| found[n].parse::<jiff::Timestamp>().unwrap());
        let hours = times[1].duration_since(times[0]).as_hours();
        assert!((22..=24).contains(&hours), "{pattern}: {found:?}");
    }
    // New York, 2026-03-08, and several times of one pattern in the gap, which fire once.
    assert_eq!(
        times(
            "0,30 1,2,3 * * *",
            "America/New_York",
            "2026-03-08T05:00:00Z",
            5
        ),
        [
            "2026-03-08T06:00:00Z",
            "2026-03-08T06:30:00Z",
            "2026-03-08T07:00:00Z",
            "2026-03-08T07:30:00Z",
            "2026-03-09T05:00:00Z",
        ]
    );
    // Santiago sets its clocks at midnight: 2026-09-06 begins at 01:00.
    assert_eq!(
        times("0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z", 2),
        ["2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z"]
    );
    // Lord Howe sets them by half an hour: after 01:59:59 comes 02:30:00.
    assert_eq!(
        times(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            2
        ),
        ["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"]
    );
    // Samoa had no 30 December 2011.
    assert_eq!(
        times("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 4),
        [
            "2011-12-29T22:00:00Z",
            "2011-12-30T10:00:00Z",
            "2011-12-30T22:00:00Z",
            "2011-12-31T22:00:00Z",
        ]
    );
}

#[test]
fn a_fixed_time_that_comes_twice_fires_the_first_time() {
    // Berlin, 2026-10-25: after 02:59:59 comes 02:00:00 again.
    assert_eq!(
        times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
    );
    // Between the first and the second, and during the second.
    for after in [
        "2026-10-25T00:30:00Z",
        "2026-10-25T01:10:00Z",
        "2026-10-25T01:45:00Z",
    ] {
        let next = times("30 2 * * *", "Europe/Berlin", after, 1);
        assert_eq!(next, ["2026-10-26T01:30:00Z"], "{after}");
    }
    assert_eq!(
        times(
            "0,30 1 * * *",
            "America/New_York",
            "2026-11-01T04:00:00Z",
            3
        ),
        [
            "2026-11-01T05:00:00Z",
            "2026-11-01T05:30:00Z",
            "2026-11-02T06:00:00Z",
        ]
    );
    // Lord Howe, 2026-04-05: after 01:59:59 comes 01:30:00.
    assert_eq!(
        times(
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T12:00:00Z",
            2
        ),
        ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]
    );
}

#[test]
fn hours_and_quarters_keep_to_real_time() {
    let spaced = |pattern: &str, zone: &str, after: &str, seconds: i64| {
        let found = times(pattern, zone, after, 24);
        let found: Vec<jiff::Timestamp> = found.iter().map(|time| time.parse().unwrap()).collect();
        for pair in found.windows(2) {
            let apart = pair[1].duration_since(pair[0]).as_secs();
            assert_eq!(apart, seconds, "{pattern} in {zone}: {pair:?}");
        }
    };
    for (zone, after) in [
        ("Europe/Berlin", "2026-03-28T20:00:00Z"),
        ("Europe/Berlin", "2026-10-24T20:00:00Z"),
        ("America/New_York", "2026-03-08T02:00:00Z"),
        ("America/New_York", "2026-11-01T02:00:00Z"),
        ("America/Santiago", "2026-09-06T00:00:00Z"),
        ("Pacific/Apia", "2011-12-30T00:00:00Z"),
        ("UTC", "2026-03-28T20:00:00Z"),
    ] {
        spaced("@hourly", zone, after, 3600);
        spaced("*/15 * * * *", zone, after, 900);
        spaced("*/20 * * * * *", zone, after, 20);
    }
    for after in ["2026-10-03T13:00:00Z", "2026-04-04T13:00:00Z"] {
        spaced("*/15 * * * *", "Australia/Lord_Howe", after, 900);
        spaced("*/10 * * * * *", "Australia/Lord_Howe", after, 10);
    }
    // The full hour of a zone that moves by half an hour: 02:00 does not exist, and 02:30 is none.
    assert_eq!(
        times("@hourly", "Australia/Lord_Howe", "2026-10-03T14:00:00Z", 3),
        [
            "2026-10-03T14:30:00Z",
            "2026-10-03T16:00:00Z",
            "2026-10-03T17:00:00Z",
        ]
    );
}

#[test]
fn a_pattern_with_a_wildcard_passes_over_times_that_do_not_exist() {
    // Each minute of the hour that is missing, and of the hour that comes twice.
    let missing = times("* 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 1);
    assert_eq!(missing, ["2026-03-30T00:00:00Z"]);
    let twice = times("* 2 * * *", "Europe/Berlin", "2026-10-24T23:59:59Z", 121);
    assert_eq!(twice[0], "2026-10-25T00:00:00Z");
    assert_eq!(twice[119], "2026-10-25T01:59:00Z");
    assert_eq!(twice[120], "2026-10-26T01:00:00Z");
}

#[test]
fn every_time_is_found_from_every_moment_before_it() {
    // From any second on, the next time is the first of the list that is later.
    for (zone, from) in [
        ("Europe/Berlin", "2026-10-24T23:50:00Z"),
        ("Europe/Berlin", "2026-03-29T00:30:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T14:20:00Z"),
    ] {
        for pattern in ["*/7 * * * *", "5,25,45 1,2,3 * * *", "30 2 * * *"] {
            let timing = spec(cron(pattern, zone)).timing().unwrap();
            let all = timing.upcoming(at(from), 60);
            let hours_later = at(from).0 + 3 * 3_600_000;
            for ms in (at(from).0..hours_later).step_by(37_111) {
                let expected = all.iter().find(|time| time.0 > ms).unwrap();
                let next = timing.next_after(UnixMs(ms)).unwrap();
                assert_eq!(next, *expected, "{pattern} in {zone} after {ms}");
            }
        }
    }
}

#[test]
fn rare_times_are_found() {
    let next = |pattern: &str, zone: &str| times(pattern, zone, "2026-11-27T00:00:00Z", 1);
    assert_eq!(next("0 0 29 2 *", "UTC"), ["2028-02-29T00:00:00Z"]);
    assert_eq!(
        next("* * 29 2 +MON", "Europe/Berlin"),
        ["2044-02-28T23:00:00Z"]
    );
    assert_eq!(next("0 12 * * FRI#L", "UTC"), ["2026-11-27T12:00:00Z"]);
    assert_eq!(next("0 9 LW * *", "UTC"), ["2026-11-30T09:00:00Z"]);
    assert_eq!(next("@yearly", "Asia/Tokyo"), ["2026-12-31T15:00:00Z"]);
    assert_eq!(next("0 0 1 1 ?", "UTC"), ["2027-01-01T00:00:00Z"]);
}

#[test]
fn intervals_follow_real_time_and_are_the_same_everywhere() {
    let timing = spec(every(90_000)).timing().unwrap();
    let times = timing.upcoming(at("2026-03-29T00:59:00Z"), 3);
    let times: Vec<_> = times.into_iter().map(text).collect();
    assert_eq!(
        times,
        [
            "2026-03-29T01:00:00Z",
            "2026-03-29T01:01:30Z",
            "2026-03-29T01:03:00Z"
        ]
    );
    assert_eq!(timing.next_after(UnixMs(u64::MAX)), None);
}
