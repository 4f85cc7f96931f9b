//! Unique keys: one task for each key of a type, while it is open and for the time that it asks for.

use super::helpers::*;

/// A task with a unique key, which it has for so long at least.
fn keyed(id: &str, task_type: &str, key: &str, time: Option<Duration>) -> Submission {
    let options = TaskOptions {
        unique: Some(Unique {
            key: name(key),
            time,
        }),
        ..TaskOptions::default()
    };
    with_options(id, task_type, options)
}

fn open_key(id: &str) -> Submission {
    keyed(id, "echo", "key", None)
}

fn duplicate_of(id: &str) -> Submitted {
    Submitted::Duplicate(name(id))
}

async fn end(queue: &dyn TaskQueue, outcome: Outcome) {
    let token = lease_one(queue, "echo").await.token;
    let answer = finish_one(queue, &token, outcome).await;
    assert_eq!(answer, Finished::Applied);
}

pub(super) async fn a_key_is_held_while_its_task_is_open(queue: &dyn TaskQueue) {
    for id in ["a", "b", "c"] {
        // Each of them is created once the one before has ended.
        assert_eq!(submit_one(queue, open_key(id)).await, Submitted::Created);
        let refused = async || {
            assert_eq!(submit_one(queue, open_key("x")).await, duplicate_of(id));
            let later = keyed("y", "echo", "key", Some(HOUR));
            assert_eq!(submit_one(queue, later).await, duplicate_of(id));
            assert!(queue.get(&name("x")).await.unwrap().is_none());
        };
        refused().await;
        let token = lease_one(queue, "echo").await.token;
        refused().await;
        finish_one(queue, &token, retry(Duration::ZERO, "again")).await;
        refused().await;
        match id {
            "a" => end(queue, completed(b"r")).await,
            "b" => end(queue, failed("no")).await,
            _ => {
                let cancelled = queue.cancel(&name("c")).await.unwrap();
                assert_eq!(cancelled, Cancel::Cancelled);
            }
        }
    }
    assert_eq!(submit_one(queue, open_key("d")).await, Submitted::Created);
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts[&(name("echo"), StateKind::Pending)], 1);
}

pub(super) async fn a_key_belongs_to_one_type(queue: &dyn TaskQueue) {
    for (id, task_type, key) in [
        ("a", "echo", "key"),
        ("b", "other", "key"),
        ("c", "echo", "other"),
        ("d", "echo", "Key"),
    ] {
        let task = keyed(id, task_type, key, None);
        assert_eq!(submit_one(queue, task).await, Submitted::Created, "{id}");
    }
    // The target makes no difference.
    let elsewhere = open_key("e").to(Target::Node(name("node-2")));
    assert_eq!(submit_one(queue, elsewhere).await, duplicate_of("a"));
    create(queue, "without", "echo").await;
}

pub(super) async fn the_same_id_is_compared_as_always(queue: &dyn TaskQueue) {
    let batch = vec![
        open_key("a"),
        open_key("b"),
        open_key("a"),
        keyed("a", "echo", "other", None),
        keyed("c", "echo", "other", None),
    ];
    use Submitted::{Conflict, Created, Existing};
    let answers = queue.submit(batch).await.unwrap();
    assert_eq!(
        answers,
        [Created, duplicate_of("a"), Existing, Conflict, Created]
    );
    assert_eq!(queue.compare(&open_key("b")).await.unwrap(), None);
    let compared = queue.compare(&open_key("a")).await.unwrap();
    assert_eq!(compared, Some(Existing));
    // It has another key now, which is taken by a task.
    let conflict = keyed("a", "echo", "other", None);
    assert_eq!(submit_one(queue, conflict).await, Conflict);
}

