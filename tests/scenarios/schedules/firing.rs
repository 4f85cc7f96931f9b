//! What fires: each time once, and by the policies for what overlaps and what was missed.

use super::{create, every, get, now, tasks_of, wait_for};
use crate::support::{backend::Backend, eventually, node::Node, plugins::showcase};
use hostel::{
    config,
    health::Health,
    proto::{distributed::Task, hostel::v1::ScheduleSpec},
    queue::{Opened, PutSchedule, VersionedSchedule},
    task::{Name, UnixMs},
};
use std::time::Duration;

pub async fn each_time_has_one_task(on: Backend) {
    let mut node = on.start(&[&showcase("echo")], "").await;
    let schedule = create(&node, every("often", 200)).await;
    assert_eq!(schedule.next_ms.len(), 5);
    assert!(
        schedule
            .next_ms
            .windows(2)
            .all(|pair| pair[1] - pair[0] == 200)
    );
    wait_for(&node, "often", |schedule| schedule.fired >= 5).await;
    // Killed somewhere between finding it due and recording it.
    node.kill();
    node.restart().await;
    let fired = get(&node, "often").await.fired;
    wait_for(&node, "often", |schedule| schedule.fired >= fired + 5).await;
    let schedule = node.client().pause_schedule("often").await.expect("paused");
    assert!(schedule.paused && schedule.next_ms.is_empty());
    let fired = get(&node, "often").await.fired;

    let tasks = eventually("all tasks have ended", async || {
        let tasks = tasks_of(&mut node.client(), "often").await;
        let all_ended = tasks.values().all(|task| task.status == "completed");
        all_ended.then_some(tasks)
    })
    .await;
    assert_eq!(tasks.len() as u64, fired);
    let times: Vec<u64> = tasks.keys().copied().collect();
    assert!(times.iter().all(|time| time % 200 == 0), "{times:?}");
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] == 200),
        "{times:?}"
    );
    assert!(tasks.values().all(|task| task.finishes == 1));
    let result = node
        .client()
        .get_task_status(&tasks[&times[0]].task_id)
        .await;
    assert_eq!(&result.expect("a task").result[..], b"hello");
    // A paused schedule does not fire; after its pause it begins with the next time.
    let resumed = node
        .client()
        .resume_schedule("often")
        .await
        .expect("resumed");
    assert!(resumed.next_ms[0] > *times.last().expect("a time"));
    wait_for(&node, "often", |schedule| schedule.fired > fired).await;
}

/// A schedule that fires every day, twelve hours from now.
fn daily(name: &str, missed: &str) -> ScheduleSpec {
    let hour = (now() / 3_600_000 + 12) % 24;
    ScheduleSpec {
        cron: format!("0 {hour} * * *"),
        every_ms: 0,
        missed: missed.into(),
        ..every(name, 1)
    }
}

/// Opens the queue of a node that does not run.
async fn open_queue(node: &Node, on: Backend) -> Opened {
    let backend = match (&node.shared, on) {
        (Some(shared), _) => config::QueueBackend::Redis(config::RedisQueue {
            server: config::Redis::at(&shared.redis.url(), "hostel").expect("an address"),
            shards: 1,
            max_open_tasks: 1000,
            replicas: 0,
            reserve_percent: config::RedisQueue::RESERVE_PERCENT,
        }),
        (None, _) => config::QueueBackend::Sqlite(config::Sqlite {
            path: node.path("data/queue.db"),
            max_open_tasks: 1000,
            max_batch: 64,
            reserve_bytes: 0,
        }),
    };
    let queue = config::Queue {
        backend,
        keep_completed: Duration::from_secs(86_400),
        keep_failed: Duration::from_secs(86_400),
        keep_cancelled: Duration::from_secs(86_400),
        lease_ttl: Duration::from_secs(15),
        max_unwritten_bytes: 1 << 20,
    };
    hostel::queue::open_with_schedules(&queue, &Health::default())
        .await
        .expect("the queue")
}

