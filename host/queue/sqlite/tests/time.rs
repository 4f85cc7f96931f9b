//! A wall clock that is set while the queue is open and while it is closed.

use super::super::encoding::ms;
use super::*;
use crate::{Filter, Page, Requeue, TimeRange};
use hostel_task::{ErrorClass, Start, State, TaskOptions, Unique, UnixMs};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::SeqCst},
};

const DAY: i64 = 24 * 3_600_000;
const HOUR: Duration = Duration::from_secs(3600);

/// A wall clock that differs from the machine's by some milliseconds.
#[derive(Clone, Default)]
struct Offset(Arc<AtomicI64>);

impl Offset {
    fn set(&self, ms: i64) {
        self.0.store(ms, SeqCst);
    }

    fn now(&self) -> i64 {
        ms(crate::now()) + self.0.load(SeqCst)
    }

    async fn open(&self, dir: &TempDir) -> SqliteQueue {
        let settings = settings(dir);
        let offset = self.clone();
        let wall = Arc::new(move || offset.now());
        SqliteQueue::open_with_clock(&settings, &Health::default(), wall)
            .await
            .unwrap()
    }
}

async fn end(queue: &SqliteQueue, leased: &Leased, outcome: Outcome) {
    let finish = Finish::new(leased.token.clone(), outcome, None);
    assert_eq!(
        queue.finish(vec![finish]).await.unwrap(),
        [Finished::Applied]
    );
}

fn retry(ms: u64) -> Outcome {
    Outcome::Retry {
        after: Duration::from_millis(ms),
        error: "again".into(),
    }
}

/// Leases the only task, within ten seconds.
async fn due(queue: &SqliteQueue) -> Leased {
    let leased = until_ok(async || match lease(queue, 1).await?.pop() {
        Some(leased) => Ok(leased),
        None => not_yet(),
    });
    leased.await
}

async fn seen(queue: &SqliteQueue, id: &str) -> hostel_task::Task {
    queue.get(&name(id)).await.unwrap().expect("a task")
}

/// Waits until the queue returns times of the wall clock as it is now.
async fn noticed(queue: &SqliteQueue, offset: &Offset) {
    for _ in 0..200 {
        let shown = ms(queue.now());
        if (shown - offset.now()).abs() < 3000 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!(
        "the time of the queue is {}, of the wall clock {}",
        queue.now().0,
        offset.now()
    );
}

#[tokio::test]
async fn a_clock_set_back_delays_no_task() {
    let (dir, offset) = (tempfile::tempdir().unwrap(), Offset::default());
    let queue = offset.open(&dir).await;
    queue.submit(vec![task("t", 1)]).await.unwrap();
    end(&queue, &due(&queue).await, retry(300)).await;
    offset.set(-2 * DAY);
    noticed(&queue, &offset).await;
    let second = due(&queue).await;
    assert_eq!(second.attempt, 2);

    // Neither does it delay a task that is pending, is requeued, or loses its holder.
    end(&queue, &second, retry(1500)).await;
    let State::Pending { due_at } = seen(&queue, "t").await.state else {
        panic!("it waits");
    };
    let wait = i64::try_from(due_at.0).unwrap() - offset.now();
    assert!(
        (-3000..4500).contains(&wait),
        "due in {wait} ms by the wall"
    );
    queue.close().await;
    offset.set(-4 * DAY);
    let queue = offset.open(&dir).await;
    let third = due(&queue).await;
    assert_eq!(third.attempt, 3);
    let failed = Outcome::Failed { error: "no".into() };
    end(&queue, &third, failed).await;
    queue.close().await;
    offset.set(-6 * DAY);
    let queue = offset.open(&dir).await;
    assert_eq!(queue.requeue(&name("t")).await.unwrap(), Requeue::Requeued);
    let held = due(&queue).await;
    let renewals = [held.token.into()];
    let renewed = queue.renew(&renewals, Duration::from_millis(100));
    renewed.await.unwrap();
    offset.set(-8 * DAY);
    let lost = until_ok(async || {
        let lost = queue.expired(Duration::ZERO, &[], 9).await?;
        match lost.len() {
            1 => Ok(()),
            _ => not_yet(),
        }
    });
    lost.await;
    queue.close().await;
}

#[tokio::test]
async fn tasks_that_ended_by_a_slow_clock_are_kept_when_it_is_corrected() {
    let (dir, offset) = (tempfile::tempdir().unwrap(), Offset::default());
    offset.set(-400 * DAY);
    let queue = offset.open(&dir).await;
    queue
        .submit(vec![task("t", 1), task("u", 1)])
        .await
        .unwrap();
    let leased = lease(&queue, 2).await.unwrap();
    end(&queue, &leased[0], completed(&leased[0]).outcome).await;
    let early = seen(&queue, "t").await;
    // The clock is corrected while the queue is open.
    offset.set(-200 * DAY);
    noticed(&queue, &offset).await;
    assert_eq!(queue.purge(&Retention::of(HOUR), 9).await.unwrap(), 0);
    assert_eq!(seen(&queue, "t").await, early, "what has ended changed");
    // And while it is closed, of which an hour counts.
    end(&queue, &leased[1], retry(0)).await;
    queue.close().await;
    offset.set(0);
    let queue = offset.open(&dir).await;
    assert_eq!(queue.purge(&Retention::of(HOUR * 2), 9).await.unwrap(), 0);
    assert_eq!(seen(&queue, "t").await, early, "what has ended changed");
    let late = due(&queue).await;
    end(&queue, &late, completed(&late).outcome).await;
    let State::Completed { finished_at, .. } = seen(&queue, "u").await.state else {
        panic!("it has ended");
    };
    let off = i64::try_from(finished_at.0).unwrap() - offset.now();
    assert!(off.abs() < 5000, "it ended {off} ms from now by the wall");
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 9)
            .await
            .unwrap(),
        2
    );
    queue.close().await;
}

