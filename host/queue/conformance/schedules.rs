//! The conformance suite of the stores of schedules: the contract of `ScheduleStore`, one case a
//! sentence. Each case needs a fresh, empty backend.

use super::helpers::name;
use crate::{
    AdvanceSchedule, DueSchedules, Opened, PutSchedule, ScheduleStore, VersionedSchedule,
    schedule_store::MAX_SCHEDULES,
};
use futures_util::future::join_all;
use hostel_schedule::{GivenSchedule, Origin, Record, Schedule, ScheduleSpec};
use hostel_task::{Name, SubmissionLimits, UnixMs};
use std::{collections::BTreeSet, time::Duration};

/// How long a case waits for what takes a second or less.
const DEADLINE: Duration = Duration::from_secs(30);

/// One rule of the contract. It closes the backend that it ran on.
pub type ScheduleCase = hostel_runtime::conformance::Case<Opened>;

macro_rules! cases {
    ($($case:ident,)*) => {
        const CASES: &[ScheduleCase] = &[$(ScheduleCase::new(
            stringify!($case),
            |opened| Box::pin(async move {
                $case(&*opened.schedules).await;
                opened.tasks.close().await;
            }),
        )),*];
    };
}

cases! {
    a_schedule_comes_back_as_it_was_stored,
    a_schedule_is_stored_over_the_expected_version_only,
    a_schedule_is_removed_in_the_expected_version_only,
    a_schedule_that_is_made_again_has_no_version_of_before,
    schedules_are_listed_in_the_order_of_their_names,
    a_page_of_large_schedules_is_complete,
    due_schedules_come_in_the_order_of_their_times,
    a_record_is_stored_over_the_expected_version_only,
    of_concurrent_changes_one_is_stored,
    what_is_not_advanced_is_due_again,
    a_thousand_schedules_become_due_at_once,
    a_full_store_takes_no_new_schedule,
}

/// The cases of every store.
pub fn schedule_cases() -> impl Iterator<Item = ScheduleCase> {
    CASES.iter().copied()
}

fn spec(schedule: &str, payload: &[u8]) -> ScheduleSpec {
    let limits = SubmissionLimits {
        payload_bytes: 1 << 16,
        metadata_entries: 8,
        metadata_bytes: 1000,
    };
    let given = GivenSchedule {
        name: schedule.into(),
        cron: "0 9 * * MON".into(),
        time_zone: "Asia/Kolkata".into(),
        task_type: "echo".into(),
        payload: payload.to_vec().into(),
        metadata: [("key \u{e4}".into(), "\"value\"\n".into())].into(),
        ..GivenSchedule::default()
    };
    ScheduleSpec::new(given, &limits, UnixMs(0)).unwrap()
}

/// A schedule that is due at `next`.
fn schedule(name: &str, next: Option<u64>) -> Schedule {
    Schedule {
        spec: spec(name, b"payload"),
        origin: Origin::Api,
        record: Record {
            next: next.map(UnixMs),
            ..Record::default()
        },
    }
}

async fn create(store: &dyn ScheduleStore, schedule: &Schedule) -> u64 {
    match store.put_schedule(schedule, None).await.unwrap() {
        PutSchedule::Stored(version) => version,
        other => panic!("{}: {other:?}", schedule.spec.name),
    }
}

async fn get(store: &dyn ScheduleStore, schedule: &str) -> Option<VersionedSchedule> {
    store.schedule(&name(schedule)).await.unwrap()
}

fn advance(name: &Name, expected: u64, record: &Record) -> AdvanceSchedule {
    AdvanceSchedule {
        name: name.clone(),
        expected,
        record: record.clone(),
    }
}

fn names(schedules: &[VersionedSchedule]) -> Vec<&str> {
    let names = schedules.iter();
    names.map(|one| one.schedule.spec.name.as_str()).collect()
}

