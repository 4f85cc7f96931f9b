//! What can only be caused from inside: failed commits, a full file, failing statements, cancelled
//! calls. The contract itself is tested by the conformance suite.

use super::{SqliteQueue, queries, transaction::Transaction};
use crate::{
    Changes, Error, Finish, Finished, LeaseRequest, Leased, StatusRead, Submitted, TaskQueue,
};
use bytes::Bytes;
use hostel_config as config;
use hostel_runtime::health::{Health, Part};
use hostel_sqlite::{Error as DatabaseError, StatementError, SyncLevel};
use hostel_task::{Name, Outcome, Retention, StateKind, Submission, SubmissionLimits};
use std::{collections::BTreeMap, convert::identity, time::Duration};
use tempfile::TempDir;

mod damage;
mod hand_off;
mod limits;
mod options;
mod time;

fn settings(dir: &TempDir) -> config::Sqlite {
    config::Sqlite {
        path: dir.path().join("queue.db"),
        max_open_tasks: 100_000,
        max_batch: 64,
        reserve_bytes: 1 << 20,
    }
}

async fn open() -> (TempDir, SqliteQueue) {
    let dir = tempfile::tempdir().unwrap();
    let queue = SqliteQueue::open(&settings(&dir), &Health::default())
        .await
        .unwrap();
    (dir, queue)
}

fn task(id: &str, bytes: usize) -> Submission {
    let limits = SubmissionLimits {
        payload_bytes: 1 << 24,
        metadata_entries: 0,
        metadata_bytes: 0,
    };
    Submission::new(id, "echo", vec![7; bytes].into(), BTreeMap::new(), &limits).unwrap()
}

fn name(given: &str) -> Name {
    Name::parse("name", given).unwrap()
}

async fn lease(queue: &SqliteQueue, max: usize) -> Result<Vec<Leased>, Error> {
    let ttl = Duration::from_secs(3600);
    let request = LeaseRequest::for_type(name("node-1"), name("echo"), max, ttl);
    queue.lease(&request).await
}

fn completed(leased: &Leased) -> Finish {
    Finish::new(
        leased.token.clone(),
        Outcome::Completed {
            result: Bytes::from_static(b"result"),
        },
        None,
    )
}

/// Runs SQL within the writer's transaction.
async fn inject(queue: &SqliteQueue, sql: &'static str) -> Result<(), Error> {
    let run = move |tx: &mut Transaction<'_>| Ok(tx.conn.execute_batch(sql)?);
    queue.writer.execute(SyncLevel::Full, run, identity).await
}

fn not_yet<T>() -> Result<T, Error> {
    Err(DatabaseError::unavailable("not yet").into())
}

/// Tries until the queue has recovered.
async fn until_ok<T>(mut attempt: impl AsyncFnMut() -> Result<T, Error>) -> T {
    let mut tries = 0;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) if tries > 500 => panic!("{error}"),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_failed_commit_is_an_unknown_outcome_and_heals() {
    let (_dir, queue) = open().await;
    queue.submit(vec![task("before", 1)]).await.unwrap();
    // The batch's own COMMIT fails, because its transaction has ended.
    for ended_by in ["COMMIT", "ROLLBACK"] {
        let failed = inject(&queue, ended_by).await.unwrap_err();
        let unknown = matches!(
            failed,
            Error::Unavailable {
                outcome_unknown: true,
                ..
            }
        );
        assert!(unknown, "{failed}");
        // Until something has been committed again nothing is leased, and that outcome is known.
        let refused = lease(&queue, 1).await.unwrap_err();
        let known = matches!(
            refused,
            Error::Unavailable {
                outcome_unknown: false,
                ..
            }
        );
        assert!(known, "{refused}");
        let answers = until_ok(async || queue.submit(vec![task(ended_by, 1)]).await).await;
        assert_eq!(answers, [Submitted::Created]);
    }
    let leased = lease(&queue, 9).await.unwrap();
    assert_eq!(leased.len(), 3);
    let finishes = leased.iter().map(completed).collect();
    assert_eq!(
        queue.finish(finishes).await.unwrap(),
        [Finished::Applied; 3]
    );
    queue.close().await;
}

