//! A wall clock that is set while tasks wait and while nobody does.

use super::*;
use crate::Requeue;
use hostel_task::State;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::SeqCst},
};

const DAY: i64 = 24 * 3_600_000;
const HOUR: Duration = Duration::from_secs(3600);

/// A wall clock that goes by the machine's, so many milliseconds off.
#[derive(Clone, Default)]
struct Offset(Arc<AtomicI64>);

impl Offset {
    fn set(&self, ms: i64) {
        self.0.store(ms, SeqCst);
    }

    fn now(&self) -> i64 {
        super::super::row::ms(crate::now()) + self.0.load(SeqCst)
    }

    async fn open(&self, dir: &TempDir) -> SqliteQueue {
        let settings = settings(dir);
        let offset = self.clone();
        let wall = Arc::new(move || offset.now());
        SqliteQueue::open_by(&settings, &Health::default(), wall)
            .await
            .unwrap()
    }
}

async fn end(queue: &SqliteQueue, leased: &Leased, outcome: Outcome) {
    let finish = Finish {
        token: leased.token.clone(),
        outcome,
        ran: None,
    };
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

/// Leases the one task there is, within ten seconds.
async fn due(queue: &SqliteQueue) -> Leased {
    let leased = until_ok(async || match lease(queue, 1).await?.pop() {
        Some(leased) => Ok(leased),
        None => Err(super::super::fault::unavailable("nothing is due")),
    });
    leased.await
}

async fn seen(queue: &SqliteQueue, id: &str) -> hostel_task::Task {
    queue.get(&name(id)).await.unwrap().expect("a task")
}

/// Waits until the queue shows times by the wall clock as it is now.
async fn noticed(queue: &SqliteQueue, offset: &Offset) {
    for _ in 0..200 {
        let shown = super::super::row::ms(queue.now());
        if (shown - offset.now()).abs() < 3000 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!(
        "the queue goes by {}, the wall says {}",
        queue.now().0,
        offset.now()
    );
}

#[tokio::test]
async fn a_clock_set_back_strands_no_task() {
    let (dir, offset) = (tempfile::tempdir().unwrap(), Offset::default());
    let queue = offset.open(&dir).await;
    queue.submit(vec![task("t", 1)]).await.unwrap();
    end(&queue, &due(&queue).await, retry(300)).await;
    offset.set(-2 * DAY);
    noticed(&queue, &offset).await;
    let second = due(&queue).await;
    assert_eq!(second.attempt, 2);

    // Neither is one that waits, is requeued, or loses its holder then.
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
    let renewed = queue.renew(&[held.token], Duration::from_millis(100)).await;
    renewed.unwrap();
    offset.set(-8 * DAY);
    let lost = until_ok(async || {
        let lost = queue.expired(Duration::ZERO, &[], 9).await?;
        match lost.len() {
            1 => Ok(()),
            _ => Err(super::super::fault::unavailable("nothing is lost")),
        }
    });
    lost.await;
    queue.close().await;
}

#[tokio::test]
async fn what_ended_by_an_early_clock_is_kept_when_the_clock_is_put_right() {
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
    // While it runs.
    offset.set(-200 * DAY);
    noticed(&queue, &offset).await;
    assert_eq!(queue.purge(HOUR, 9).await.unwrap(), 0);
    assert_eq!(seen(&queue, "t").await, early, "what has ended changed");
    // And while it is down. An hour of that counts.
    end(&queue, &leased[1], retry(0)).await;
    queue.close().await;
    offset.set(0);
    let queue = offset.open(&dir).await;
    assert_eq!(queue.purge(HOUR * 2, 9).await.unwrap(), 0);
    assert_eq!(seen(&queue, "t").await, early, "what has ended changed");
    let late = due(&queue).await;
    end(&queue, &late, completed(&late).outcome).await;
    let State::Completed { finished_at, .. } = seen(&queue, "u").await.state else {
        panic!("it has ended");
    };
    let off = i64::try_from(finished_at.0).unwrap() - offset.now();
    assert!(off.abs() < 5000, "it ended {off} ms from now by the wall");
    assert_eq!(queue.purge(Duration::ZERO, 9).await.unwrap(), 2);
    queue.close().await;
}

#[tokio::test]
async fn what_became_due_while_no_node_ran_is_due_at_once() {
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