async fn a_schedule_comes_back_as_it_was_stored(store: &dyn ScheduleStore) {
    assert_eq!(get(store, "report").await, None);
    let nodes: BTreeSet<_> = ["node-1", "node-2"].map(name).into();
    for (schedule, payload, origin) in [
        ("text", &b"hello \xe2\x82\xac"[..], Origin::Api),
        ("bytes", &[0, 255, 10, 13, 34], Origin::Config(nodes)),
        ("empty", b"", Origin::Config(BTreeSet::new())),
    ] {
        let stored = Schedule {
            spec: spec(schedule, payload),
            origin,
            record: Record {
                handled: UnixMs(1_795_698_346_793),
                next: Some(UnixMs(1_795_698_350_000)),
                last_fired: Some(UnixMs(1_795_698_346_000)),
                last_task: Some(name("schedule:report:2026-11-27T00:00:00Z")),
                waiting: Some(UnixMs(1_795_698_346_500)),
                paused: true,
                fired: 7,
                skipped: 8,
            },
        };
        let version = create(store, &stored).await;
        let found = get(store, schedule).await.unwrap();
        assert_eq!(found.schedule, stored);
        assert_eq!(found.version, version);
    }
}

async fn a_schedule_is_stored_over_the_expected_version_only(store: &dyn ScheduleStore) {
    let first = schedule("report", Some(5));
    let version = create(store, &first).await;
    let second = Schedule {
        spec: spec("report", b"second"),
        ..schedule("report", None)
    };
    for wrong in [None, Some(version + 1), Some(version.wrapping_sub(1))] {
        let put = store.put_schedule(&second, wrong).await.unwrap();
        assert_eq!(put, PutSchedule::Changed, "{wrong:?}");
    }
    assert_eq!(get(store, "report").await.unwrap().schedule, first);
    let put = store.put_schedule(&second, Some(version)).await.unwrap();
    let found = get(store, "report").await.unwrap();
    assert_eq!(found.schedule, second);
    assert_eq!(put, PutSchedule::Stored(found.version));
    assert_ne!(found.version, version);
    // It was due before, and is not any more.
    let due = store.due_schedules(10).await.unwrap();
    assert_eq!((due.due.len(), due.next), (0, None));
    // A schedule that does not exist has no version.
    let other = schedule("other", None);
    let put = store.put_schedule(&other, Some(version)).await.unwrap();
    assert_eq!(put, PutSchedule::Changed);
    assert_eq!(get(store, "other").await, None);
}

async fn a_schedule_is_removed_in_the_expected_version_only(store: &dyn ScheduleStore) {
    let stored = schedule("report", Some(5));
    let version = create(store, &stored).await;
    let remove = async |version| {
        let removed = store
            .remove_schedule(&stored.spec.name, Some(version))
            .await;
        removed.unwrap()
    };
    assert!(!remove(version + 1).await);
    assert!(get(store, "report").await.is_some());
    assert!(remove(version).await);
    assert_eq!(get(store, "report").await, None);
    assert!(!remove(version).await);
    let due = store.due_schedules(10).await.unwrap();
    assert_eq!((due.due.len(), due.next), (0, None));
    assert_eq!(store.schedules(None, 10).await.unwrap().schedules, []);
    // Without a version, whatever is stored.
    create(store, &stored).await;
    let any = async || {
        store
            .remove_schedule(&stored.spec.name, None)
            .await
            .unwrap()
    };
    assert_eq!((any().await, any().await), (true, false));
}

async fn a_schedule_that_is_made_again_has_no_version_of_before(store: &dyn ScheduleStore) {
    let stored = schedule("report", None);
    let mut versions = BTreeSet::new();
    for _ in 0..5 {
        let version = create(store, &stored).await;
        assert!(versions.insert(version), "{version}");
        let change = advance(&stored.spec.name, version, &Record::default());
        let stored_it = store
            .advance_schedules(std::slice::from_ref(&change))
            .await
            .unwrap();
        assert_eq!(stored_it, [true]);
        let version = get(store, "report").await.unwrap().version;
        assert!(versions.insert(version), "{version}");
        let removed = store
            .remove_schedule(&stored.spec.name, Some(version))
            .await;
        assert!(removed.unwrap());
        // What was decided on a schedule that is gone changes no other.
        assert_eq!(store.advance_schedules(&[change]).await.unwrap(), [false]);
    }
}

