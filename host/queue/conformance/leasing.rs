//! Leases: order, limits, fencing tokens, expiry, renewal.

use super::helpers::*;

pub(super) async fn leases_come_oldest_first_over_all_types(queue: &dyn TaskQueue) {
    for (id, task_type) in [("1", "a"), ("2", "b"), ("3", "a"), ("4", "c"), ("5", "b")] {
        create(queue, id, task_type).await;
        tick().await;
    }
    let all = request(&[("c", 9), ("b", 9), ("a", 9)], 3, HOUR);
    assert_eq!(ids(&queue.lease(&all).await.unwrap()), ["1", "2", "3"]);
    assert_eq!(ids(&queue.lease(&all).await.unwrap()), ["4", "5"]);
    assert!(queue.lease(&all).await.unwrap().is_empty());
    // Tasks submitted together are due together: the order of submission counts.
    let batch = (0..20).map(|n| task(&format!("x{n}"), if n % 2 == 0 { "a" } else { "b" }, b""));
    queue.submit(batch.collect()).await.unwrap();
    let leased = queue
        .lease(&request(&[("b", 99), ("a", 99)], 99, HOUR))
        .await
        .unwrap();
    let order: Vec<String> = (0..20).map(|n| format!("x{n}")).collect();
    assert_eq!(ids(&leased), order);
}

pub(super) async fn each_type_keeps_its_own_maximum(queue: &dyn TaskQueue) {
    let batch = (0..5).flat_map(|n| {
        [
            task(&format!("a{n}"), "a", b""),
            task(&format!("b{n}"), "b", b""),
        ]
    });
    queue.submit(batch.collect()).await.unwrap();
    let leased = queue
        .lease(&request(
            &[("a", 1), ("b", 3), ("none", 5), ("c", 0)],
            10,
            HOUR,
        ))
        .await
        .unwrap();
    assert_eq!(ids(&leased), ["a0", "b0", "b1", "b2"]);
    let leased = queue.lease(&request(&[("a", 0), ("b", 9)], 1, HOUR)).await;
    assert_eq!(ids(&leased.unwrap()), ["b3"]);
    let more = request(&[("a", 3)], 10, HOUR);
    assert_eq!(ids(&queue.lease(&more).await.unwrap()), ["a1", "a2", "a3"]);
}

pub(super) async fn a_task_is_leased_to_one_holder(queue: &dyn TaskQueue) {
    let batch = (0..100).map(|n| task(&format!("t{n}"), "echo", b""));
    queue.submit(batch.collect()).await.unwrap();
    let request = request(&[("echo", 7)], 7, HOUR);
    let callers = (0..30).map(|_| queue.lease(&request));
    let mut seen: Vec<TaskId> = futures_util::future::join_all(callers)
        .await
        .into_iter()
        .flat_map(|leased| leased.unwrap())
        .map(|leased| leased.token.id)
        .collect();
    assert_eq!(seen.len(), 100);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 100);
}

pub(super) async fn a_stale_token_changes_nothing(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    let first = lease_one(queue, "echo").await.token;
    finish_one(queue, &first, retry(Duration::ZERO, "again")).await;
    assert_eq!(
        finish_one(queue, &first, completed(b"while pending")).await,
        Finished::Stale
    );
    let second = lease_one(queue, "echo").await.token;
    assert_ne!(first, second);
    for fence in [first.fence, second.fence + 1, 0, u64::MAX] {
        let id = second.id.clone();
        let stale = LeaseToken { id, fence };
        assert_eq!(
            finish_one(queue, &stale, completed(b"stale")).await,
            Finished::Stale
        );
        assert_eq!(renew_one(queue, &stale, HOUR).await, Renewal::Lost);
    }
    let unknown = LeaseToken {
        id: name("unknown"),
        fence: second.fence,
    };
    assert_eq!(
        finish_one(queue, &unknown, completed(b"")).await,
        Finished::Stale
    );
    assert_eq!(kind(queue, "t").await, StateKind::Running);
    assert_eq!(
        finish_one(queue, &second, completed(b"good")).await,
        Finished::Applied
    );
    let ended = get(queue, "t").await;
    assert_eq!(
        finish_one(queue, &second, failed("twice")).await,
        Finished::Stale
    );
    assert_eq!(get(queue, "t").await, ended);
}

pub(super) async fn a_fence_is_never_used_twice(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    let mut fences = Vec::new();
    for outcome in [
        retry(Duration::ZERO, "once"),
        Outcome::Released,
        Outcome::Released,
        failed("badly"),
    ] {
        let token = lease_one(queue, "echo").await.token;
        fences.push(token.fence);
        finish_one(queue, &token, outcome).await;
    }
    assert_eq!(queue.requeue(&name("t")).await.unwrap(), Requeue::Requeued);
    fences.push(lease_one(queue, "echo").await.token.fence);
    let mut once = fences.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), fences.len(), "{fences:?}");
}

