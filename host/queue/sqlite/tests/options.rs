//! Options in the file: what a reopened queue knows of them, what plain tasks cost, and damage.

use super::*;
use crate::{Cancel, Filter, Page, Requeue};
use hostel_task::{ErrorClass, Priority, Start, TaskOptions, Unique, UnixMs};

const HOUR: Duration = Duration::from_secs(3600);

fn with(id: &str, options: TaskOptions) -> Submission {
    task(id, 1).with(options)
}

async fn reopen(dir: &TempDir, queue: SqliteQueue) -> SqliteQueue {
    queue.close().await;
    drop(queue);
    SqliteQueue::open(&settings(dir), &Health::default())
        .await
        .unwrap()
}

/// Returns one number of the file.
fn number(dir: &TempDir, sql: &str) -> i64 {
    let conn = rusqlite::Connection::open(dir.path().join("queue.db")).unwrap();
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

async fn leased_ids(queue: &SqliteQueue, max: usize) -> Vec<String> {
    let leased = lease(queue, max).await.unwrap();
    let ids = leased.iter().map(|leased| leased.token.id.to_string());
    ids.collect()
}

fn grouped(group: &str) -> TaskOptions {
    TaskOptions {
        group: Some(name(group)),
        ..TaskOptions::default()
    }
}

fn start_by(time: UnixMs) -> TaskOptions {
    TaskOptions {
        start_by: Some(time),
        ..TaskOptions::default()
    }
}

fn keyed(time: Option<Duration>) -> TaskOptions {
    TaskOptions {
        unique: Some(Unique {
            key: name("key"),
            time,
        }),
        ..TaskOptions::default()
    }
}

#[tokio::test]
async fn a_reopened_queue_knows_priorities_groups_and_delays() {
    let (dir, queue) = open().await;
    for n in 0..9 {
        let flood = with(&format!("flood{n}"), grouped("flood"));
        queue.submit(vec![flood]).await.unwrap();
    }
    let high = TaskOptions {
        priority: Priority::High,
        ..TaskOptions::default()
    };
    let delayed = TaskOptions {
        start: Start::After(HOUR),
        ..grouped("other")
    };
    let batch = vec![
        with("delayed", delayed.clone()),
        with("other", grouped("other")),
        with("high", high),
    ];
    queue.submit(batch).await.unwrap();
    // Both its task that runs and the one that waits keep their options.
    let first = lease(&queue, 1).await.unwrap().remove(0);
    assert_eq!(first.token.id, name("high"));
    let queue = reopen(&dir, queue).await;
    let lost = queue.expired(Duration::ZERO, &[], 9).await.unwrap();
    assert_eq!(lost[0].options, first.options);
    let ids = leased_ids(&queue, 2).await;
    assert!(ids.contains(&"other".to_owned()), "{ids:?}");
    let waiting = queue.get(&name("delayed")).await.unwrap().unwrap();
    assert_eq!(waiting.options.as_deref(), Some(&delayed));
    assert_eq!(leased_ids(&queue, 99).await.len(), 8);
    queue.close().await;
}

#[tokio::test]
async fn a_reopened_queue_knows_which_tasks_have_to_begin() {
    let (dir, queue) = open().await;
    let soon = start_by(queue.now().after(Duration::from_millis(1500)));
    let batch = ["begun", "requeued", "late"].map(|id| with(id, soon.clone()));
    queue.submit(batch.into()).await.unwrap();
    let begun = lease(&queue, 1).await.unwrap().remove(0);
    assert_eq!(begun.token.id, name("begun"));
    queue
        .finish(vec![Finish::released(begun.token)])
        .await
        .unwrap();
    let requeued = name("requeued");
    assert_eq!(queue.cancel(&requeued).await.unwrap(), Cancel::Cancelled);
    assert_eq!(queue.requeue(&requeued).await.unwrap(), Requeue::Requeued);
    tokio::time::sleep(Duration::from_millis(1600)).await;
    let queue = reopen(&dir, queue).await;
    assert_eq!(queue.expire(9).await.unwrap(), 1);
    let late = queue.get(&name("late")).await.unwrap().unwrap();
    assert_eq!(late.error_class, Some(ErrorClass::Expired));
    assert_eq!(leased_ids(&queue, 9).await, ["begun", "requeued"]);
    queue.close().await;
}

#[tokio::test]
async fn a_reopened_queue_knows_unique_keys_and_times_of_results() {
    let (dir, queue) = open().await;
    let kept = TaskOptions {
        result_ttl: Some(HOUR),
        ..keyed(Some(HOUR))
    };
    queue.submit(vec![with("kept", kept)]).await.unwrap();
    let leased = lease(&queue, 1).await.unwrap().remove(0);
    queue.finish(vec![completed(&leased)]).await.unwrap();
    let queue = reopen(&dir, queue).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 9)
            .await
            .unwrap(),
        0
    );
    let answers = queue.submit(vec![with("other", keyed(None))]).await;
    assert_eq!(answers.unwrap(), [Submitted::Duplicate(name("kept"))]);
    queue.close().await;
}

