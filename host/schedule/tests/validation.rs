//! Tests of what is accepted and refused.

use super::*;

fn cron_fault(pattern: &str) -> String {
    let refused = ScheduleSpec::new(cron(pattern, ""), &LIMITS, at("2026-01-01T00:00:00Z"));
    let error = refused.expect_err(pattern).to_string();
    assert!(error.starts_with("cron: "), "{pattern}: {error}");
    error
}

#[test]
fn usual_schedules_are_accepted() {
    for pattern in [
        "* * * * *",
        "*/5 * * * *",
        "0 9-17 * * MON-FRI",
        "30 4 1,15 * 5",
        "0 0 * * 7",
        "  0   0 * jan-mar,DEC sun ",
        "0 0 L * *",
        "*/10 * * * * *",
        "@hourly",
        "@DAILY",
        "@weekly",
        "@monthly",
        "@yearly",
        "@annually",
    ] {
        let spec = spec(cron(pattern, "Europe/Berlin"));
        assert!(spec.timing().is_ok(), "{pattern}");
    }
    let spec = spec(cron("0 0 * * *", "europe/berlin"));
    let When::Cron { zone, .. } = spec.when else {
        panic!("{spec:?}")
    };
    assert_eq!(zone, "Europe/Berlin");
    for ms in [100, 1000, 366 * 86_400_000] {
        assert!(
            ScheduleSpec::new(every(ms), &LIMITS, UnixMs(0)).is_ok(),
            "{ms}"
        );
    }
}

#[test]
fn patterns_that_are_none_or_never_fire_are_refused() {
    for pattern in [
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "* * 31 2 *",
        "0 0 0 31 11 *",
    ] {
        assert!(cron_fault(pattern).ends_with("never fires"), "{pattern}");
    }
    assert!(cron_fault("@often").contains("nicknames are @yearly"));
    assert!(cron_fault("* * * *").contains("4 fields"));
    assert!(cron_fault("* * * * * * 2027").contains("7 fields"));
    for pattern in [
        "   ",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "a * * * *",
        "* * * * * @daily",
        "\u{ff10} * * * *",
        "-1 * * * *",
        "99999999999999999999 * * * *",
        "@",
        "0 0 0W * *",
        "0 0 * * MON#6",
    ] {
        cron_fault(pattern);
    }
    cron_fault(&"1,".repeat(200));
}

#[test]
fn zones_that_do_not_exist_are_refused() {
    for zone in [
        "Europe/Berln",
        "Mars/Olympus",
        "../etc/passwd",
        "",
        " ",
        "CEST",
    ] {
        let given = cron("0 0 * * *", zone);
        let made = ScheduleSpec::new(given, &LIMITS, UnixMs(0));
        if zone.is_empty() {
            assert!(made.is_ok());
            continue;
        }
        let error = made.unwrap_err().to_string();
        assert!(
            error.starts_with("time_zone: there is no time zone"),
            "{error}"
        );
        assert_eq!(
            error.contains("did you mean Europe/Berlin?"),
            zone == "Europe/Berln"
        );
    }
    assert_eq!(faults(cron("0 0 * * *", &"x".repeat(65))), ["time_zone"]);
}

#[test]
fn all_faults_are_reported_at_once() {
    let given = GivenSchedule {
        name: "a b".into(),
        cron: "0 0 30 2 *".into(),
        time_zone: "Nowhere".into(),
        every_ms: 5,
        task_type: String::new(),
        payload: vec![0; MAX_PAYLOAD_BYTES + 1].into(),
        metadata: [(String::new(), String::new())].into(),
        group: "a/b".into(),
        node: "n".into(),
        label: "l".into(),
        overlap: "maybe".into(),
        missed: "never".into(),
        jitter_ms: 86_400_001,
        ..GivenSchedule::default()
    };
    assert_eq!(
        faults(given),
        [
            "name",
            "every_ms",
            "time_zone",
            "cron",
            "task_type",
            "group",
            "label",
            "overlap",
            "missed",
            "jitter_ms",
            "payload",
            "metadata",
        ]
    );
    assert_eq!(
        faults(GivenSchedule::default()),
        ["name", "cron", "task_type"]
    );
}

#[test]
fn each_bound_is_enforced_and_its_edge_is_accepted() {
    assert_eq!(faults(every(99)), ["every_ms"]);
    assert_eq!(faults(every(366 * 86_400_000 + 1)), ["every_ms"]);
    assert_eq!(faults(every(u64::MAX)), ["every_ms"]);
    let with = |change: fn(&mut GivenSchedule)| {
        let mut given = every(1000);
        change(&mut given);
        given
    };
    assert_eq!(faults(with(|it| it.jitter_ms = 1000)), ["jitter_ms"]);
    assert_eq!(
        faults(with(|it| it.time_zone = "UTC".into())),
        ["time_zone"]
    );
    assert_eq!(faults(with(|it| it.name = "x".repeat(65))), ["name"]);
    for given in [
        with(|it| it.jitter_ms = 999),
        with(|it| it.name = "x".repeat(64)),
        with(|it| it.payload = vec![0; MAX_PAYLOAD_BYTES].into()),
    ] {
        spec(given);
    }
    // The id of the longest name is valid, and not that of another.
    let name = spec(with(|it| it.name = "x".repeat(64))).name;
    let id = task_id(&name, at("9999-12-30T21:59:59.999Z"));
    assert!(id.as_str().ends_with("x:9999-12-30T21:59:59.999Z"), "{id}");
    assert_ne!(task_id(&name, UnixMs(1)), task_id(&name, UnixMs(u64::MAX)));
}

#[test]
fn stored_schedules_are_read_as_they_were() {
    for payload in [&b""[..], b"hello", "h\u{e4}".as_bytes(), &[0, 255, 128, 10]] {
        let given = GivenSchedule {
            payload: payload.to_vec().into(),
            metadata: [("a".into(), "b".into())].into(),
            group: "tenant-1".into(),
            label: "gpu".into(),
            jitter_ms: 50,
            ..cron("0 9 * * MON", "Asia/Kolkata")
        };
        for given in [given, every(250)] {
            let spec = spec(given);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(
                serde_json::from_str::<ScheduleSpec>(&json).unwrap(),
                spec,
                "{json}"
            );
        }
    }
}

#[test]
fn the_task_has_what_the_schedule_says() {
    let given = GivenSchedule {
        group: "tenant-1".into(),
        priority: "high".into(),
        label: "gpu".into(),
        metadata: [("a".into(), "b".into())].into(),
        ..every(1000)
    };
    let spec = spec(given);
    let task = spec.submission(&task_id(&spec.name, UnixMs(1250))).unwrap();
    assert_eq!(
        task.id().as_str(),
        "schedule:report:1970-01-01T00:00:01.25Z"
    );
    assert_eq!(task.target().to_string(), "@label:gpu");
    assert_eq!(&task.payload()[..], b"hello");
    assert_eq!(task.metadata()["a"], "b");
    let options = task.options().unwrap();
    assert_eq!(options.group.as_ref().unwrap().as_str(), "tenant-1");
    assert_eq!(options.priority, hostel_task::Priority::High);
    assert_eq!(options.due_at(UnixMs(7)), UnixMs(7));
}
