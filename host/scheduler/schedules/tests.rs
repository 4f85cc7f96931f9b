//! What a node does when it or the queue stops between two steps, and what it makes of the configuration.
//! The decisions themselves are tested in `hostel_schedule`.

use super::{
    declare::declare,
    runner::{Declared, Shared, decide_on},
};
use crate::{
    config::{self, QueueBackend},
    discovery::LocalDiscovery,
    health::Health,
    log_limit::LogLimit,
    queue::{
        AdvanceSchedule, DueSchedules, Error, Filter, Opened, Page, PutSchedule, SchedulePage,
        ScheduleStore, TaskQueue, VersionedSchedule, open_with_schedules,
    },
    schedule::{GivenSchedule, MAX_FIRINGS, Origin, Record, Schedule, ScheduleSpec, task_id},
    scheduler::{DistributedTaskScheduler, schedules::Schedules},
    task::{Name, Retention, StateKind, Submission, SubmissionLimits, UnixMs},
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tempfile::TempDir;

const LIMITS: SubmissionLimits = SubmissionLimits {
    payload_bytes: 1000,
    metadata_entries: 10,
    metadata_bytes: 1000,
};

/// A store whose records cannot be changed for a while, as if the node died before it had done so.
struct Interrupted {
    store: Arc<dyn ScheduleStore>,
    is_interrupted: AtomicBool,
    /// Whether others pause the schedules just before the next change of their records.
    is_overtaken: AtomicBool,
}

#[async_trait]
impl ScheduleStore for Interrupted {
    async fn schedule_time(&self) -> Result<UnixMs, Error> {
        self.store.schedule_time().await
    }

    async fn put_schedule(
        &self,
        schedule: &Schedule,
        expected: Option<u64>,
    ) -> Result<PutSchedule, Error> {
        self.store.put_schedule(schedule, expected).await
    }

    async fn remove_schedule(&self, name: &Name, expected: Option<u64>) -> Result<bool, Error> {
        self.store.remove_schedule(name, expected).await
    }

    async fn schedule(&self, name: &Name) -> Result<Option<VersionedSchedule>, Error> {
        self.store.schedule(name).await
    }

    async fn schedules(&self, after: Option<&Name>, max: usize) -> Result<SchedulePage, Error> {
        self.store.schedules(after, max).await
    }

    async fn due_schedules(&self, max: usize) -> Result<DueSchedules, Error> {
        self.store.due_schedules(max).await
    }

    async fn advance_schedules(&self, advances: &[AdvanceSchedule]) -> Result<Vec<bool>, Error> {
        if self.is_interrupted.load(Relaxed) {
            return Err(Error::Unavailable {
                reason: "interrupted".into(),
                outcome_unknown: true,
            });
        }
        if self.is_overtaken.swap(false, Relaxed) {
            for AdvanceSchedule { name, .. } in advances {
                let mut found = self.store.schedule(name).await?.unwrap();
                (found.schedule.record.paused, found.schedule.record.next) = (true, None);
                let put = self
                    .store
                    .put_schedule(&found.schedule, Some(found.version));
                put.await?;
            }
        }
        self.store.advance_schedules(advances).await
    }
}

struct Bench {
    _dir: TempDir,
    queue: Arc<dyn TaskQueue>,
    store: Arc<Interrupted>,
    shared: Shared,
}

fn name(given: &str) -> Name {
    Name::parse("name", given).unwrap()
}

async fn bench(max_open_tasks: usize) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let health = Health::default();
    let settings = config::Queue {
        backend: QueueBackend::Sqlite(config::Sqlite {
            path: dir.path().join("queue.db"),
            max_open_tasks,
            max_batch: 64,
            reserve_bytes: 0,
        }),
        ..config::Config::default().queue
    };
    let Opened {
        tasks, schedules, ..
    } = open_with_schedules(&settings, &health).await.unwrap();
    let store = Arc::new(Interrupted {
        store: schedules,
        is_interrupted: AtomicBool::new(false),
        is_overtaken: AtomicBool::new(false),
    });
    let discovery = Arc::new(LocalDiscovery::new(&config::Config::default().limits));
    let scheduler = Arc::new(DistributedTaskScheduler::new(tasks.clone(), discovery));
    let shared = Shared {
        node: name("node-1"),
        queue: tasks.clone(),
        schedules: Schedules::new(store.clone(), scheduler, LIMITS),
        declared: Mutex::new(Declared::new(Vec::new())),
        health,
        log_limit: LogLimit::of_retries(),
        unreadable_at: Mutex::default(),
    };
    Bench {
        _dir: dir,
        queue: tasks,
        store,
        shared,
    }
}

fn given(schedule: &str) -> GivenSchedule {
    GivenSchedule {
        name: schedule.into(),
        every_ms: 600_000,
        task_type: "echo".into(),
        overlap: "allow".into(),
        missed: "all".into(),
        ..GivenSchedule::default()
    }
}

fn spec(given: GivenSchedule) -> ScheduleSpec {
    ScheduleSpec::new(given, &LIMITS, UnixMs(0)).unwrap()
}

