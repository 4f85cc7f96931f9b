//! The conformance suite of the queue on SQLite, and tests of what only SQLite does.

use super::queue::{
    self, Case, LimitCase, MAX_OPEN_TASKS, ScheduleCase, finish_one, name, request, task,
};
use hostel::{
    config,
    health::Health,
    queue::{Error, Finished, Opened, SqliteQueue, Submitted, TaskQueue},
    task::{Acted, Action, Outcome, Priority, StateKind},
};
use libtest_mimic::{Failed, Trial};
use std::{future::Future, path::Path, sync::Arc, time::Duration};

const HOUR: Duration = Duration::from_secs(3600);

pub fn trials() -> Vec<Trial> {
    let suite = queue::cases().chain(queue::ordered_cases()).map(|case| {
        let name = format!("queue::sqlite::{}", case.name());
        Trial::test(name, move || on_sqlite(case))
    });
    let schedules = queue::schedule_cases().map(|case| {
        let name = format!("queue::sqlite::schedules::{}", case.name());
        Trial::test(name, move || schedules_on_sqlite(case))
    });
    let limits = queue::limit_cases().map(|case| {
        let name = format!("queue::sqlite::limits::{}", case.name());
        Trial::test(name, move || limits_on_sqlite(case))
    });
    let own = [
        trial("a_second_open_is_refused", a_second_open_is_refused),
        trial("reopening_keeps_everything", reopening_keeps_everything),
        trial(
            "actions_and_pauses_survive_a_restart",
            actions_and_pauses_survive_a_restart,
        ),
        trial(
            "a_closed_queue_is_unavailable",
            a_closed_queue_is_unavailable,
        ),
        trial("files_of_others_are_refused", files_of_others_are_refused),
        trial("files_are_private", files_are_private),
    ];
    suite
        .chain(schedules)
        .chain(limits)
        .chain(own)
        .chain(super::sqlite_disk::trials())
        .collect()
}

fn trial<F>(name: &str, run: fn() -> F) -> Trial
where
    F: Future<Output = ()> + 'static,
{
    Trial::test(format!("queue::sqlite::{name}"), move || {
        on_runtime(run());
        Ok(())
    })
}

pub fn on_runtime(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future);
}

fn on_sqlite(case: Case) -> Result<(), Failed> {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let open = || async { Arc::new(open(dir.path()).await.unwrap()) as Arc<dyn TaskQueue> };
        case.run(open).await;
    });
    Ok(())
}

fn schedules_on_sqlite(case: ScheduleCase) -> Result<(), Failed> {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let open = || async { Opened::new(open(dir.path()).await.unwrap()) };
        case.run(open).await;
    });
    Ok(())
}

fn limits_on_sqlite(case: LimitCase) -> Result<(), Failed> {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let open = || async { Opened::new(open(dir.path()).await.unwrap()) };
        case.run(open).await;
    });
    Ok(())
}

fn settings(dir: &Path) -> config::Sqlite {
    config::Sqlite {
        path: dir.join("made").join("queue.db"),
        max_open_tasks: MAX_OPEN_TASKS,
        max_batch: 64,
        reserve_bytes: 1 << 20,
    }
}

async fn open(dir: &Path) -> Result<SqliteQueue, Error> {
    SqliteQueue::open(&settings(dir), &Health::default()).await
}

async fn refusal(dir: &Path) -> String {
    match open(dir).await {
        Err(Error::Misconfigured(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it opened"),
    }
}

async fn a_second_open_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).await.unwrap();
    let why = refusal(dir.path()).await;
    assert!(why.contains("queue.db"), "{why}");
    assert!(why.contains("another hostel"), "{why}");
    // The first queue still works, and after it is closed the file can be opened again.
    let answers = first.submit(vec![task("t", "echo", b"")]).await;
    assert!(answers.is_ok());
    first.close().await;
    drop(first);
    open(dir.path()).await.unwrap().close().await;
}

async fn reopening_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).await.unwrap();
    let batch = (0..6).map(|n| task(&format!("t{n}"), "echo", b"payload"));
    queue.submit(batch.collect()).await.unwrap();
    let leased = queue
        .lease(&request(&[("echo", 4)], 4, HOUR))
        .await
        .unwrap();
    let outcomes = [
        Outcome::Completed {
            result: "result".into(),
        },
        Outcome::Retry {
            after: HOUR,
            error: "later".into(),
        },
    ];
    for (leased, outcome) in leased.iter().zip(outcomes) {
        finish_one(&queue, &leased.token, outcome).await;
    }
    queue.cancel(&leased[3].token.id).await.unwrap();
    let mut before = Vec::new();
    for n in 0..6 {
        before.push(queue.get(&name(&format!("t{n}"))).await.unwrap().unwrap());
    }
    let counts = queue.counts().await.unwrap();
    queue.close().await;
    drop(queue);

    let queue = open(dir.path()).await.unwrap();
    assert_eq!(queue.counts().await.unwrap(), counts);
    for task in &before {
        let after = queue.get(&task.id).await.unwrap().unwrap();
        if task.state.kind() != StateKind::Running {
            assert_eq!(&after, task);
        } else {
            assert_eq!((after.state.kind(), after.attempt), (StateKind::Running, 1));
        }
    }
    // Every lease has expired, however long it was.
    let expired = queue.expired(Duration::ZERO, &[], 9).await.unwrap();
    let tokens: Vec<_> = expired.iter().map(|late| late.token.clone()).collect();
    assert_eq!(tokens, [leased[2].token.clone(), leased[3].token.clone()]);
    assert!(!expired[0].cancel_requested && expired[1].cancel_requested);
    // Pending tasks keep their order, and new fences differ from old ones.
    let next = queue
        .lease(&request(&[("echo", 9)], 9, HOUR))
        .await
        .unwrap();
    let ids: Vec<_> = next.iter().map(|task| task.token.id.as_str()).collect();
    assert_eq!(ids, ["t4", "t5"]);
    let released = Outcome::Released;
    finish_one(&queue, &tokens[0], released).await;
    let again = queue
        .lease(&request(&[("echo", 9)], 9, HOUR))
        .await
        .unwrap();
    assert_eq!(again[0].token.id, tokens[0].id);
    assert_ne!(again[0].token.fence, tokens[0].fence);
    queue.close().await;
}