async fn schedules_are_listed_in_the_order_of_their_names(store: &dyn ScheduleStore) {
    let mut all: Vec<String> = (0..120).map(|n| format!("s{}:{n}", n % 7)).collect();
    join_all(all.iter().map(|name| async move {
        create(store, &schedule(name, Some(1))).await;
    }))
    .await;
    all.sort();
    for size in [1000, 120, 50, 7] {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = store.schedules(after.as_ref(), size).await.unwrap();
            assert!(page.schedules.len() <= size);
            assert!(page.damaged.is_empty());
            listed.extend(names(&page.schedules).into_iter().map(str::to_owned));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed, all, "{size}");
    }
}

async fn a_page_of_large_schedules_is_complete(store: &dyn ScheduleStore) {
    // No text, so that it is stored in its longest form.
    let payload = vec![0xFF; 1 << 16];
    for number in 0..20 {
        let name = format!("s{number:02}");
        let large = Schedule {
            spec: spec(&name, &payload),
            ..schedule(&name, Some(5))
        };
        create(store, &large).await;
    }
    let (mut listed, mut after) = (0, None);
    loop {
        let page = store.schedules(after.as_ref(), 100).await.unwrap();
        for found in &page.schedules {
            assert_eq!(found.schedule.spec.name.as_str(), format!("s{listed:02}"));
            assert_eq!(found.schedule.spec.payload.len(), payload.len());
            listed += 1;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, 20);
    let mut due = 0;
    while due < 20 {
        let found = store.due_schedules(100).await.unwrap().due;
        assert!(!found.is_empty());
        due += found.len();
        let advances: Vec<_> = found
            .iter()
            .map(|one| advance(&one.schedule.spec.name, one.version, &Record::default()))
            .collect();
        store.advance_schedules(&advances).await.unwrap();
    }
}

async fn due_schedules_come_in_the_order_of_their_times(store: &dyn ScheduleStore) {
    let now = store.schedule_time().await.unwrap();
    assert!(now.0 > 1_700_000_000_000, "{now:?}");
    let later = now.0 + 3_600_000;
    for (name, next) in [
        ("third", Some(now.0)),
        ("first", Some(1000)),
        ("later", Some(later)),
        ("paused", None),
        ("second", Some(2000)),
    ] {
        create(store, &schedule(name, next)).await;
    }
    let DueSchedules {
        now: then,
        due,
        damaged,
        ..
    } = store.due_schedules(2).await.unwrap();
    assert!(then >= now);
    assert_eq!(names(&due), ["first", "second"]);
    assert!(damaged.is_empty());
    let changes: Vec<_> = due
        .iter()
        .map(|one| advance(&one.schedule.spec.name, one.version, &Record::default()))
        .collect();
    assert_eq!(
        store.advance_schedules(&changes).await.unwrap(),
        [true, true]
    );
    let rest = store.due_schedules(10).await.unwrap();
    assert_eq!(names(&rest.due), ["third"]);
    assert_eq!(rest.due[0].schedule, schedule("third", Some(now.0)));
    let change = advance(&name("third"), rest.due[0].version, &Record::default());
    store.advance_schedules(&[change]).await.unwrap();
    let none = store.due_schedules(10).await.unwrap();
    assert_eq!((names(&none.due), none.next), (vec![], Some(UnixMs(later))));
}

async fn a_record_is_stored_over_the_expected_version_only(store: &dyn ScheduleStore) {
    let stored = schedule("report", Some(5));
    let version = create(store, &stored).await;
    let record = Record {
        handled: UnixMs(9),
        next: Some(UnixMs(u64::MAX >> 12)),
        fired: 1,
        ..Record::default()
    };
    let changes = [
        advance(&name("other"), version, &record),
        advance(&name("report"), version + 1, &record),
        advance(&name("report"), version, &record),
        // The version of before the change above.
        advance(&name("report"), version, &Record::default()),
    ];
    let answers = store.advance_schedules(&changes).await.unwrap();
    assert_eq!(answers, [false, false, true, false]);
    let found = get(store, "report").await.unwrap();
    assert_eq!(found.schedule.record, record);
    assert_eq!(found.schedule.spec, stored.spec);
    assert_eq!(get(store, "other").await, None);
    assert!(store.advance_schedules(&[]).await.unwrap().is_empty());
}

async fn of_concurrent_changes_one_is_stored(store: &dyn ScheduleStore) {
    let stored = schedule("report", Some(5));
    let mut version = create(store, &stored).await;
    for round in 0..10 {
        let contenders = (0..8).map(|fired| {
            let record = Record {
                fired,
                next: Some(UnixMs(round)),
                ..Record::default()
            };
            let change = advance(&name("report"), version, &record);
            async move { store.advance_schedules(&[change]).await.unwrap()[0] }
        });
        let stored = join_all(contenders).await;
        assert_eq!(stored.iter().filter(|&&stored| stored).count(), 1);
        let found = get(store, "report").await.unwrap();
        let winner = stored.iter().position(|&stored| stored).unwrap();
        assert_eq!(found.schedule.record.fired, winner as u64);
        version = found.version;
    }
}

async fn what_is_not_advanced_is_due_again(store: &dyn ScheduleStore) {
    create(store, &schedule("report", Some(5))).await;
    let first = store.due_schedules(10).await.unwrap();
    assert_eq!(names(&first.due), ["report"]);
    let again = async {
        loop {
            let due = store.due_schedules(10).await.unwrap();
            if !due.due.is_empty() {
                return due;
            }
            assert!(due.next.is_some(), "{due:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let again = tokio::time::timeout(DEADLINE, again).await;
    assert_eq!(again.expect("it is due again").due, first.due);
}

async fn a_thousand_schedules_become_due_at_once(store: &dyn ScheduleStore) {
    let all: Vec<String> = (0..1000).map(|n| format!("s{n:04}")).collect();
    join_all(all.iter().map(|name| async move {
        create(store, &schedule(name, Some(5))).await;
    }))
    .await;
    let mut seen = BTreeSet::new();
    let done = async {
        while seen.len() < all.len() {
            let due = store.due_schedules(64).await.unwrap();
            assert!(due.due.len() <= 64);
            seen.extend(names(&due.due).into_iter().map(str::to_owned));
            let changes: Vec<_> = due
                .due
                .iter()
                .map(|one| advance(&one.schedule.spec.name, one.version, &Record::default()))
                .collect();
            store.advance_schedules(&changes).await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, done)
        .await
        .expect("all are due");
    let none = store.due_schedules(64).await.unwrap();
    assert_eq!((none.due.len(), none.next), (0, None));
}

async fn a_full_store_takes_no_new_schedule(store: &dyn ScheduleStore) {
    let all: Vec<usize> = (0..MAX_SCHEDULES).collect();
    for some in all.chunks(500) {
        join_all(some.iter().map(|n| async move {
            create(store, &schedule(&format!("s{n}"), None)).await;
        }))
        .await;
    }
    let more = schedule("more", None);
    assert_eq!(
        store.put_schedule(&more, None).await.unwrap(),
        PutSchedule::Full
    );
    // Others can be changed and removed, which makes room.
    let found = get(store, "s0").await.unwrap();
    let put = store
        .put_schedule(&found.schedule, Some(found.version))
        .await;
    let PutSchedule::Stored(version) = put.unwrap() else {
        panic!("a stored schedule cannot be changed")
    };
    let removed = store.remove_schedule(&name("s0"), Some(version)).await;
    assert!(removed.unwrap());
    create(store, &more).await;
}
