//! Reading changes from a cursor.

use super::helpers::*;
use crate::change_log::{ChangesRead, LoggedChange};

/// Reads all changes after a cursor, `max` at a time.
async fn all_after(queue: &dyn TaskQueue, cursor: &str, max: usize) -> Vec<LoggedChange> {
    let (mut changes, mut cursor) = (Vec::new(), cursor.to_owned());
    loop {
        let read = queue.read_changes(Some(&cursor), max).await.unwrap();
        assert!(!read.resync && read.changes.len() <= max);
        if let Some(last) = read.changes.last() {
            assert_eq!(last.cursor, read.cursor);
        }
        if read.changes.is_empty() {
            return changes;
        }
        cursor = read.cursor;
        changes.extend(read.changes);
    }
}

async fn begin(queue: &dyn TaskQueue) -> String {
    let ChangesRead {
        changes,
        cursor,
        resync,
    } = queue.read_changes(None, 9).await.unwrap();
    assert!(changes.is_empty() && !resync);
    cursor
}

fn words(changes: &[LoggedChange]) -> Vec<String> {
    let words = changes.iter().map(|logged| {
        let change = &logged.change;
        if change.cancel_requested {
            return format!("{} {} to be cancelled", change.id, change.state);
        }
        let node = change.node.as_ref().map_or("-", Name::as_str);
        format!("{} {} {} {node}", change.id, change.state, change.attempt)
    });
    words.collect()
}

pub(super) async fn changes_follow_their_cursor(queue: &dyn TaskQueue) {
    create(queue, "before", "other").await;
    let start = begin(queue).await;
    let from = queue.now();
    create_all(queue, [with_options("t", "echo", in_group("g"))]).await;
    let token = lease_one(queue, "echo").await.token;
    queue.cancel(&name("t")).await.unwrap();
    finish_one(queue, &token, failed("no")).await;
    queue.requeue(&name("t")).await.unwrap();
    let token = lease_one(queue, "echo").await.token;
    finish_one(queue, &token, retry(Duration::ZERO, "again")).await;
    let token = lease_one(queue, "echo").await.token;
    finish_one(queue, &token, completed(b"")).await;
    let expected = [
        "t pending 0 -",
        "t running 1 node-1",
        "t running to be cancelled",
        "t failed 1 node-1",
        "t pending 0 -",
        "t running 1 node-1",
        "t pending 1 node-1",
        "t running 2 node-1",
        "t completed 2 node-1",
    ];
    for max in [1, 2, 100] {
        let changes = all_after(queue, &start, max).await;
        assert_eq!(words(&changes), expected, "{max} at a time");
        for LoggedChange { change, at, .. } in &changes {
            assert_eq!(change.task_type, name("echo"));
            assert_eq!(change.group, Some(name("g")), "{change:?}");
            assert!(at.after(Duration::from_secs(1)) >= from && *at <= queue.now().after(HOUR));
        }
        let asked = changes.iter().map(|logged| logged.change.cancel_requested);
        assert_eq!(asked.filter(|asked| *asked).count(), 1);
    }
    // Each change has its own cursor.
    let changes = all_after(queue, &start, 100).await;
    for (place, logged) in changes.iter().enumerate() {
        let rest = all_after(queue, &logged.cursor, 100).await;
        assert_eq!(words(&rest), expected[place + 1..]);
    }
    // Calls that change nothing leave the cursor where it is.
    let end = &changes[8].cursor;
    submit_one(queue, with_options("t", "echo", in_group("g"))).await;
    finish_one(queue, &token, completed(b"late")).await;
    assert!(all_after(queue, end, 9).await.is_empty());
}

pub(super) async fn no_change_is_missed_while_tasks_flow(queue: &dyn TaskQueue) {
    const TASKS: usize = 300;
    let start = begin(queue).await;
    let work = async {
        for part in 0..TASKS / 10 {
            let tasks = (0..10).map(|n| task(&format!("t{}", 10 * part + n), "echo", b""));
            create_all(queue, tasks).await;
            for leased in lease_some(queue, "echo", 10).await {
                finish_one(queue, &leased.token, completed(b"")).await;
            }
        }
    };
    let mut seen = Vec::new();
    let follow = async {
        let mut cursor = start;
        while seen.len() < 3 * TASKS {
            let read = queue.read_changes(Some(&cursor), 7).await.unwrap();
            assert!(!read.resync);
            if read.changes.is_empty() {
                tick().await;
            }
            cursor = read.cursor;
            seen.extend(read.changes);
        }
    };
    let both = async { tokio::join!(work, follow) };
    let ended = tokio::time::timeout(Duration::from_secs(60), both).await;
    ended.expect("every change is read");
    for n in 0..TASKS {
        let id = name(&format!("t{n}"));
        let of_task = seen.iter().filter(|logged| logged.change.id == id);
        let states: Vec<StateKind> = of_task.map(|logged| logged.change.state).collect();
        let expected = [StateKind::Pending, StateKind::Running, StateKind::Completed];
        assert_eq!(states, expected, "{id}");
    }
}

pub(super) async fn other_texts_are_no_cursors(queue: &dyn TaskQueue) {
    for text in ["", "x", "m", "-1", "p1", "m1", "☃", "r1-", "0-0"] {
        let read = queue.read_changes(Some(text), 1).await;
        assert!(matches!(read, Err(Error::BadCursor)), "{text:?}: {read:?}");
    }
}
