//! Tasks that a waiting request gets with their submission.

use super::{completed, inject, lease, name, open, task, until_ok};
use crate::{Changes, Finished, LeaseRequest, Leased, SqliteQueue, Submitted, TaskQueue, Watch};
use futures_util::FutureExt;
use hostel_task::StateKind;
use std::{pin::pin, time::Duration};

fn request(task_type: &str, max: usize) -> LeaseRequest {
    let ttl = Duration::from_secs(3600);
    LeaseRequest::for_type(name("node-1"), name(task_type), max, ttl)
}

async fn submit(queue: &SqliteQueue, ids: &[&str]) {
    let tasks: Vec<_> = ids.iter().map(|id| task(id, 1)).collect();
    let submitted = queue.submit(tasks).await.unwrap();
    assert_eq!(submitted, vec![Submitted::Created; ids.len()]);
}

fn ids(leased: &[Leased]) -> Vec<&str> {
    leased
        .iter()
        .map(|leased| leased.token.id.as_str())
        .collect()
}

/// Returns the changes that were published, without waiting.
fn published(watch: &mut Watch) -> Vec<(String, StateKind)> {
    let mut all = Vec::new();
    while let Some(Some(Changes::Batch(changes))) = watch.next().now_or_never() {
        all.extend(
            changes
                .iter()
                .map(|change| (change.id.to_string(), change.state)),
        );
    }
    all
}

#[tokio::test]
async fn tasks_are_leased_with_their_submission() {
    let (_dir, queue) = open().await;
    let mut watch = queue.watch();
    let request = request("echo", 2);
    let (handed_off, ()) = tokio::join!(queue.hand_off(&request), submit(&queue, &["a", "b", "c"]));
    let handed_off = handed_off.unwrap();
    assert_eq!(ids(&handed_off), ["a", "b"]);
    assert_eq!(
        published(&mut watch),
        [
            ("c".into(), StateKind::Pending),
            ("a".into(), StateKind::Running),
            ("b".into(), StateKind::Running)
        ]
    );
    let task = queue.get(&name("a")).await.unwrap().unwrap();
    assert_eq!((task.state.kind(), task.attempt), (StateKind::Running, 1));
    assert_eq!(ids(&lease(&queue, 9).await.unwrap()), ["c"]);
    let finishes = handed_off.iter().map(completed).collect();
    assert_eq!(
        queue.finish(finishes).await.unwrap(),
        [Finished::Applied; 2]
    );
}

#[tokio::test]
async fn a_request_waits_for_tasks_that_it_allows() {
    let (_dir, queue) = open().await;
    let other = request("other", 2);
    let mut waiting = pin!(queue.hand_off(&other));
    assert!(waiting.as_mut().now_or_never().is_none());
    submit(&queue, &["a"]).await;
    assert!(waiting.as_mut().now_or_never().is_none());
    // What was pending before is left to a lease, and a later request takes the place of the first.
    let echo = request("echo", 2);
    let mut later = pin!(queue.hand_off(&echo));
    assert!(later.as_mut().now_or_never().is_none());
    assert_eq!(ids(&waiting.await.unwrap()), [""; 0]);
    assert_eq!(ids(&lease(&queue, 9).await.unwrap()), ["a"]);
    submit(&queue, &["b"]).await;
    assert_eq!(ids(&later.await.unwrap()), ["b"]);
}

#[tokio::test]
async fn released_and_requeued_tasks_are_handed_off_as_well() {
    let (_dir, queue) = open().await;
    submit(&queue, &["a", "b"]).await;
    let leased = lease(&queue, 1).await.unwrap();
    queue.cancel(&name("b")).await.unwrap();
    let request = request("echo", 1);
    let release = vec![crate::Finish::released(leased[0].token.clone())];
    let (handed_off, finished) = tokio::join!(queue.hand_off(&request), queue.finish(release));
    assert_eq!(finished.unwrap(), [Finished::Applied]);
    assert_eq!(ids(&handed_off.unwrap()), ["a"]);
    let b = name("b");
    let (handed_off, requeued) = tokio::join!(queue.hand_off(&request), queue.requeue(&b));
    requeued.unwrap();
    assert_eq!(ids(&handed_off.unwrap()), ["b"]);
}

#[tokio::test]
async fn no_task_of_a_paused_type_is_handed_off() {
    let (_dir, queue) = open().await;
    let request = request("echo", 9);
    queue.pause_type(&name("echo"), None).await.unwrap();
    let mut waiting = pin!(queue.hand_off(&request));
    assert!(waiting.as_mut().now_or_never().is_none());
    submit(&queue, &["a"]).await;
    assert!(waiting.as_mut().now_or_never().is_none());
    // Those that wait are handed off when the type is resumed.
    assert!(queue.resume_type(&name("echo")).await.unwrap());
    assert_eq!(ids(&waiting.await.unwrap()), ["a"]);
}

#[tokio::test]
async fn a_dropped_request_leaves_no_lease() {
    let (_dir, queue) = open().await;
    let request = request("echo", 9);
    {
        let mut dropped = pin!(queue.hand_off(&request));
        assert!(dropped.as_mut().now_or_never().is_none());
    }
    submit(&queue, &["a"]).await;
    assert_eq!(ids(&lease(&queue, 9).await.unwrap()), ["a"]);
    {
        let mut dropped = pin!(queue.hand_off(&request));
        assert!(dropped.as_mut().now_or_never().is_none());
        // Leased with its submission, and on its way to the call when that is dropped.
        submit(&queue, &["b"]).await;
        let task = queue.get(&name("b")).await.unwrap().unwrap();
        assert_eq!(task.state.kind(), StateKind::Running);
    }
    let leased = until_ok(async || {
        let leased = lease(&queue, 9).await?;
        if leased.is_empty() {
            return super::not_yet();
        }
        Ok(leased)
    });
    let leased = leased.await;
    assert_eq!((ids(&leased), leased[0].attempt), (vec!["b"], 1));
}

#[tokio::test]
async fn a_failed_hand_off_costs_no_submission() {
    let (_dir, queue) = open().await;
    inject(
        &queue,
        "CREATE TRIGGER no_lease BEFORE UPDATE ON task BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    .await
    .unwrap();
    let request = request("echo", 9);
    let (handed_off, ()) = tokio::join!(queue.hand_off(&request), submit(&queue, &["a"]));
    assert_eq!(ids(&handed_off.unwrap()), [""; 0]);
    inject(&queue, "DROP TRIGGER no_lease").await.unwrap();
    assert_eq!(ids(&lease(&queue, 9).await.unwrap()), ["a"]);
}