pub async fn missed_firings_follow_the_policy(on: Backend) {
    let mut node = on.start(&[&showcase("echo")], "").await;
    for missed in ["skip", "once", "all"] {
        create(&node, daily(missed, missed)).await;
    }
    node.kill();
    // As if no node had run for ten days.
    let queue = open_queue(&node, on).await;
    let since = now() - 10 * 86_400_000;
    for missed in ["skip", "once", "all"] {
        let name = Name::parse("name", missed).expect("a name");
        let found = queue.schedules.schedule(&name).await.expect("an answer");
        let VersionedSchedule {
            mut schedule,
            version,
        } = found.expect("a schedule");
        schedule.record.handled = UnixMs(since);
        schedule.record.next = Some(UnixMs(since));
        let put = queue.schedules.put_schedule(&schedule, Some(version)).await;
        assert!(matches!(put, Ok(PutSchedule::Stored(_))), "{put:?}");
    }
    queue.tasks.close().await;
    drop(queue);
    node.restart().await;
    wait_for(&node, "all", |schedule| schedule.fired == 10).await;
    wait_for(&node, "once", |schedule| schedule.fired == 1).await;
    let all = tasks_of(&mut node.client(), "all").await;
    let times: Vec<u64> = all.keys().copied().collect();
    assert_eq!(times.len(), 10);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 86_400_000));
    let once = tasks_of(&mut node.client(), "once").await;
    assert!(once.keys().eq([times.last().expect("a time")]), "{once:?}");
    assert!(tasks_of(&mut node.client(), "skip").await.is_empty());
    let skipped = get(&node, "skip").await;
    assert_eq!(skipped.next_ms[0], times[9] + 86_400_000);
}

pub async fn overlapping_firings_follow_the_policy(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    // No node has the label, so their tasks stay open.
    for overlap in ["skip", "queue"] {
        let spec = ScheduleSpec {
            overlap: overlap.into(),
            label: "nowhere".into(),
            ..every(overlap, 300)
        };
        create(&node, spec).await;
    }
    let cancel = async |name: &str| {
        let id = get(&node, name).await.last_task_id;
        let cancelled = node.client().cancel_task(&id).await;
        assert_eq!(cancelled.expect("an answer"), "cancelled");
        id
    };
    let skip = wait_for(&node, "skip", |schedule| schedule.skipped >= 3).await;
    assert_eq!((skip.fired, skip.waiting_ms), (1, 0));
    cancel("skip").await;
    wait_for(&node, "skip", |schedule| schedule.fired == 2).await;

    let queue = wait_for(&node, "queue", |schedule| schedule.skipped >= 3).await;
    assert_eq!(queue.fired, 1);
    assert_eq!(queue.waiting_ms, queue.last_fired_ms + 300);
    let first = cancel("queue").await;
    let next = wait_for(&node, "queue", |schedule| schedule.fired == 2).await;
    assert_ne!(next.last_task_id, first);
    // The one that waited was submitted, for its own time, and another may wait by now.
    assert_eq!(next.last_fired_ms, queue.waiting_ms);
    assert!(
        tasks_of(&mut node.client(), "queue")
            .await
            .contains_key(&queue.waiting_ms)
    );
}

pub async fn a_full_queue_delays_firings(on: Backend) {
    let mut node = on.prepare(&[&showcase("echo")], "").await;
    node.set_in("queue", "max_open_tasks = 1");
    let node = node.started().await;
    let blocking = Task {
        task_id: "blocking".into(),
        task_type: "echo".into(),
        delay_ms: 3_600_000,
        ..Task::default()
    };
    node.client().submit_task(blocking).await.expect("a task");
    let spec = every("often", 1000);
    create(&node, spec).await;
    let health = eventually("health names the cause", async || {
        let health = node.client().get_health().await.ok()?;
        let text = format!("{health:?}");
        text.contains("schedules do not fire").then_some(text)
    })
    .await;
    assert!(health.contains("queue.max_open_tasks"), "{health}");
    assert_eq!(get(&node, "often").await.fired, 0);
    node.client()
        .cancel_task("blocking")
        .await
        .expect("an answer");
    wait_for(&node, "often", |schedule| schedule.fired >= 2).await;
    eventually("health has recovered", async || {
        let health = node.client().get_health().await.ok()?;
        (!format!("{health:?}").contains("schedules do not fire")).then_some(())
    })
    .await;
    // None was left out.
    let times = tasks_of(&mut node.client(), "often").await;
    let times: Vec<u64> = times.into_keys().collect();
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] == 1000),
        "{times:?}"
    );
}
