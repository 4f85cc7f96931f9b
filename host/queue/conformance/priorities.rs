//! Priorities: each has its share of the leases, and none waits for ever.

use super::helpers::*;
use hostel_task::SHARES;

/// Creates `count` tasks of one priority, with ids that begin with its name.
async fn create_many(queue: &dyn TaskQueue, priority: Priority, task_type: &str, count: usize) {
    let task = |n| with_options(&format!("{priority}{n}"), task_type, of_priority(priority));
    create_all(queue, (0..count).map(task)).await;
}

/// Leases tasks in batches of several sizes.
async fn lease_in_batches(
    queue: &dyn TaskQueue,
    types: &[(&str, usize)],
    count: usize,
) -> Vec<Leased> {
    let mut leased = Vec::new();
    for size in [1, 7, 2, 30].into_iter().cycle() {
        let size = size.min(count - leased.len());
        if size == 0 {
            break;
        }
        let batch = queue.lease(&request(types, size, HOUR)).await.unwrap();
        assert_eq!(batch.len(), size);
        leased.extend(batch);
    }
    leased
}

/// The ids of one priority, in the order of their leases.
fn of(leased: &[Leased], priority: Priority) -> Vec<&str> {
    let mut ids = ids(leased);
    ids.retain(|id| id.starts_with(priority.as_str()));
    ids
}

pub(super) async fn each_priority_has_its_share_of_the_leases(queue: &dyn TaskQueue) {
    const CYCLES: usize = 5;
    // The lowest are the oldest, and their types differ.
    for (priority, task_type) in [
        (Priority::Low, "a"),
        (Priority::Normal, "b"),
        (Priority::High, "a"),
    ] {
        create_many(queue, priority, task_type, 100).await;
        tick().await;
    }
    let cycle: u64 = SHARES.iter().sum();
    let types = [("a", 99), ("b", 99)];
    let leased = lease_in_batches(queue, &types, CYCLES * cycle as usize).await;
    for (priority, share) in Priority::ALL.into_iter().zip(SHARES) {
        let its = of(&leased, priority);
        assert_eq!(its.len(), CYCLES * share as usize, "{priority}: {its:?}");
        // Within a priority the oldest come first.
        for (n, id) in its.iter().enumerate() {
            assert_eq!(*id, format!("{priority}{n}"));
        }
    }
}

pub(super) async fn turns_of_an_absent_priority_go_to_the_highest(queue: &dyn TaskQueue) {
    create_many(queue, Priority::Low, "echo", 60).await;
    create_many(queue, Priority::Normal, "echo", 60).await;
    let leased = lease_in_batches(queue, &[("echo", 99)], 42).await;
    assert_eq!(of(&leased, Priority::Low).len(), 2);
    assert_eq!(of(&leased, Priority::Normal).len(), 40);
    let leased = lease_in_batches(queue, &[("echo", 99)], 78).await;
    assert_eq!(of(&leased, Priority::Low).len(), 58);
}

pub(super) async fn a_priority_that_cannot_be_leased_gives_way(queue: &dyn TaskQueue) {
    create_many(queue, Priority::High, "high", 30).await;
    create_many(queue, Priority::Normal, "normal", 30).await;
    create_many(queue, Priority::Low, "low", 30).await;
    // The type has reached its limit, another node has the tasks, they do not fit, or they are not due.
    let types = [("high", 0), ("normal", 99), ("low", 99)];
    let leased = lease_in_batches(queue, &types, 21).await;
    assert_eq!(of(&leased, Priority::High).len(), 0);
    assert_eq!(of(&leased, Priority::Low).len(), 1);
    let mut full = request(&[("high", 99), ("low", 99)], 9, HOUR);
    let requested = Arc::make_mut(&mut full.types);
    requested.insert(name("high"), limits(99, 1 << 20));
    full.available.memory_bytes = 1 << 30;
    let leased = queue.lease(&full).await.unwrap();
    assert_eq!(leased.len(), 9);
    assert!(leased.iter().all(|task| task.task_type == name("low")));
}

pub(super) async fn a_task_keeps_its_priority_when_it_is_tried_again(queue: &dyn TaskQueue) {
    create_many(queue, Priority::High, "echo", 1).await;
    create_many(queue, Priority::Normal, "echo", 200).await;
    // Two leases in a row are not both the turn of another priority.
    is_leased_soon_again(queue, "high0").await;
}