impl Bench {
    /// Stores a schedule of which exactly three times are due, and returns the latest.
    async fn create_due(&self, given: GivenSchedule) -> UnixMs {
        let now = self.store.schedule_time().await.unwrap().0;
        let latest = now / 600_000 * 600_000;
        let spec = spec(given);
        let schedule = Schedule {
            record: Record {
                handled: UnixMs(latest - 3 * 600_000),
                next: Some(UnixMs(latest - 2 * 600_000)),
                ..Record::default()
            },
            spec,
            origin: Origin::Api,
        };
        self.store.put_schedule(&schedule, None).await.unwrap();
        UnixMs(latest)
    }

    async fn tasks(&self) -> BTreeSet<String> {
        let page = Page {
            size: 100,
            after: None,
        };
        let listed = self.queue.list(&Filter::default(), &page).await.unwrap();
        assert_eq!(listed.next, None);
        let ids = listed.tasks.iter().map(|task| task.id.to_string());
        ids.collect()
    }

    async fn record(&self, schedule: &str) -> Record {
        let found = self.store.schedule(&name(schedule)).await.unwrap();
        found.unwrap().schedule.record
    }
}

#[tokio::test]
async fn a_node_that_dies_before_it_records_a_firing_leaves_it_to_others() {
    let bench = bench(1000).await;
    let latest = bench.create_due(given("report")).await;
    bench.store.is_interrupted.store(true, Relaxed);
    for _ in 0..3 {
        bench.shared.step().await.unwrap_err();
        assert_eq!(bench.tasks().await.len(), 3);
    }
    assert_eq!(bench.record("report").await.fired, 0);
    bench.store.is_interrupted.store(false, Relaxed);
    bench.shared.step().await.unwrap();
    let expected: BTreeSet<_> = (0..3)
        .map(|n| task_id(&name("report"), UnixMs(latest.0 - n * 600_000)).to_string())
        .collect();
    assert_eq!(bench.tasks().await, expected);
    let record = bench.record("report").await;
    assert_eq!((record.fired, record.handled), (3, latest));

    // Once it is recorded, a task that ends and is purged is not submitted again.
    for id in &expected {
        bench.queue.cancel(&name(id)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(
        bench
            .queue
            .purge(&Retention::of(Duration::ZERO), 100)
            .await
            .unwrap(),
        3
    );
    bench.shared.step().await.unwrap();
    assert_eq!(bench.tasks().await, BTreeSet::new());
    bench.queue.close().await;
}

#[tokio::test]
async fn a_decision_on_an_old_record_changes_nothing() {
    let bench = bench(1000).await;
    bench.create_due(given("report")).await;
    let found = bench
        .store
        .schedule(&name("report"))
        .await
        .unwrap()
        .unwrap();
    let now = bench.store.schedule_time().await.unwrap();
    let (advance, _, submissions) = decide_on(&found, false, now, MAX_FIRINGS).unwrap();
    // Another node is faster, and the schedule is paused meanwhile.
    bench.shared.step().await.unwrap();
    bench
        .shared
        .schedules
        .set_paused(&name("report"), true)
        .await
        .unwrap();
    let tasks = bench.tasks().await;
    bench.queue.submit(submissions).await.unwrap();
    let stored = bench.store.advance_schedules(&[advance]).await.unwrap();
    assert_eq!(stored, [false]);
    assert_eq!(bench.tasks().await, tasks);
    assert!(bench.record("report").await.paused);
    bench.queue.close().await;
}

#[tokio::test]
async fn a_change_between_a_firing_and_its_record_does_not_lose_the_count() {
    let bench = bench(1000).await;
    let pause = async |schedule: &str| {
        let schedule = name(schedule);
        let schedules = &bench.shared.schedules;
        schedules.set_paused(&schedule, true).await.unwrap();
    };
    let is_counted = async |schedule: &str, latest: UnixMs| {
        let record = bench.record(schedule).await;
        let counted = (record.fired, record.last_fired, record.paused);
        assert_eq!(counted, (3, Some(latest), true), "{schedule}");
        assert_eq!(record.last_task, Some(task_id(&name(schedule), latest)));
    };
    // The node dies in between, and then a client pauses the schedule.
    let latest = bench.create_due(given("dead")).await;
    bench.store.is_interrupted.store(true, Relaxed);
    bench.shared.step().await.unwrap_err();
    bench.store.is_interrupted.store(false, Relaxed);
    pause("dead").await;
    is_counted("dead", latest).await;
    // It lives, and the client is faster.
    let latest = bench.create_due(given("slow")).await;
    bench.store.is_overtaken.store(true, Relaxed);
    bench.shared.step().await.unwrap();
    is_counted("slow", latest).await;
    // What is due and was not submitted does not fire.
    bench.create_due(given("idle")).await;
    pause("idle").await;
    assert_eq!(bench.record("idle").await.fired, 0);
    assert_eq!(bench.tasks().await.len(), 6);
    bench.queue.close().await;
}

#[tokio::test]
async fn a_full_queue_delays_what_it_does_not_take() {
    let bench = bench(2).await;
    let latest = bench.create_due(given("report")).await;
    assert!(matches!(bench.shared.step().await, Err(Error::Full { .. })));
    // Two of the three were stored, and are recorded; with room, the third follows.
    let record = bench.record("report").await;
    assert_eq!(
        (record.fired, record.handled),
        (2, UnixMs(latest.0 - 600_000))
    );
    assert_eq!(bench.tasks().await.len(), 2);
    assert!(matches!(bench.shared.step().await, Err(Error::Full { .. })));
    assert_eq!(bench.record("report").await, record);
    let first = task_id(&name("report"), UnixMs(latest.0 - 2 * 600_000));
    bench.queue.cancel(&first).await.unwrap();
    bench.shared.step().await.unwrap();
    assert_eq!(bench.tasks().await.len(), 3);
    assert_eq!(bench.record("report").await.fired, 3);
    bench.queue.close().await;
}

#[tokio::test]
async fn an_id_that_is_taken_counts_as_fired() {
    let bench = bench(1000).await;
    let latest = bench.create_due(given("report")).await;
    let id = task_id(&name("report"), latest);
    let other = Submission::new(id.as_str(), "other", "x".into(), BTreeMap::new(), &LIMITS);
    bench.queue.submit(vec![other.unwrap()]).await.unwrap();
    bench.shared.step().await.unwrap();
    assert_eq!(bench.record("report").await.fired, 3);
    let task = bench.queue.get(&id).await.unwrap().unwrap();
    assert_eq!(task.task_type, name("other"));
    assert_eq!(task.state.kind(), StateKind::Pending);
    bench.queue.close().await;
}

#[tokio::test]
async fn a_schedule_that_is_not_understood_stops_no_other() {
    let bench = bench(1000).await;
    bench.create_due(given("good")).await;
    bench.create_due(given("strange")).await;
    let found = bench
        .store
        .schedule(&name("strange"))
        .await
        .unwrap()
        .unwrap();
    let mut schedule = found.schedule;
    schedule.spec.when = crate::schedule::When::Cron {
        pattern: "@daily".into(),
        zone: "Mars/Olympus".into(),
    };
    let put = bench
        .store
        .put_schedule(&schedule, Some(found.version))
        .await;
    assert!(matches!(put, Ok(PutSchedule::Stored(_))));
    bench.shared.step().await.unwrap();
    assert_eq!(bench.record("good").await.fired, 3);
    let record = bench.record("strange").await;
    assert_eq!(record.fired, 0);
    assert!(record.next > Some(bench.store.schedule_time().await.unwrap()));
    let faults = format!("{:?}", bench.shared.health.faults());
    assert!(
        faults.contains("strange") && faults.contains("Mars/Olympus"),
        "{faults}"
    );
    bench.queue.close().await;
}

#[tokio::test]
async fn a_schedule_of_the_configuration_lasts_as_long_as_a_node_has_it() {
    let bench = bench(1000).await;
    let store = &*bench.store;
    let nodes = async || {
        let found = store.schedule(&name("report")).await.unwrap()?;
        let Origin::Config(nodes) = found.schedule.origin else {
            panic!("{found:?}")
        };
        Some(
            nodes
                .iter()
                .map(Name::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        )
    };
    let declared = async |node: &str, specs: &[ScheduleSpec]| {
        declare(&bench.shared.schedules, &name(node), specs)
            .await
            .unwrap()
    };
    let report = spec(given("report"));
    assert_eq!(
        declared("a", std::slice::from_ref(&report)).await,
        Default::default()
    );
    let first = store.schedule(&name("report")).await.unwrap().unwrap();
    // The same again changes nothing.
    declared("a", std::slice::from_ref(&report)).await;
    assert_eq!(
        store.schedule(&name("report")).await.unwrap().unwrap(),
        first
    );
    declared("b", std::slice::from_ref(&report)).await;
    assert_eq!(nodes().await.as_deref(), Some("a b"));
    // A node without it does not remove that of others.
    declared("c", &[]).await;
    assert_eq!(nodes().await.as_deref(), Some("a b"));
    declared("a", &[]).await;
    assert_eq!(nodes().await.as_deref(), Some("b"));
    // The latest node's version is in force, and the record goes on.
    let changed = ScheduleSpec {
        payload: "other".into(),
        ..report.clone()
    };
    declared("a", std::slice::from_ref(&changed)).await;
    let found = store.schedule(&name("report")).await.unwrap().unwrap();
    assert_eq!(found.schedule.spec, changed);
    assert_eq!(found.schedule.record, first.schedule.record);
    declared("a", &[]).await;
    declared("b", &[]).await;
    assert_eq!(nodes().await, None);

    // One of a client is left alone, and reported.
    let own = bench.shared.schedules.create(given("report"), false).await;
    own.unwrap();
    let undeclared = declared("a", std::slice::from_ref(&report)).await;
    assert_eq!(undeclared.taken, [name("report")]);
    declared("a", &[]).await;
    let found = store.schedule(&name("report")).await.unwrap().unwrap();
    assert_eq!(found.schedule.origin, Origin::Api);
    bench.queue.close().await;
}