pub(super) async fn the_holder_of_an_expired_lease_may_finish_first(queue: &dyn TaskQueue) {
    for id in ["slow", "lost"] {
        create(queue, id, "echo").await;
    }
    let short = request(&[("echo", 9)], 9, Duration::from_millis(30));
    let leased = queue.lease(&short).await.unwrap();
    assert_eq!(leased.len(), 2);
    create(queue, "kept", "echo").await;
    let kept = lease_one(queue, "echo").await;
    queue.cancel(&name("lost")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    // A task whose lease has expired is not leased again by itself.
    assert!(lease_some(queue, "echo", 9).await.is_empty());
    assert_eq!(
        queue.expired(Duration::ZERO, &[], 1).await.unwrap().len(),
        1
    );
    let others = queue
        .expired(Duration::ZERO, &[name("echo")], 9)
        .await
        .unwrap();
    assert!(others.is_empty(), "{others:?}");
    for _ in 0..2 {
        let expired = queue.expired(Duration::ZERO, &[], 9).await.unwrap();
        assert_eq!(expired.len(), 2);
        for late in &expired {
            assert!(leased.iter().any(|leased| leased.token == late.token));
            assert_eq!((&late.task_type, late.attempt), (&name("echo"), 1));
            assert_eq!(late.cancel_requested, late.token.id == name("lost"));
        }
    }
    // The holder was slow, and finishes first.
    let slow = &leased
        .iter()
        .find(|l| l.token.id == name("slow"))
        .unwrap()
        .token;
    let answer = finish_one(queue, slow, completed(b"late")).await;
    assert_eq!(answer, Finished::Applied);
    // The other holder is gone, and its attempt is ended.
    let late = queue
        .expired(Duration::ZERO, &[], 9)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(late.token.id, name("lost"));
    let finish = Finish::new(late.token.clone(), retry(Duration::ZERO, "lost"), None);
    assert_eq!(
        queue.finish(vec![finish]).await.unwrap(),
        [Finished::Applied]
    );
    assert_eq!(
        finish_one(queue, &late.token, completed(b"")).await,
        Finished::Stale
    );
    let ended = get(queue, "lost").await;
    assert_eq!(ended.state.kind(), StateKind::Cancelled);
    assert_eq!(ended.executed_by, None);
    assert!(
        queue
            .expired(Duration::ZERO, &[], 9)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        finish_one(queue, &kept.token, completed(b"")).await,
        Finished::Applied
    );
}

pub(super) async fn renewing_extends_a_lease(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    let short = request(&[("echo", 1)], 1, Duration::from_millis(30));
    let token = queue.lease(&short).await.unwrap().remove(0).token;
    assert_eq!(renew_one(queue, &token, HOUR).await, Renewal::Held);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        queue
            .expired(Duration::ZERO, &[], 9)
            .await
            .unwrap()
            .is_empty()
    );
    let running = get(queue, "t").await;
    assert!(
        matches!(running.state, State::Running { started_at, lease_until, .. }
        if lease_until >= started_at.after(HOUR))
    );
    // While the token holds the task, it can be renewed even late.
    renew_one(queue, &token, Duration::ZERO).await;
    tick().await;
    assert_eq!(
        queue.expired(Duration::ZERO, &[], 9).await.unwrap().len(),
        1
    );
    assert_eq!(renew_one(queue, &token, HOUR).await, Renewal::Held);
    assert!(
        queue
            .expired(Duration::ZERO, &[], 9)
            .await
            .unwrap()
            .is_empty()
    );
}

pub(super) async fn next_due_returns_how_long_to_wait(queue: &dyn TaskQueue) {
    let next = async |types: &[&str]| {
        let types: Vec<_> = types.iter().map(|&t| (t, 1)).collect();
        queue.next_due(&request(&types, 1, HOUR)).await.unwrap()
    };
    assert_eq!(next(&["a", "b"]).await, None);
    create(queue, "a1", "a").await;
    assert_eq!(next(&["a", "b"]).await, Some(Duration::ZERO));
    assert_eq!(next(&["b"]).await, None);
    assert_eq!(next(&[]).await, None);
    let token = lease_one(queue, "a").await.token;
    assert_eq!(next(&["a"]).await, None);
    finish_one(queue, &token, retry(HOUR, "later")).await;
    let wait = next(&["b", "a"]).await.unwrap();
    assert!(wait <= HOUR && wait > HOUR / 2, "{wait:?}");
    create(queue, "b1", "b").await;
    assert_eq!(next(&["a", "b"]).await, Some(Duration::ZERO));
    queue.cancel(&name("b1")).await.unwrap();
    queue.cancel(&name("a1")).await.unwrap();
    assert_eq!(next(&["a", "b"]).await, None);
}

