//! Limits across runs, with damaged records and with the hand-off.

use super::{completed, inject, name, open, settings, task};
use crate::{
    Finish, LeaseRequest, Leased, LimitStore, RequestedType, SqliteQueue, Submitted, TaskQueue,
};
use hostel_runtime::health::Health;
use hostel_task::{GroupLimits, Limits, Outcome, Resources, Submission, TaskOptions};
use std::{collections::HashMap, sync::Arc, time::Duration};

const HOUR: Duration = Duration::from_secs(3600);

/// A request for tasks of the type echo, with what `limit` sets.
fn request(limit: impl FnOnce(&mut RequestedType)) -> LeaseRequest {
    let mut requested = RequestedType::unlimited(usize::MAX, Resources::default());
    limit(&mut requested);
    LeaseRequest {
        types: Arc::new([(name("echo"), requested)].into()),
        ..LeaseRequest::for_type(name("node-1"), name("echo"), 9, HOUR)
    }
}

/// The same with limits of each group.
fn grouped(each: Limits) -> LeaseRequest {
    request(|requested| {
        let named = HashMap::new();
        requested.groups = Some(Arc::new(GroupLimits { each, named }));
    })
}

fn one_of_a_group() -> LeaseRequest {
    grouped(Limits {
        max_concurrency: Some(1),
        ..Limits::default()
    })
}

fn hourly() -> LeaseRequest {
    let rate = "1/h burst 2".parse().ok();
    let mut request = grouped(Limits {
        max_rate: "1/h".parse().ok(),
        ..Limits::default()
    });
    let types = Arc::make_mut(&mut request.types);
    types.get_mut("echo").unwrap().max_rate = rate;
    request
}

fn in_group(id: &str, group: &str) -> Submission {
    task(id, 1).with(TaskOptions {
        group: Some(name(group)),
        ..TaskOptions::default()
    })
}

async fn lease_all(queue: &SqliteQueue, request: &LeaseRequest) -> Vec<Leased> {
    let mut all = Vec::new();
    loop {
        let leased = queue.lease(request).await.unwrap();
        if leased.is_empty() {
            return all;
        }
        all.extend(leased);
    }
}

async fn reopen(dir: &tempfile::TempDir, queue: SqliteQueue) -> SqliteQueue {
    queue.close().await;
    drop(queue);
    SqliteQueue::open(&settings(dir), &Health::default())
        .await
        .unwrap()
}

#[tokio::test]
async fn limits_count_what_an_earlier_process_has_left() {
    let (dir, mut queue) = open().await;
    let tasks = ["1", "2", "3"].map(|id| in_group(id, "a"));
    queue.submit(tasks.into()).await.unwrap();
    let in_cluster = request(|requested| requested.max_cluster_concurrency = Some(1));
    assert_eq!(lease_all(&queue, &one_of_a_group()).await.len(), 1);
    for _ in 0..2 {
        queue = reopen(&dir, queue).await;
        // By the record it runs, although its lease has expired.
        for request in [&one_of_a_group(), &in_cluster] {
            assert!(lease_all(&queue, request).await.is_empty());
            assert_eq!(queue.next_due(request).await.unwrap(), None);
        }
    }
    let expired = queue.expired(HOUR, &[], 9).await.unwrap();
    let outcome = Outcome::Lost {
        after: HOUR,
        error: "its node died".into(),
    };
    let lost = Finish::new(expired[0].token.clone(), outcome, None);
    queue.finish(vec![lost.clone(), lost]).await.unwrap();
    let next = lease_all(&queue, &one_of_a_group()).await;
    assert_eq!(next.len(), 1);
    assert!(lease_all(&queue, &in_cluster).await.is_empty());
    queue.finish(vec![completed(&next[0])]).await.unwrap();
    assert_eq!(lease_all(&queue, &in_cluster).await.len(), 1);
    queue.close().await;
}

#[tokio::test]
async fn rates_go_on_where_they_were() {
    let (dir, mut queue) = open().await;
    let tasks = ["1", "2", "3", "4"].map(|id| in_group(id, "a"));
    let other = in_group("5", "b");
    queue.submit(tasks.into()).await.unwrap();
    assert_eq!(lease_all(&queue, &hourly()).await.len(), 1);
    for _ in 0..2 {
        queue = reopen(&dir, queue).await;
        assert!(lease_all(&queue, &hourly()).await.is_empty());
    }
    let wait = queue.next_due(&hourly()).await.unwrap();
    assert!(wait.is_some_and(|wait| wait > HOUR / 2 && wait <= HOUR));
    // Another group has its own rate, and the second permit of the type.
    queue.submit(vec![other]).await.unwrap();
    assert_eq!(lease_all(&queue, &hourly()).await.len(), 1);
    queue = reopen(&dir, queue).await;
    let of_type = request(|requested| requested.max_rate = "1/h burst 2".parse().ok());
    assert!(lease_all(&queue, &of_type).await.is_empty());
    let wait = queue.next_due(&of_type).await.unwrap();
    assert!(wait.is_some_and(|wait| wait > HOUR / 2));
    queue.close().await;
}

#[tokio::test]
async fn a_failed_transaction_spends_no_permit() {
    let (_dir, queue) = open().await;
    queue.submit(vec![in_group("1", "a")]).await.unwrap();
    inject(
        &queue,
        "CREATE TRIGGER no_lease BEFORE UPDATE ON task BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    .await
    .unwrap();
    for _ in 0..3 {
        assert!(queue.lease(&hourly()).await.is_err());
    }
    inject(&queue, "DROP TRIGGER no_lease").await.unwrap();
    assert_eq!(lease_all(&queue, &hourly()).await.len(), 1);
    queue.close().await;
}

#[tokio::test]
async fn limits_hold_for_tasks_that_are_handed_off() {
    let (_dir, queue) = open().await;
    let request = one_of_a_group();
    let submit = async {
        let tasks = vec![in_group("1", "a"), in_group("2", "a"), in_group("3", "b")];
        queue.submit(tasks).await.unwrap()
    };
    let (handed_off, submitted) = tokio::join!(queue.hand_off(&request), submit);
    assert_eq!(submitted, vec![Submitted::Created; 3]);
    let handed_off = handed_off.unwrap();
    let ids: Vec<_> = handed_off.iter().map(|it| it.token.id.as_str()).collect();
    assert_eq!(ids, ["1", "3"]);
    assert!(lease_all(&queue, &request).await.is_empty());
    queue.finish(vec![completed(&handed_off[0])]).await.unwrap();
    assert_eq!(lease_all(&queue, &request).await.len(), 1);
    queue.close().await;
}

#[tokio::test]
async fn damaged_limits_and_rates_hide_no_others() {
    let (dir, queue) = open().await;
    inject(
        &queue,
        "INSERT INTO type_limit VALUES ('echo', '{\"max_pending\":\"7\"}'),
            ('a b', '{}'), ('torn', '{');
         UPDATE type_limit_version SET version = 5;
         INSERT INTO rate VALUES ('echo', '', 'x', 1), ('a b', '', 1, 1), ('torn', '', -1, 1)",
    )
    .await
    .unwrap();
    let stored = queue.limits(0).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.damaged.len()), (5, 2));
    assert!(!stored.limits.is_empty());
    let queue = reopen(&dir, queue).await;
    queue.submit(vec![task("1", 1)]).await.unwrap();
    assert_eq!(lease_all(&queue, &hourly()).await.len(), 1);
    queue.close().await;
}
