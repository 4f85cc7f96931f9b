//! Damaged records: each fails its own task and no other.

use super::*;
use crate::{Filter, Page, Renew, Requeue};
use hostel_task::{ErrorClass, Progress, State, Task};

/// SQL that damages a task's record, by the task's id.
const DAMAGES: [(&str, &str); 9] = [
    (
        "metadata",
        "UPDATE body SET metadata = '{\"half' WHERE seq = ?",
    ),
    ("no-body", "DELETE FROM body WHERE seq = ?"),
    ("payload", "UPDATE body SET payload = 4711 WHERE seq = ?"),
    ("state", "UPDATE task SET state = 9 WHERE seq = ?"),
    (
        "state-text",
        "UPDATE task SET state = 'asleep' WHERE seq = ?",
    ),
    ("type", "UPDATE task SET type = 999 WHERE seq = ?"),
    ("attempt", "UPDATE task SET attempt = 'many' WHERE seq = ?"),
    ("due", "UPDATE task SET at = 'soon' WHERE seq = ?"),
    (
        "submitted",
        "UPDATE task SET submitted_at = x'00' WHERE seq = ?",
    ),
];

async fn seen(queue: &SqliteQueue, id: &str) -> Task {
    queue.get(&name(id)).await.unwrap().expect("a task")
}

/// Runs SQL on the file of a queue that is closed.
fn damage(dir: &TempDir, damages: &[(&str, &str)]) {
    let conn = rusqlite::Connection::open(dir.path().join("queue.db")).unwrap();
    for (id, sql) in damages {
        let sql = sql.replace('?', &format!("(SELECT seq FROM task WHERE id = '{id}')"));
        assert_eq!(conn.execute(&sql, []).unwrap(), 1, "{sql}");
    }
}

fn is_corrupt(task: &Task) -> bool {
    task.error_class == Some(ErrorClass::Corrupt) && task.state.kind() == StateKind::Failed
}

#[tokio::test]
async fn a_damaged_record_fails_its_own_task_only() {
    let (dir, queue) = open().await;
    queue.submit(vec![task("first", 1)]).await.unwrap();
    let all = DAMAGES.iter().map(|(id, _)| task(id, 1));
    queue.submit(all.collect()).await.unwrap();
    queue.submit(vec![task("last", 1)]).await.unwrap();
    queue.close().await;
    damage(&dir, &DAMAGES);

    let queue = SqliteQueue::open(&settings(&dir), &Health::default())
        .await
        .unwrap();
    let leased = lease(&queue, 99).await.unwrap();
    let ids: Vec<_> = leased
        .iter()
        .map(|leased| leased.token.id.as_str())
        .collect();
    // A task runs although its time of submission is damaged.
    assert_eq!(ids, ["first", "submitted", "last"]);
    let finishes = leased.iter().map(completed).collect();
    let finished = queue.finish(finishes).await.unwrap();
    assert_eq!(finished, [Finished::Applied; 3]);

    let page = Page {
        size: 100,
        after: None,
    };
    let listing = queue.list(&Filter::default(), &page).await.unwrap();
    assert_eq!(listing.tasks.len(), DAMAGES.len() + 2);
    for (id, _) in DAMAGES {
        let task = seen(&queue, id).await;
        assert!(is_corrupt(&task), "{task:?}");
        let error = task.error.unwrap_or_default();
        assert!(error.contains("record is damaged"), "{error}");
    }
    assert!(matches!(
        seen(&queue, "first").await.state,
        State::Completed { .. }
    ));
    let counts = queue.counts().await.unwrap();
    let sum = |state| -> u64 {
        let of_state = counts.iter().filter(|((_, kind), _)| *kind == state);
        of_state.map(|(_, count)| count).sum()
    };
    assert_eq!(sum(StateKind::Failed), DAMAGES.len() as u64);
    assert_eq!((sum(StateKind::Completed), sum(StateKind::Pending)), (2, 0));

    // The table keeps what the row held. A task whose record was repaired can be requeued.
    let held = "SELECT held FROM damaged JOIN task USING (seq) WHERE id = 'state-text'";
    let conn = rusqlite::Connection::open(dir.path().join("queue.db")).unwrap();
    let held: String = conn.query_row(held, [], |row| row.get(0)).unwrap();
    assert!(held.contains("state = 'asleep'"), "{held}");
    for id in ["due", "metadata"] {
        assert_eq!(queue.requeue(&name(id)).await.unwrap(), Requeue::Requeued);
    }
    let leased = lease(&queue, 9).await.unwrap();
    assert_eq!(leased.len(), 1);
    assert_eq!(leased[0].token.id.as_str(), "due");
    assert!(is_corrupt(&seen(&queue, "metadata").await));
    queue.finish(vec![completed(&leased[0])]).await.unwrap();
    assert_eq!(seen(&queue, "due").await.error_class, None);

    tokio::time::sleep(Duration::from_millis(5)).await;
    let forgotten = queue
        .purge(&Retention::of(Duration::ZERO), 99)
        .await
        .unwrap();
    assert_eq!(forgotten, DAMAGES.len() + 2);
    assert!(queue.counts().await.unwrap().is_empty());
    queue.close().await;
}