#[tokio::test]
async fn a_faulty_statement_fails_alone() {
    let (_dir, queue) = open().await;
    let mut watch = queue.watch();
    // Sent at once, so that they share a transaction.
    let (first, faulty, corrupt, second) = tokio::join!(
        queue.submit(vec![task("first", 1), task("with", 1)]),
        inject(
            &queue,
            "INSERT INTO word VALUES (77, 'half'); INSERT INTO nowhere VALUES (1)"
        ),
        queue.writer.execute(
            SyncLevel::Full,
            |_: &mut Transaction<'_>| Err::<(), _>(StatementError::Corrupt("a test".into())),
            identity
        ),
        queue.submit(vec![task("second", 1)]),
    );
    assert_eq!(first.unwrap(), [Submitted::Created, Submitted::Created]);
    assert_eq!(second.unwrap(), [Submitted::Created]);
    let faulty = faulty.unwrap_err();
    assert!(
        matches!(
            faulty,
            Error::Unavailable {
                outcome_unknown: false,
                ..
            }
        ),
        "{faulty}"
    );
    assert!(matches!(corrupt.unwrap_err(), Error::Corrupt(_)));
    let half = queue.writer.execute(
        SyncLevel::ReadOnly,
        |tx: &mut Transaction<'_>| {
            let sql = "SELECT count(*) FROM word WHERE word = 77";
            Ok(tx.conn.query_row(sql, [], |row| row.get::<_, i64>(0))?)
        },
        identity,
    );
    assert_eq!(half.await.unwrap(), 0);
    // Each change is published once, although the batch ran twice.
    let mut published = 0;
    while published < 3 {
        match watch.next().await {
            Some(Changes::Batch(changes)) => published += changes.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(published, 3);
    assert_eq!(
        queue.counts().await.unwrap()[&(name("echo"), StateKind::Pending)],
        3
    );
    assert_eq!(lease(&queue, 9).await.unwrap().len(), 3);
    queue.close().await;
}

#[tokio::test]
async fn a_full_file_refuses_and_recovers() {
    let (_dir, queue) = open().await;
    queue
        .submit(vec![task("kept", 10), task("too", 10)])
        .await
        .unwrap();
    let leased = lease(&queue, 1).await.unwrap();
    inject(&queue, "PRAGMA max_page_count = 40").await.unwrap();
    let (big, finished) = tokio::join!(
        queue.submit(vec![task("big", 1 << 20)]),
        queue.finish(vec![completed(&leased[0])]),
    );
    let error = big.unwrap_err();
    let Error::Full { reason } = &error else {
        panic!("{error}");
    };
    assert!(
        reason.contains("full") && reason.contains("queue.reserve_bytes"),
        "{reason}"
    );
    // The operation that shared its transaction succeeds.
    assert_eq!(finished.unwrap(), [Finished::Applied]);
    let answers = until_ok(async || queue.submit(vec![task("big", 1 << 20)]).await).await;
    assert_eq!(answers, [Submitted::Created]);
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts[&(name("echo"), StateKind::Pending)], 2);
    assert_eq!(counts[&(name("echo"), StateKind::Completed)], 1);
    queue.close().await;
}

/// A status is read with two statements, between which its task may be purged.
#[tokio::test]
async fn all_statements_of_a_read_see_the_same_state() {
    let (_dir, queue) = open().await;
    queue.submit(vec![task("t", 1)]).await.unwrap();
    let leased = lease(&queue, 1).await.unwrap();
    queue.finish(vec![completed(&leased[0])]).await.unwrap();
    let (begun, wait_for_begin) = std::sync::mpsc::channel();
    let (purged, wait_for_purge) = std::sync::mpsc::channel();
    let clock = queue.clock.clone();
    let read = queue.tasks.query::<_, Error>(move |conn: &_| {
        // Too small for the result.
        let status = || queries::get_status(conn, &name("t"), 1, &clock);
        let before = status()?;
        begun.send(()).unwrap();
        wait_for_purge.recv().unwrap();
        Ok((before, status()?))
    });
    let purge = async {
        let waited = tokio::task::spawn_blocking(move || wait_for_begin.recv());
        waited.await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let count = queue
            .purge(&Retention::of(Duration::ZERO), 9)
            .await
            .unwrap();
        purged.send(()).unwrap();
        count
    };
    let (read, count) = tokio::join!(read, purge);
    assert_eq!(count, 1);
    let (before, after) = read.unwrap();
    for status in [before, after] {
        let Some(Ok(StatusRead::ResultTooLarge { bytes })) = status else {
            panic!("{status:?}");
        };
        assert_eq!(bytes, b"result".len());
    }
    assert_eq!(queue.get_status(&name("t"), 1).await.unwrap(), None);
    queue.close().await;
}

#[tokio::test]
async fn leases_of_a_cancelled_call_are_released() {
    let (_dir, queue) = open().await;
    queue.submit(vec![task("t", 1)]).await.unwrap();
    // The lease call is cancelled while the writer is busy with another operation.
    let sleep = |_: &mut Transaction<'_>| {
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    };
    tokio::select! {
        biased;
        _ = queue.writer.execute(SyncLevel::ReadOnly, sleep, identity) => panic!("a short sleep"),
        leased = lease(&queue, 1) => panic!("answered at once: {leased:?}"),
        () = std::future::ready(()) => {}
    }
    let leased = until_ok(async || match lease(&queue, 1).await?.pop() {
        Some(leased) => Ok(leased),
        None => not_yet(),
    });
    let leased = leased.await;
    assert_eq!(leased.attempt, 1);
    assert_eq!(queue.stale_finishes(), 0);
    queue.finish(vec![completed(&leased)]).await.unwrap();
    queue.finish(vec![completed(&leased)]).await.unwrap();
    assert_eq!(queue.stale_finishes(), 1);
    queue.close().await;
}

