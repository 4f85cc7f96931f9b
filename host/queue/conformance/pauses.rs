//! Paused task types.

use super::helpers::*;
use futures_util::future::join_all;
use hostel_task::MAX_PAUSED_TYPES;

pub(super) async fn no_task_of_a_paused_type_is_leased(queue: &dyn TaskQueue) {
    create(queue, "runs", "paused").await;
    let running = lease_one(queue, "paused").await;
    create(queue, "before", "paused").await;
    create(queue, "other", "open").await;
    let before = queue.now();
    let paused = queue
        .pause_type(&name("paused"), Some("repairs".into()))
        .await;
    let pause = paused.unwrap().expect("a pause");
    assert!(pause.since.0.abs_diff(before.0) < 60_000, "{pause:?}");
    assert_eq!(pause.reason.as_deref(), Some("repairs"));
    assert_eq!(queue.paused_types().get("paused"), Some(&pause));
    assert_eq!(queue.paused_types().len(), 1);
    // Submissions are accepted.
    create(queue, "during", "paused").await;
    let both = request(&[("paused", 9), ("open", 9)], 9, HOUR);
    tick().await;
    let leased = queue.lease(&both).await.unwrap();
    assert_eq!(ids(&leased), ["other"]);
    assert_eq!(next_due(queue, "paused").await, None);
    let nothing_fits = LeaseRequest {
        available: Resources {
            memory_bytes: 0,
            pool_slots: 0,
        },
        ..both.clone()
    };
    assert_eq!(queue.oldest_blocked(&nothing_fits).await.unwrap(), None);
    // A task that runs goes on.
    let held = renew_one(queue, &running.token, HOUR).await;
    assert_eq!(held, Renewal::Held);
    finish_one(queue, &running.token, retry(Duration::ZERO, "again")).await;
    tick().await;
    assert_eq!(queue.lease(&both).await.unwrap().len(), 0);
    // Tasks can be cancelled meanwhile.
    assert_eq!(
        queue.cancel(&name("before")).await.unwrap(),
        Cancel::Cancelled
    );

    assert!(queue.resume_type(&name("paused")).await.unwrap());
    assert!(!queue.resume_type(&name("paused")).await.unwrap());
    assert!(queue.paused_types().is_empty());
    let leased = queue.lease(&both).await.unwrap();
    let mut leased = ids(&leased);
    leased.sort_unstable();
    assert_eq!(leased, ["during", "runs"]);
}

pub(super) async fn a_pause_may_get_another_reason(queue: &dyn TaskQueue) {
    let task_type = name("unheard-of");
    let first = queue.pause_type(&task_type, None).await.unwrap();
    let first = first.expect("a pause");
    assert_eq!(first.reason, None);
    tick().await;
    let second = queue.pause_type(&task_type, Some("why ☃".into())).await;
    let second = second.unwrap().expect("a pause");
    assert_eq!(second.since, first.since);
    assert_eq!(second.reason.as_deref(), Some("why ☃"));
    assert_eq!(queue.paused_types()[&task_type], second);
}

pub(super) async fn the_number_of_paused_types_is_bounded(queue: &dyn TaskQueue) {
    let pauses = (0..MAX_PAUSED_TYPES).map(async |number| {
        let task_type = name(&format!("type-{number}"));
        let paused = queue.pause_type(&task_type, None).await.unwrap();
        assert!(paused.is_some(), "{number}");
    });
    join_all(pauses).await;
    let one_more = queue.pause_type(&name("another"), None).await.unwrap();
    assert_eq!(one_more, None);
    // A pause that is there can still be changed.
    let again = queue.pause_type(&name("type-7"), Some("x".into())).await;
    assert!(again.unwrap().is_some());
    assert!(queue.resume_type(&name("type-8")).await.unwrap());
    let paused = queue.pause_type(&name("another"), None).await.unwrap();
    assert!(paused.is_some());
}
