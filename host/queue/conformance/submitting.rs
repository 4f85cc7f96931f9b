//! Submissions: idempotency, conflicts, exact content, a bounded queue.

use super::helpers::*;

pub(super) async fn submitting_again_answers_the_same_task(queue: &dyn TaskQueue) {
    let same = || task_with("same", "echo", b"p", &[("k", "v")]);
    assert_eq!(submit_one(queue, same()).await, Submitted::Created);
    assert_eq!(submit_one(queue, same()).await, Submitted::Existing);
    let leased = lease_one(queue, "echo").await;
    assert_eq!(submit_one(queue, same()).await, Submitted::Existing);
    finish_one(queue, &leased.token, completed(b"r")).await;
    assert_eq!(submit_one(queue, same()).await, Submitted::Existing);
    assert_eq!(kind(queue, "same").await, StateKind::Completed);
    assert!(lease_some(queue, "echo", 1).await.is_empty());
}

pub(super) async fn submitting_other_content_is_a_conflict(queue: &dyn TaskQueue) {
    let first = task_with("id", "echo", b"p", &[("k", "v")]);
    assert_eq!(submit_one(queue, first).await, Submitted::Created);
    for other in [
        task_with("id", "other", b"p", &[("k", "v")]),
        task_with("id", "echo", b"q", &[("k", "v")]),
        task_with("id", "echo", b"", &[("k", "v")]),
        task_with("id", "echo", b"p", &[("k", "w")]),
        task_with("id", "echo", b"p", &[]),
    ] {
        assert_eq!(submit_one(queue, other).await, Submitted::Conflict);
    }
    assert_eq!(get(queue, "id").await.task_type, name("echo"));
}

pub(super) async fn comparing_answers_as_submitting_again_and_stores_nothing(
    queue: &dyn TaskQueue,
) {
    let compare = async |task: Submission| queue.compare(&task).await.unwrap();
    let payload = vec![7; 300_000];
    let same = || {
        let task = task_with("id", "echo", &payload, &[("k", "v")]);
        task.to(Target::Label(name("gpu")))
    };
    assert_eq!(compare(same()).await, None);
    assert_eq!(submit_one(queue, same()).await, Submitted::Created);
    let others = || {
        let mut last = payload.clone();
        *last.last_mut().unwrap() = 8;
        [
            task_with("id", "other", &payload, &[("k", "v")]).to(Target::Label(name("gpu"))),
            task_with("id", "echo", &last, &[("k", "v")]).to(Target::Label(name("gpu"))),
            task_with("id", "echo", b"", &[("k", "v")]).to(Target::Label(name("gpu"))),
            task_with("id", "echo", &payload, &[("k", "w")]).to(Target::Label(name("gpu"))),
            task_with("id", "echo", &payload, &[]).to(Target::Label(name("gpu"))),
            task_with("id", "echo", &payload, &[("k", "v")]).to(Target::Node(name("gpu"))),
            task_with("id", "echo", &payload, &[("k", "v")]),
        ]
    };
    let all = async || {
        assert_eq!(compare(same()).await, Some(Submitted::Existing));
        for other in others() {
            assert_eq!(compare(other).await, Some(Submitted::Conflict));
        }
    };
    all().await;
    let leased = lease_one(queue, "echo").await;
    all().await;
    finish_one(queue, &leased.token, completed(b"r")).await;
    all().await;
    let unknown = task("unknown", "echo", b"p");
    assert_eq!(compare(unknown.clone()).await, None);
    assert_eq!(submit_one(queue, unknown).await, Submitted::Created);
    let plain = task("unknown", "echo", b"p");
    assert_eq!(compare(plain).await, Some(Submitted::Existing));
}

pub(super) async fn one_batch_obeys_the_same_rules(queue: &dyn TaskQueue) {
    let batch = vec![
        task("a", "echo", b"1"),
        task("b", "echo", b"2"),
        task("a", "echo", b"1"),
        task("a", "echo", b"other"),
        task("b", "echo", b"2"),
    ];
    use Submitted::{Conflict, Created, Existing};
    assert_eq!(
        queue.submit(batch).await.unwrap(),
        [Created, Created, Existing, Conflict, Existing]
    );
    assert_eq!(ids(&lease_some(queue, "echo", 9).await), ["a", "b"]);
}

pub(super) async fn content_comes_back_byte_for_byte(queue: &dyn TaskQueue) {
    let payload: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let pairs = [("empty", ""), ("quote\"", "\\ \n \u{0}"), ("ünï", "☃ 😀")];
    submit_one(queue, task_with("big", "echo", &payload, &pairs)).await;
    submit_one(queue, task("empty", "echo", b"")).await;
    let leased = lease_some(queue, "echo", 2).await;
    assert_eq!(ids(&leased), ["big", "empty"]);
    assert_eq!(leased[0].payload, payload);
    assert_eq!(leased[0].metadata.len(), 3);
    for (key, value) in pairs {
        assert_eq!(leased[0].metadata[key], value);
    }
    assert!(leased[1].payload.is_empty() && leased[1].metadata.is_empty());
    let mut result = payload.clone();
    result.reverse();
    finish_one(queue, &leased[0].token, completed(&result)).await;
    finish_one(queue, &leased[1].token, completed(b"")).await;
    let big = get(queue, "big").await;
    assert_eq!(big.payload, payload);
    assert_eq!(big.metadata, leased[0].metadata);
    assert!(matches!(big.state, State::Completed { result: r, .. } if r == result));
    let empty = get(queue, "empty").await;
    assert!(matches!(empty.state, State::Completed { result, .. } if result.is_empty()));
}

pub(super) async fn a_full_queue_refuses_and_recovers(queue: &dyn TaskQueue) {
    let many = (0..MAX_OPEN_TASKS + 2).map(|n| task(&format!("t{n}"), "echo", b""));
    let answers = queue.submit(many.collect()).await.unwrap();
    let (held, refused) = answers.split_at(MAX_OPEN_TASKS);
    assert!(held.iter().all(|answer| *answer == Submitted::Created));
    assert_eq!(refused, [Submitted::Full, Submitted::Full]);
    // Stored tasks are still answered.
    assert_eq!(
        submit_one(queue, task("t0", "echo", b"")).await,
        Submitted::Existing
    );
    assert_eq!(
        submit_one(queue, task("t0", "echo", b"x")).await,
        Submitted::Conflict
    );
    // A lease makes no room, but an end does.
    let leased = lease_one(queue, "echo").await;
    let next = || task("next", "echo", b"");
    assert_eq!(submit_one(queue, next()).await, Submitted::Full);
    finish_one(queue, &leased.token, completed(b"")).await;
    assert_eq!(submit_one(queue, next()).await, Submitted::Created);
    assert_eq!(
        submit_one(queue, task("over", "echo", b"")).await,
        Submitted::Full
    );
}
