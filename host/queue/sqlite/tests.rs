//! What only the inside can bring about: failed commits, a full file, faulty statements, callers
//! who go away. The contract itself is tested in `tests/conformance`.

use super::{SqliteQueue, operation::Safety, writer::Message};
use crate::{Changes, Error, Finish, Finished, Leased, Submitted, TaskQueue, Want};
use bytes::Bytes;
use hostel_runtime::health::{Health, Part};
use hostel_sqlite::Fault;
use hostel_task::{Name, Outcome, StateKind, Submission, SubmissionLimits};
use std::{collections::BTreeMap, convert::identity, time::Duration};
use tempfile::TempDir;

mod damage;
mod time;

fn settings(dir: &TempDir) -> hostel_config::Sqlite {
    hostel_config::Sqlite {
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
    let want = Want::of_type(name("node-1"), name("echo"), max, ttl);
    queue.lease(&want).await
}

fn completed(leased: &Leased) -> Finish {
    Finish {
        token: leased.token.clone(),
        outcome: Outcome::Completed {
            result: Bytes::from_static(b"result"),
        },
        ran: None,
    }
}

/// Has SQL run within the writer's transaction.
async fn inject(queue: &SqliteQueue, sql: &'static str) -> Result<(), Error> {
    let run = move |book: &mut super::book::Book<'_>| {
        book.conn.execute_batch(sql)?;
        Ok(())
    };
    queue.writer.ask(Safety::Power, run, identity).await
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
    // The batch's own COMMIT will find that somebody has ended its transaction.
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
        // Until something has been committed again nothing is handed out, and that is known.
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
        queue.writer.ask(
            Safety::Power,
            |_| Err::<(), _>(Fault::Corrupt("a test".into())),
            identity
        ),
        queue.submit(vec![task("second", 1)]),
    );
    assert_eq!(first.unwrap(), [Submitted::Created; 2]);
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
    let half = queue.writer.ask(
        Safety::Looks,
        |book| {
            let sql = "SELECT count(*) FROM word WHERE word = 77";
            Ok(book.conn.query_row(sql, [], |row| row.get::<_, i64>(0))?)
        },
        identity,
    );
    assert_eq!(half.await.unwrap(), 0);
    // Each is told once, although the batch ran twice.
    let mut told = 0;
    while told < 3 {
        match watch.next().await {
            Some(Changes::Seen(changes)) => told += changes.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, 3);
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
    // What shared its transaction is none the worse.
    assert_eq!(finished.unwrap(), [Finished::Applied]);
    let answers = until_ok(async || queue.submit(vec![task("big", 1 << 20)]).await).await;
    assert_eq!(answers, [Submitted::Created]);
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts[&(name("echo"), StateKind::Pending)], 2);
    assert_eq!(counts[&(name("echo"), StateKind::Completed)], 1);
    queue.close().await;
}

#[tokio::test]
async fn leases_of_a_caller_who_went_away_go_back() {
    let (_dir, queue) = open().await;
    queue.submit(vec![task("t", 1)]).await.unwrap();
    // Asked and gone before the answer, for which the writer has no time yet.
    let nap = |_: &mut super::book::Book<'_>| {
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    };
    tokio::select! {
        biased;
        _ = queue.writer.ask(Safety::Looks, nap, identity) => panic!("a short nap"),
        leased = lease(&queue, 1) => panic!("answered at once: {leased:?}"),
        () = std::future::ready(()) => {}
    }
    let leased = until_ok(async || match lease(&queue, 1).await?.pop() {
        Some(leased) => Ok(leased),
        None => Err(super::fault::unavailable("not yet")),
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
async fn purged_space_goes_back() {
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
    assert_eq!(queue.purge(Duration::ZERO, 10_000).await.unwrap(), 2000);
    // By itself, while nothing else happens.
    until_small(&dir, "queue.db", before / 4).await;
    queue.close().await;
}

#[tokio::test]
async fn free_space_that_an_earlier_run_left_goes_back() {
    let (dir, queue) = open().await;
    let batch = (0..500).map(|n| task(&format!("t{n}"), 20_000));
    queue.submit(batch.collect()).await.unwrap();
    queue.close().await;
    // Above what is cut off in one go.
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
async fn the_log_shrinks_once_a_long_reader_has_gone() {
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
    until_ok(async || match is_reported() {
        true => Ok(()),
        false => Err(super::fault::unavailable("nobody says so")),
    })
    .await;
    drop(reader);
    until_small(&dir, "queue.db-wal", 1 << 20).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!is_reported());
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
    let sender = queue.writer.sender();
    drop(queue);
    assert!(
        sender
            .upgrade()
            .is_none_or(|sender: tokio::sync::mpsc::Sender<Message>| sender.is_closed())
    );
    let settings = hostel_config::Sqlite {
        path: dir.path().join("queue.db"),
        max_open_tasks: 9,
        max_batch: 9,
        reserve_bytes: 0,
    };
    let again = until_ok(async || SqliteQueue::open(&settings, &Health::default()).await).await;
    assert!(again.get(&name("t")).await.unwrap().is_some());
    again.close().await;
}