#[tokio::test]
async fn purged_space_is_returned_to_the_disk() {
    let (dir, queue) = open().await;
    for n in 0..4 {
        let batch = (0..500).map(|m| task(&format!("t{n}-{m}"), 4000));
        queue.submit(batch.collect()).await.unwrap();
        let leased = lease(&queue, 500).await.unwrap();
        queue
            .finish(leased.iter().map(completed).collect())
            .await
            .unwrap();
    }
    let before = size(&dir, "queue.db");
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 10_000)
            .await
            .unwrap(),
        2000
    );
    // While nothing else happens.
    until_small(&dir, "queue.db", before / 4).await;
    queue.close().await;
}

#[tokio::test]
async fn free_space_of_an_earlier_run_is_returned_to_the_disk() {
    let (dir, queue) = open().await;
    let batch = (0..500).map(|n| task(&format!("t{n}"), 20_000));
    queue.submit(batch.collect()).await.unwrap();
    queue.close().await;
    // More than is cut off at once.
    let conn = rusqlite::Connection::open(dir.path().join("queue.db")).unwrap();
    conn.execute_batch(
        "INSERT INTO body SELECT seq + 1000000, NULL, zeroblob(100000) FROM body LIMIT 400;
         DELETE FROM body WHERE seq > 1000000; DELETE FROM body WHERE seq % 10 = 0;",
    )
    .unwrap();
    drop(conn);
    let before = size(&dir, "queue.db");
    let queue = SqliteQueue::open(&settings(&dir), &Health::default())
        .await
        .unwrap();
    until_small(&dir, "queue.db", before / 3).await;
    queue.close().await;
}

#[tokio::test]
async fn the_log_shrinks_after_a_long_read_by_another_process() {
    let (dir, health) = (tempfile::tempdir().unwrap(), Health::default());
    let queue = SqliteQueue::open(&settings(&dir), &health).await.unwrap();
    queue.submit(vec![task("first", 1)]).await.unwrap();
    let reader = rusqlite::Connection::open(dir.path().join("queue.db")).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM task")
        .unwrap();
    for n in 0..20 {
        queue
            .submit(vec![task(&format!("t{n}"), 1 << 20)])
            .await
            .unwrap();
    }
    let grown = size(&dir, "queue.db-wal");
    assert!(grown > 16 << 20, "{grown}");
    let is_reported = || health.faults().contains_key(&(Part::Queue, "log"));
    until_ok(async || if is_reported() { Ok(()) } else { not_yet() }).await;
    drop(reader);
    until_small(&dir, "queue.db-wal", 1 << 20).await;
    until_ok(async || if is_reported() { not_yet() } else { Ok(()) }).await;
    queue.close().await;
}

#[tokio::test]
async fn a_read_that_never_ends_is_interrupted() {
    let (_dir, queue) = open().await;
    queue.submit(vec![task("t", 1)]).await.unwrap();
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)
        SELECT count(*) FROM n";
    let query = move |conn: &rusqlite::Connection| {
        Ok(conn.query_row(endless, [], |row| row.get::<_, i64>(0))?)
    };
    let failed = queue.tasks.query::<_, Error>(query).await.unwrap_err();
    assert!(
        failed.to_string().contains("took longer than 5s"),
        "{failed}"
    );
    // The next one is not affected.
    assert!(queue.get_status(&name("t"), 0).await.unwrap().is_some());
    queue.close().await;
}

fn size(dir: &TempDir, file: &str) -> u64 {
    dir.path()
        .join(file)
        .metadata()
        .map_or(0, |file| file.len())
}

async fn until_small(dir: &TempDir, file: &str, most: u64) {
    for _ in 0..600 {
        if size(dir, file) < most {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{file} has {} bytes, and not {most}", size(dir, file));
}

#[tokio::test]
async fn a_dropped_queue_ends_its_writer() {
    let (dir, queue) = open().await;
    queue.submit(vec![task("t", 1)]).await.unwrap();
    drop(queue);
    // The writer's thread holds the lock of the file until it ends.
    let settings = config::Sqlite {
        path: dir.path().join("queue.db"),
        max_open_tasks: 9,
        max_batch: 9,
        reserve_bytes: 0,
    };
    let again = until_ok(async || SqliteQueue::open(&settings, &Health::default()).await).await;
    assert!(again.get(&name("t")).await.unwrap().is_some());
    again.close().await;
}
