//! The conformance suite of the store of schedules over Redis, and what only several nodes show.

use super::{
    queue::{self, ScheduleCase, name},
    queue_redis::{open, say, settings, trial, until},
};
use crate::support::servers::{Kind, Server};
use hostel::{
    config,
    queue::{AdvanceSchedule, Opened, PutSchedule, RedisQueue, ScheduleStore},
    schedule::{GivenSchedule, Origin, Record, Schedule, ScheduleSpec},
    task::{SubmissionLimits, UnixMs},
};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial(
            "schedules::a_due_schedule_is_kept_from_other_nodes",
            a_due_schedule_is_kept_from_other_nodes,
        ),
        trial(
            "schedules::a_damaged_schedule_hides_no_other",
            a_damaged_schedule_hides_no_other,
        ),
    ];
    for case in queue::schedule_cases() {
        for (name, shards) in [
            (format!("schedules::{}", case.name()), 1),
            (format!("schedules::{}_in_three_shards", case.name()), 3),
        ] {
            trials.push(trial(&name, move || on_redis(case, shards)));
        }
    }
    trials
}

async fn on_redis(case: ScheduleCase, shards: u32) {
    let server = Server::start(Kind::Redis).await;
    let settings = config::RedisQueue {
        shards,
        ..settings(&server)
    };
    let open = || async { Opened::new(RedisQueue::open(&settings).await.unwrap()) };
    case.run(open).await;
}

/// A schedule that has been due for long.
fn schedule(schedule: &str) -> Schedule {
    let limits = SubmissionLimits {
        payload_bytes: 0,
        metadata_entries: 0,
        metadata_bytes: 0,
    };
    let given = GivenSchedule {
        name: schedule.into(),
        every_ms: 1000,
        task_type: "echo".into(),
        ..GivenSchedule::default()
    };
    Schedule {
        spec: ScheduleSpec::new(given, &limits, UnixMs(0)).unwrap(),
        origin: Origin::Api,
        record: Record {
            next: Some(UnixMs(5)),
            ..Record::default()
        },
    }
}

/// Makes every call of the store once.
pub(super) async fn use_all(queue: &RedisQueue) {
    let report = schedule("report");
    let put = queue.put_schedule(&report, None).await.unwrap();
    let PutSchedule::Stored(version) = put else {
        panic!("{put:?}")
    };
    queue.put_schedule(&report, Some(version)).await.unwrap();
    assert_eq!(queue.schedules(None, 9).await.unwrap().schedules.len(), 1);
    let due = queue.due_schedules(9).await.unwrap().due;
    let advance = AdvanceSchedule {
        name: name("report"),
        expected: due[0].version,
        record: Record::default(),
    };
    assert_eq!(queue.advance_schedules(&[advance]).await.unwrap(), [true]);
    assert!(queue.schedule(&name("report")).await.unwrap().is_some());
    assert!(queue.remove_schedule(&name("report"), None).await.unwrap());
}

/// Of two nodes that look at once, one finds the schedule, and the other after a second if it is not
/// advanced.
async fn a_due_schedule_is_kept_from_other_nodes() {
    let server = Server::start(Kind::Redis).await;
    let (here, there) = (open(&server).await, open(&server).await);
    here.put_schedule(&schedule("report"), None).await.unwrap();
    let found = here.due_schedules(10).await.unwrap();
    assert_eq!(found.due.len(), 1);
    // Whenever the other looks: the second is one of the clock of Redis.
    until("the other node finds it", async || {
        let due = there.due_schedules(10).await.unwrap();
        assert!(
            due.due.is_empty() || due.now.0 >= found.now.0 + 1000,
            "{due:?}"
        );
        !due.due.is_empty()
    })
    .await;
}

/// A schedule whose record another program has damaged is named.
async fn a_damaged_schedule_hides_no_other() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    for name in ["report", "second"] {
        queue.put_schedule(&schedule(name), None).await.unwrap();
    }
    say(&server, &["HSET", "{test:0}:schedule:report", "s", "{"]).await;
    let due = queue.due_schedules(10).await.unwrap();
    assert_eq!(due.damaged, ["report"]);
    assert_eq!(due.due.len(), 1);
    assert_eq!(due.due[0].schedule.spec.name, name("second"));
    let page = queue.schedules(None, 10).await.unwrap();
    assert_eq!(page.damaged, ["report"]);
    assert_eq!(page.schedules.len(), 1);
    assert!(queue.schedule(&name("report")).await.is_err());
    assert!(queue.remove_schedule(&name("report"), None).await.unwrap());
}