#[tokio::test]
async fn keys_whose_time_is_over_are_deleted() {
    let (dir, queue) = open().await;
    let short = Some(Duration::from_millis(500));
    queue.submit(vec![with("a", keyed(short))]).await.unwrap();
    queue.cancel(&name("a")).await.unwrap();
    assert_eq!(number(&dir, "SELECT count(*) FROM unique_key"), 1);
    tokio::time::sleep(Duration::from_millis(600)).await;
    queue.purge(&Retention::of(HOUR), 9).await.unwrap();
    assert_eq!(number(&dir, "SELECT count(*) FROM unique_key"), 0);
    queue.submit(vec![with("b", keyed(None))]).await.unwrap();
    queue.cancel(&name("b")).await.unwrap();
    assert_eq!(number(&dir, "SELECT count(*) FROM unique_key"), 0);
    queue.close().await;
}

#[tokio::test]
async fn a_purge_leaves_nothing_of_the_options() {
    let (dir, queue) = open().await;
    let all = TaskOptions {
        tags: [name("a"), name("b")].into(),
        result_ttl: Some(Duration::from_millis(1)),
        ..grouped("g")
    };
    queue
        .submit(vec![with("t", all), task("plain", 1)])
        .await
        .unwrap();
    // A plain task has a row in none of these tables.
    let rows = "SELECT (SELECT count(*) FROM task_options) + (SELECT count(*) FROM label)";
    assert_eq!(number(&dir, rows), 4);
    queue.cancel(&name("t")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(queue.purge(&Retention::of(HOUR), 9).await.unwrap(), 1);
    assert_eq!(number(&dir, rows), 0);
    queue.close().await;
}

#[tokio::test]
async fn damaged_options_fail_their_own_task_only() {
    let (dir, queue) = open().await;
    let ids = ["waits", "leases", "cancels", "requeues", "ended", "late"];
    let options = |id: &str| match id {
        "late" => start_by(UnixMs(1)),
        _ => keyed(None),
    };
    let batch = ids.iter().map(|id| {
        let task = with(id, options(id));
        // Each has a key of its own.
        let mut options = (**task.options().unwrap()).clone();
        if let Some(unique) = &mut options.unique {
            unique.key = name(id);
        }
        task.with(options)
    });
    queue.submit(batch.collect()).await.unwrap();
    for id in ["requeues", "ended"] {
        queue.cancel(&name(id)).await.unwrap();
    }
    let damage = "UPDATE task_options SET options = '{\"priority\":7}'";
    let queue = reopen(&dir, queue).await;
    number_changed(&dir, damage);
    // While the queue is open, each is found by what is done with it.
    assert_eq!(queue.expire(9).await.unwrap(), 1);
    assert!(leased_ids(&queue, 1).await.is_empty());
    let cancelled = queue.cancel(&name("cancels")).await.unwrap();
    assert_eq!(cancelled, Cancel::Ended(StateKind::Failed));
    let requeued = queue.requeue(&name("requeues")).await.unwrap();
    assert_eq!(requeued, Requeue::Refused(StateKind::Failed));
    // And the rest when it is opened or read.
    let queue = reopen(&dir, queue).await;
    for id in ids {
        let found = queue.get(&name(id)).await.unwrap().unwrap();
        assert_eq!(found.error_class, Some(ErrorClass::Corrupt), "{id}");
        assert_eq!(found.options, None);
    }
    queue.submit(vec![task("fine", 1)]).await.unwrap();
    assert_eq!(leased_ids(&queue, 9).await, ["fine"]);
    // The key of a task that failed in this way is free.
    let mut again = keyed(None);
    again.unique.as_mut().unwrap().key = name("waits");
    let answers = queue.submit(vec![with("new", again)]).await.unwrap();
    assert_eq!(answers, [Submitted::Created]);
    queue.close().await;
}

fn number_changed(dir: &TempDir, sql: &str) {
    let conn = rusqlite::Connection::open(dir.path().join("queue.db")).unwrap();
    assert!(conn.execute(sql, []).unwrap() > 0);
}

#[tokio::test]
async fn a_page_of_a_group_is_bounded_by_what_it_looks_at() {
    let (_dir, queue) = open().await;
    for part in 0..21 {
        let batch = (0..500).map(|n| with(&format!("t{part}-{n}"), grouped("g")));
        queue.submit(batch.collect()).await.unwrap();
    }
    queue.cancel(&name("t0-0")).await.unwrap();
    let filter = Filter {
        state: Some(StateKind::Cancelled),
        group: Some(name("g")),
        ..Filter::default()
    };
    let mut page = Page {
        size: 10,
        after: None,
    };
    let first = queue.list(&filter, &page).await.unwrap();
    assert!(first.tasks.is_empty());
    page.after = first.next;
    assert!(page.after.is_some(), "there are more to look at");
    let found = loop {
        let next = queue.list(&filter, &page).await.unwrap();
        if !next.tasks.is_empty() {
            break next;
        }
        page.after = next.next;
        assert!(page.after.is_some(), "the task is found");
    };
    assert_eq!(found.tasks[0].id, name("t0-0"));
    assert_eq!((found.tasks.len(), found.next), (1, None));
    queue.close().await;
}