#[tokio::test]
async fn tasks_that_became_due_while_no_node_ran_are_due_at_once() {
    let (dir, offset) = (tempfile::tempdir().unwrap(), Offset::default());
    let queue = offset.open(&dir).await;
    queue.submit(vec![task("t", 1)]).await.unwrap();
    end(&queue, &due(&queue).await, retry(2 * DAY.unsigned_abs())).await;
    queue.close().await;
    offset.set(3 * DAY);
    let queue = offset.open(&dir).await;
    assert_eq!(due(&queue).await.attempt, 2);
    queue.close().await;
}

#[tokio::test]
async fn times_of_options_follow_the_wall_clock_over_a_pause() {
    let (dir, offset) = (tempfile::tempdir().unwrap(), Offset::default());
    offset.set(-30 * DAY);
    let queue = offset.open(&dir).await;
    let at = |days: i64| UnixMs(u64::try_from(offset.now() + days * DAY).unwrap());
    let day = Duration::from_secs(24 * 3600);
    let timed = TaskOptions {
        start: Start::At(at(1)),
        ..TaskOptions::default()
    };
    let late = TaskOptions {
        start_by: Some(at(2)),
        start: Start::At(at(1)),
        ..TaskOptions::default()
    };
    let keyed = |time| TaskOptions {
        unique: Some(Unique {
            key: name("key"),
            time: Some(time),
        }),
        ..TaskOptions::default()
    };
    let batch = vec![
        task("timed", 1).with(timed),
        task("late", 1).with(late),
        task("keyed", 1).with(keyed(day)),
    ];
    queue.submit(batch).await.unwrap();
    let held = due(&queue).await;
    assert_eq!(held.token.id, name("keyed"));
    end(&queue, &held, completed(&held).outcome).await;
    let State::Pending { due_at } = seen(&queue, "timed").await.state else {
        panic!("it waits");
    };
    let wait = i64::try_from(due_at.0).unwrap() - offset.now();
    assert!((wait - DAY).abs() < 60_000, "due in {wait} ms");
    let refused = || vec![task("other", 1).with(keyed(day))];
    let answers = queue.submit(refused()).await.unwrap();
    assert_eq!(answers, [Submitted::Duplicate(name("keyed"))]);
    queue.close().await;
    // Of these days an hour counts for ages, and all for what was asked for by the clock.
    offset.set(-27 * DAY);
    let queue = offset.open(&dir).await;
    assert_eq!(queue.expire(9).await.unwrap(), 1);
    let expired = seen(&queue, "late").await;
    assert_eq!(expired.error_class, Some(ErrorClass::Expired));
    assert_eq!(due(&queue).await.token.id, name("timed"));
    let answers = queue.submit(refused()).await.unwrap();
    assert_eq!(answers, [Submitted::Created]);
    queue.close().await;
}

#[tokio::test]
async fn a_search_by_time_finds_tasks_though_the_clock_was_set_back() {
    let (dir, offset) = (tempfile::tempdir().unwrap(), Offset::default());
    let queue = offset.open(&dir).await;
    queue.submit(vec![task("before", 1)]).await.unwrap();
    offset.set(-2 * DAY);
    noticed(&queue, &offset).await;
    queue.submit(vec![task("after", 1)]).await.unwrap();
    let time = seen(&queue, "before").await.submitted_at;
    assert!(seen(&queue, "after").await.submitted_at < time);
    let found = async |from, until| {
        let filter = Filter {
            submitted: TimeRange { from, until },
            ..Filter::default()
        };
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = Page { size: 1, after };
            let listing = queue.list(&filter, &page).await.unwrap();
            ids.extend(listing.tasks.iter().map(|task| task.id.to_string()));
            after = listing.next;
            if after.is_none() {
                return ids.join(" ");
            }
        }
    };
    assert_eq!(found(Some(time), None).await, "before");
    assert_eq!(found(None, Some(time)).await, "after");
    assert_eq!(found(None, None).await, "after before");
    queue.close().await;
}