async fn actions_and_pauses_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).await.unwrap();
    let batch = ["a", "b", "c", "d"].map(|id| task(id, "echo", b"payload"));
    queue.submit(batch.into()).await.unwrap();
    let of_other = request(&[("other", 1)], 1, HOUR);
    queue
        .submit(vec![task("other", "other", b"")])
        .await
        .unwrap();
    let other = queue.lease(&of_other).await.unwrap().remove(0).token;
    let act = async |queue: &SqliteQueue, action: Action, id: &str| {
        let acted = queue.act(&action, &[name(id)]).await.unwrap();
        acted[0]
    };
    let low = Action::SetPriority(Priority::Low);
    assert_eq!(act(&queue, low, "a").await, Acted::Done);
    let high = Action::SetPriority(Priority::High);
    assert_eq!(act(&queue, high, "c").await, Acted::Done);
    let cancel = Action::Cancel(Some("because".into()));
    assert_eq!(act(&queue, cancel, "other").await, Acted::Requested);
    let echo = name("echo");
    let pause = queue.pause_type(&echo, Some("repairs".into())).await;
    let pause = pause.unwrap().expect("a pause");
    queue.close().await;
    drop(queue);

    let queue = open(dir.path()).await.unwrap();
    assert_eq!(queue.paused_types().get("echo"), Some(&pause));
    let echo = request(&[("echo", 2)], 2, HOUR);
    assert!(queue.lease(&echo).await.unwrap().is_empty());
    let finished = finish_one(&queue, &other, Outcome::Released).await;
    assert_eq!(finished, Finished::Applied);
    let cancelled = queue.get(&name("other")).await.unwrap().unwrap();
    assert_eq!(cancelled.state.kind(), StateKind::Cancelled);
    assert_eq!(cancelled.error.as_deref(), Some("because"));
    assert!(queue.resume_type(&name("echo")).await.unwrap());
    let leased = queue.lease(&echo).await.unwrap();
    let ids: Vec<_> = leased.iter().map(|task| task.token.id.as_str()).collect();
    assert!(ids.contains(&"c") && !ids.contains(&"a"), "{ids:?}");
    let again = queue.submit(vec![task("a", "echo", b"payload")]).await;
    assert_eq!(again.unwrap(), [Submitted::Existing]);
    queue.close().await;
}

async fn a_closed_queue_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).await.unwrap();
    let mut watch = queue.watch();
    queue.close().await;
    queue.close().await;
    let refused = |error: Error| {
        matches!(
            error,
            Error::Unavailable {
                outcome_unknown: false,
                ..
            }
        )
    };
    let id = name("t");
    assert!(refused(
        queue
            .submit(vec![task("t", "echo", b"")])
            .await
            .unwrap_err()
    ));
    assert!(refused(queue.get(&id).await.unwrap_err()));
    assert!(refused(queue.cancel(&id).await.unwrap_err()));
    assert!(refused(queue.counts().await.unwrap_err()));
    assert!(refused(
        queue.next_due(&request(&[], 0, HOUR)).await.unwrap_err()
    ));
    assert!(watch.next().await.is_none());
    assert!(queue.watch().next().await.is_none());
}

async fn files_of_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = settings(dir.path()).path;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(
        &path,
        "this is not a database, and never was one. ".repeat(100),
    )
    .unwrap();
    let why = refusal(dir.path()).await;
    assert!(why.contains("not a SQLite database"), "{why}");

    std::fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE recipes (name TEXT)")
        .unwrap();
    drop(other);
    let why = refusal(dir.path()).await;
    assert!(why.contains("another program"), "{why}");

    std::fs::remove_file(&path).unwrap();
    open(dir.path()).await.unwrap().close().await;
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.execute_batch("PRAGMA user_version = 7").unwrap();
    drop(newer);
    let why = refusal(dir.path()).await;
    assert!(why.contains("newer hostel (schema 7"), "{why}");
    assert!(
        why.contains("use the version that wrote it, or set [queue] path to another file"),
        "{why}"
    );
}

async fn files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).await.unwrap();
    queue.submit(vec![task("t", "echo", b"")]).await.unwrap();
    let made = dir.path().join("made");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&made), 0o700);
    for file in std::fs::read_dir(&made).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    queue.close().await;
}