pub(super) async fn excluded_types_hide_no_other_expired_lease(queue: &dyn TaskQueue) {
    for (id, task_type) in [
        ("a", "theirs"),
        ("b", "theirs"),
        ("c", "ours"),
        ("d", "ours"),
    ] {
        create(queue, id, task_type).await;
        let short = request(&[(task_type, 1)], 1, Duration::from_millis(1));
        assert_eq!(queue.lease(&short).await.unwrap().len(), 1);
        tick().await;
    }
    tick().await;
    let lost = async |max| {
        let lost = queue
            .expired(Duration::ZERO, &[name("theirs")], max)
            .await
            .unwrap();
        let mut ids: Vec<_> = lost.into_iter().map(|lost| lost.token.id).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(lost(1).await.len(), 1);
    assert_eq!(lost(2).await, ["c", "d"].map(name));
    assert_eq!(lost(9).await, ["c", "d"].map(name));
}

/// A request of a node with `room_mib` MiB; large tasks take 100 MiB, small ones 1.
fn sized(max: usize, room_mib: usize) -> LeaseRequest {
    let mut request = request(&[("large", 9), ("small", 9)], max, HOUR);
    let types = Arc::make_mut(&mut request.types);
    types.insert(name("large"), limits(9, 100));
    request.available = Resources {
        memory_bytes: room_mib << 20,
        pool_slots: 100,
    };
    request
}

pub(super) async fn tasks_that_do_not_fit_are_passed_over(queue: &dyn TaskQueue) {
    for (id, task_type) in [
        ("l1", "large"),
        ("s1", "small"),
        ("l2", "large"),
        ("s2", "small"),
    ] {
        create(queue, id, task_type).await;
        tick().await;
    }
    let blocked = async |mib| queue.oldest_blocked(&sized(9, mib)).await.unwrap();
    assert_eq!(blocked(99).await, Some(name("large")));
    assert_eq!(blocked(100).await, None);
    assert_eq!(blocked(0).await, Some(name("large")));
    let next = async |mib| queue.next_due(&sized(9, mib)).await.unwrap();
    assert_eq!(next(99).await, Some(Duration::ZERO));
    assert_eq!(next(0).await, None);
    assert!(queue.lease(&sized(9, 0)).await.unwrap().is_empty());
    // Both small tasks fit and no large one; then one large task and nothing beside it.
    let mut few_slots = sized(9, 500);
    few_slots.available.pool_slots = 0;
    assert!(queue.lease(&few_slots).await.unwrap().is_empty());
    let leased = queue.lease(&sized(9, 99)).await.unwrap();
    assert_eq!(ids(&leased), ["s1", "s2"]);
    create(queue, "s3", "small").await;
    let leased = queue.lease(&sized(9, 100)).await.unwrap();
    assert_eq!(ids(&leased), ["l1"]);
    // A request can be for one type alone.
    let only = LeaseRequest {
        only: Some(name("large")),
        ..sized(9, 500)
    };
    assert_eq!(ids(&queue.lease(&only).await.unwrap()), ["l2"]);
    assert_eq!(blocked(0).await, Some(name("small")));
    assert_eq!(ids(&queue.lease(&sized(9, 500)).await.unwrap()), ["s3"]);
    assert_eq!(blocked(0).await, None);
}

pub(super) async fn the_remaining_tasks_of_a_type_limit_a_lease(queue: &dyn TaskQueue) {
    for id in ["1", "2", "3"] {
        create(queue, id, "echo").await;
    }
    let with_left = |left| LeaseRequest {
        remaining: [(name("echo"), left)].into(),
        ..request(&[("echo", 2)], 9, HOUR)
    };
    assert!(queue.lease(&with_left(0)).await.unwrap().is_empty());
    assert_eq!(queue.next_due(&with_left(0)).await.unwrap(), None);
    assert_eq!(queue.oldest_blocked(&with_left(0)).await.unwrap(), None);
    assert_eq!(queue.lease(&with_left(1)).await.unwrap().len(), 1);
    assert_eq!(queue.lease(&with_left(9)).await.unwrap().len(), 2);
}

pub(super) async fn the_oldest_come_first_among_many_types(queue: &dyn TaskQueue) {
    // More types than a backend reads at once, most of which are not requested.
    let types: Vec<String> = (0..300).map(|n| format!("type{n}")).collect();
    let batch = types.iter().map(|t| task(&format!("of-{t}"), t, b""));
    queue.submit(batch.collect()).await.unwrap();
    tick().await;
    create(queue, "last", "type7").await;
    let ours: Vec<_> = types.iter().skip(7).step_by(100).collect();
    let ours: Vec<(&str, usize)> = ours.iter().map(|t| (t.as_str(), 9)).collect();
    assert_eq!(
        queue.next_due(&request(&ours, 1, HOUR)).await.unwrap(),
        Some(Duration::ZERO)
    );
    let leased = queue.lease(&request(&ours, 2, HOUR)).await.unwrap();
    assert_eq!(ids(&leased), ["of-type7", "of-type107"]);
    let leased = queue.lease(&request(&ours, 9, HOUR)).await.unwrap();
    assert_eq!(ids(&leased), ["of-type207", "last"]);
    assert_eq!(
        queue.next_due(&request(&ours, 1, HOUR)).await.unwrap(),
        None
    );
}