#[tokio::test]
async fn a_record_that_is_damaged_while_the_queue_is_open_fails_alone() {
    let (dir, queue) = open().await;
    let ended = ["result", "ended-state", "fine"];
    queue
        .submit(ended.map(|id| task(id, 1)).to_vec())
        .await
        .unwrap();
    let leased = lease(&queue, 9).await.unwrap();
    queue
        .finish(leased.iter().map(completed).collect())
        .await
        .unwrap();
    queue.submit(vec![task("waits", 1)]).await.unwrap();
    queue.close().await;
    let queue = SqliteQueue::open(&settings(&dir), &Health::default())
        .await
        .unwrap();
    damage(
        &dir,
        &[
            ("result", "UPDATE result SET result = 7.5 WHERE seq = ?"),
            ("ended-state", "UPDATE task SET state = 77 WHERE seq = ?"),
            ("waits", "UPDATE task SET fence = 'broken' WHERE seq = ?"),
        ],
    );
    assert!(lease(&queue, 9).await.unwrap().is_empty());
    let refused = queue.cancel(&name("ended-state")).await.unwrap();
    assert_eq!(refused, crate::Cancel::Ended(StateKind::Failed));
    for id in ["result", "ended-state", "waits"] {
        assert!(is_corrupt(&seen(&queue, id).await), "{id}");
    }
    assert!(matches!(
        seen(&queue, "fine").await.state,
        State::Completed { .. }
    ));
    queue.submit(vec![task("new", 1)]).await.unwrap();
    assert_eq!(lease(&queue, 9).await.unwrap().len(), 1);
    queue.close().await;
}

/// Nothing depends on progress, so it fails no task.
#[tokio::test]
async fn damaged_progress_is_left_out() {
    let (dir, queue) = open().await;
    for (id, sql) in [
        ("number", "UPDATE task SET progress = 7 WHERE seq = ?"),
        (
            "no-json",
            "UPDATE task SET progress = '{\"done' WHERE seq = ?",
        ),
        (
            "negative",
            "UPDATE task SET progress = '{\"done\":-1,\"total\":1,\"note\":\"\"}' WHERE seq = ?",
        ),
        ("blob", "UPDATE task SET progress = x'00ff' WHERE seq = ?"),
    ] {
        queue.submit(vec![task(id, 1)]).await.unwrap();
        let leased = lease(&queue, 1).await.unwrap().remove(0);
        let renew = Renew {
            token: leased.token.clone(),
            progress: Some(Progress::new(1, 2, "half")),
        };
        queue
            .renew(&[renew], Duration::from_secs(60))
            .await
            .unwrap();
        assert!(seen(&queue, id).await.progress.is_some(), "{id}");
        damage(&dir, &[(id, sql)]);
        let running = seen(&queue, id).await;
        assert_eq!(running.progress, None, "{id}");
        assert_eq!(running.state.kind(), StateKind::Running, "{id}");
        let finished = queue.finish(vec![completed(&leased)]).await.unwrap();
        assert_eq!(finished, [Finished::Applied], "{id}");
    }
    queue.close().await;
}
