//! Tasks that were lost with their node: what that costs them, and how suspects are handed out.

use super::*;
use hostel::task::SUSPECT_AFTER;

fn lost() -> Outcome {
    Outcome::Lost {
        after: Duration::ZERO,
        error: "its node died".into(),
    }
}

/// A task that was lost often enough to be a suspect.
async fn create_suspect(queue: &dyn TaskQueue, id: &str, task_type: &str) {
    create(queue, id, task_type).await;
    for losses in 0..SUSPECT_AFTER {
        let leased = lease_one(queue, task_type).await;
        assert_eq!(leased.token.id, name(id));
        assert_eq!((leased.attempt, leased.suspect), (1, false));
        finish_one(queue, &leased.token, lost()).await;
        let waiting = get(queue, id).await;
        assert_eq!(waiting.state.kind(), StateKind::Pending);
        assert_eq!((waiting.attempt, waiting.losses), (0, losses + 1));
        assert_eq!(waiting.error.as_deref(), Some("its node died"));
    }
}

fn without_suspects(types: &[(&str, usize)]) -> LeaseRequest {
    LeaseRequest {
        allow_suspect: false,
        ..want(types, 9, HOUR)
    }
}

pub async fn one_suspect_is_handed_out_at_a_time(queue: &dyn TaskQueue) {
    create_suspect(queue, "s1", "a").await;
    create_suspect(queue, "s2", "b").await;
    tick().await;
    for (id, task_type) in [("1", "a"), ("2", "b")] {
        create(queue, id, task_type).await;
    }
    let types = [("a", 9), ("b", 9)];
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts[&(name("a"), StateKind::Pending)], 2);
    let leased = queue.lease(&want(&types, 9, HOUR)).await.unwrap();
    assert_eq!(ids(&leased), ["s1", "1", "2"]);
    let suspects: Vec<bool> = leased.iter().map(|task| task.suspect).collect();
    assert_eq!(suspects, [true, false, false]);
    // A node that runs one takes no other.
    let none = without_suspects(&types);
    assert!(queue.lease(&none).await.unwrap().is_empty());
    assert_eq!(queue.next_due(&none).await.unwrap(), None);
    let another = want(&types, 9, HOUR);
    let due = queue.next_due(&another).await.unwrap();
    assert_eq!(due, Some(Duration::ZERO));
    let leased = queue.lease(&another).await.unwrap();
    assert_eq!(ids(&leased), ["s2"]);
    assert!(leased[0].suspect);
}

pub async fn a_suspect_stays_one_until_it_is_requeued(queue: &dyn TaskQueue) {
    create_suspect(queue, "t", "echo").await;
    for outcome in [retry(Duration::ZERO, "no"), Outcome::Released] {
        let leased = lease_one(queue, "echo").await;
        assert!(leased.suspect);
        finish_one(queue, &leased.token, outcome).await;
    }
    let waiting = get(queue, "t").await;
    assert_eq!((waiting.attempt, waiting.losses), (1, SUSPECT_AFTER));
    let short = want(&[("echo", 1)], 1, Duration::from_millis(1));
    let leased = queue.lease(&short).await.unwrap().remove(0);
    tick().await;
    tick().await;
    let expired = queue.expired(Duration::ZERO, &[], 9).await.unwrap();
    assert_eq!((expired[0].attempt, expired[0].losses), (2, SUSPECT_AFTER));
    finish_one(queue, &leased.token, failed("attempt 2 of 2")).await;
    assert_eq!(get(queue, "t").await.losses, SUSPECT_AFTER);
    assert_eq!(queue.requeue(&name("t")).await.unwrap(), Requeue::Requeued);
    assert_eq!(get(queue, "t").await.losses, 0);
    assert!(!lease_one(queue, "echo").await.suspect);
}

pub async fn a_waiting_suspect_is_cancelled(queue: &dyn TaskQueue) {
    create_suspect(queue, "t", "echo").await;
    assert_eq!(queue.cancel(&name("t")).await.unwrap(), Cancel::Cancelled);
    let none = queue.next_due(&want(&[("echo", 1)], 1, HOUR)).await;
    assert_eq!(none.unwrap(), None);
    assert!(lease_some(queue, "echo", 9).await.is_empty());
}