pub(super) async fn a_key_is_held_for_its_time(queue: &dyn TaskQueue) {
    let long = |id| keyed(id, "echo", "long", Some(HOUR));
    let short = |id| keyed(id, "other", "short", Some(Duration::from_millis(100)));
    submit_one(queue, long("a")).await;
    submit_one(queue, short("b")).await;
    // While its task is open, the time may be over.
    pass(Duration::from_millis(100)).await;
    assert_eq!(submit_one(queue, short("c")).await, duplicate_of("b"));
    for (task_type, id) in [("echo", "a"), ("other", "b")] {
        let token = lease_one(queue, task_type).await.token;
        assert_eq!(token.id, name(id));
        finish_one(queue, &token, completed(b"r")).await;
    }
    assert_eq!(submit_one(queue, long("d")).await, duplicate_of("a"));
    assert_eq!(submit_one(queue, short("c")).await, Submitted::Created);
    // The time counts from the submission.
    assert_eq!(queue.cancel(&name("c")).await.unwrap(), Cancel::Cancelled);
    pass(Duration::from_millis(100)).await;
    assert_eq!(submit_one(queue, short("e")).await, Submitted::Created);
}

pub(super) async fn a_purge_ends_no_time_of_a_key(queue: &dyn TaskQueue) {
    let long = |id| keyed(id, "echo", "long", Some(HOUR));
    submit_one(queue, long("a")).await;
    end(queue, completed(b"r")).await;
    submit_one(queue, open_key("b")).await;
    end(queue, completed(b"r")).await;
    tick().await;
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 9)
            .await
            .unwrap(),
        2
    );
    assert!(queue.get(&name("a")).await.unwrap().is_none());
    assert_eq!(submit_one(queue, long("c")).await, duplicate_of("a"));
    assert_eq!(submit_one(queue, open_key("d")).await, Submitted::Created);
    // The id that has the key can be used again.
    assert_eq!(submit_one(queue, long("a")).await, Submitted::Created);
    assert_eq!(submit_one(queue, long("c")).await, duplicate_of("a"));
}

pub(super) async fn a_requeued_task_takes_its_key_if_it_is_free(queue: &dyn TaskQueue) {
    submit_one(queue, open_key("a")).await;
    queue.cancel(&name("a")).await.unwrap();
    assert_eq!(queue.requeue(&name("a")).await.unwrap(), Requeue::Requeued);
    assert_eq!(submit_one(queue, open_key("b")).await, duplicate_of("a"));
    queue.cancel(&name("a")).await.unwrap();
    assert_eq!(submit_one(queue, open_key("b")).await, Submitted::Created);
    // Both are open, and the latter has the key until it ends.
    assert_eq!(queue.requeue(&name("a")).await.unwrap(), Requeue::Requeued);
    assert_eq!(submit_one(queue, open_key("c")).await, duplicate_of("b"));
    queue.cancel(&name("a")).await.unwrap();
    assert_eq!(submit_one(queue, open_key("c")).await, duplicate_of("b"));
    queue.cancel(&name("b")).await.unwrap();
    assert_eq!(submit_one(queue, open_key("c")).await, Submitted::Created);
}

pub(super) async fn concurrent_submissions_make_one_task(queue: &dyn TaskQueue) {
    let ids: Vec<String> = (0..50).map(|n| format!("t{n}")).collect();
    let submits = ids.iter().map(|id| submit_one(queue, open_key(id)));
    let answers = futures_util::future::join_all(submits).await;
    let created: Vec<_> = ids
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| **answer == Submitted::Created)
        .map(|(id, _)| id)
        .collect();
    assert_eq!(created.len(), 1, "{answers:?}");
    let duplicates = answers
        .iter()
        .filter(|answer| **answer == duplicate_of(created[0]));
    assert_eq!(duplicates.count(), 49, "{answers:?}");
    let leased = lease_some(queue, "echo", 99).await;
    assert_eq!(super::helpers::ids(&leased), [created[0].as_str()]);
}

pub(super) async fn a_full_queue_answers_with_the_task_of_the_key(queue: &dyn TaskQueue) {
    submit_one(queue, open_key("keyed")).await;
    let many = (1..MAX_OPEN_TASKS).map(|n| task(&format!("t{n}"), "other", b""));
    create_all(queue, many).await;
    let full = submit_one(queue, task("over", "other", b"")).await;
    assert_eq!(full, Submitted::Full);
    assert_eq!(
        submit_one(queue, open_key("x")).await,
        duplicate_of("keyed")
    );
}
