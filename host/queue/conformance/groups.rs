//! Groups take turns: a flood of one does not hold up another.

use super::helpers::*;

/// Creates `count` tasks of a group, or without one, with ids that begin with its name.
async fn create_group(queue: &dyn TaskQueue, group: &str, count: usize) {
    create_all(queue, tasks_of(group, 0..count)).await;
}

/// Tasks of a group; those of the group "none" have none.
fn tasks_of(group: &str, numbers: std::ops::Range<usize>) -> impl Iterator<Item = Submission> {
    let options = if group == "none" {
        TaskOptions::default()
    } else {
        in_group(group)
    };
    let id = move |n| format!("{group}{n}");
    numbers.map(move |n| with_options(&id(n), "echo", options.clone()))
}

/// Leases so many tasks one by one, and returns their ids.
async fn lease_singly(queue: &dyn TaskQueue, count: usize) -> Vec<String> {
    let mut leased = Vec::new();
    for _ in 0..count {
        leased.push(lease_one(queue, "echo").await.token.id.to_string());
    }
    leased
}

fn sorted<T: AsRef<str>>(ids: &[T]) -> Vec<&str> {
    let mut ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
    ids.sort_unstable();
    ids
}

pub(super) async fn groups_take_turns(queue: &dyn TaskQueue) {
    for group in ["a", "b", "none", "c"] {
        create_group(queue, group, if group == "a" { 60 } else { 10 }).await;
        tick().await;
    }
    // Each round has one task of each group, the oldest.
    for round in 0..5 {
        let expected = ["a", "b", "c", "none"].map(|group| format!("{group}{round}"));
        let leased = lease_singly(queue, 4).await;
        assert_eq!(sorted(&leased), expected);
    }
    // A batch is as fair as single leases.
    let leased = lease_some(queue, "echo", 20).await;
    for group in ["a", "b", "c", "none"] {
        let its: Vec<_> = ids(&leased)
            .into_iter()
            .filter(|id| id.starts_with(group))
            .collect();
        let expected: Vec<_> = (5..10).map(|round| format!("{group}{round}")).collect();
        assert_eq!(its, expected);
    }
    let rest = ids(&lease_some(queue, "echo", 99).await).len();
    assert_eq!(rest, 50, "the rest of the large group");
}

pub(super) async fn a_flood_of_a_group_delays_others_by_one_turn(queue: &dyn TaskQueue) {
    create_group(queue, "flood", 1000).await;
    assert_eq!(lease_some(queue, "echo", 5).await.len(), 5);
    for n in 0..5 {
        create_all(queue, tasks_of("other", n..n + 1)).await;
        let leased = lease_singly(queue, 2).await;
        assert!(leased.contains(&format!("other{n}")), "{leased:?}");
        create_all(queue, tasks_of("none", n..n + 1)).await;
        let leased = lease_some(queue, "echo", 2).await;
        let id = format!("none{n}");
        assert!(ids(&leased).contains(&&*id), "{leased:?}");
    }
}

pub(super) async fn a_group_whose_tasks_are_not_due_has_no_turn(queue: &dyn TaskQueue) {
    let delayed = |id: &str, delay| {
        let options = TaskOptions {
            start: Start::After(delay),
            ..in_group("delayed")
        };
        with_options(id, "echo", options)
    };
    create_all(queue, [delayed("late", HOUR)]).await;
    create_group(queue, "a", 10).await;
    create_group(queue, "b", 10).await;
    for n in 0..2 {
        let leased = lease_singly(queue, 2).await;
        assert_eq!(sorted(&leased), [format!("a{n}"), format!("b{n}")]);
    }
    // It has its turn once a task is due.
    let delay = Duration::from_millis(100);
    create_all(queue, [delayed("soon", delay)]).await;
    pass(delay).await;
    let leased = lease_singly(queue, 3).await;
    assert!(leased.contains(&"soon".into()), "{leased:?}");
    let leased = lease_some(queue, "echo", 99).await;
    assert!(!ids(&leased).contains(&"late"));
    let wait = next_due(queue, "echo").await.unwrap();
    assert!(wait > HOUR / 2 && wait <= HOUR, "{wait:?}");
    // A task that is due now does not wait for an earlier one of its group that is not.
    create_all(queue, [with_options("now", "echo", in_group("delayed"))]).await;
    assert_eq!(ids(&lease_some(queue, "echo", 9).await), ["now"]);
}

pub(super) async fn a_task_keeps_its_group_when_it_is_tried_again(queue: &dyn TaskQueue) {
    create_group(queue, "single", 1).await;
    create_group(queue, "flood", 100).await;
    is_leased_soon_again(queue, "single0").await;
}

pub(super) async fn a_group_without_tasks_left_is_out_of_the_round(queue: &dyn TaskQueue) {
    for group in ["a", "b", "c"] {
        create_group(queue, group, 3).await;
    }
    for n in 0..3 {
        let id = name(&format!("b{n}"));
        assert_eq!(queue.cancel(&id).await.unwrap(), Cancel::Cancelled);
    }
    for n in 0..3 {
        let leased = lease_singly(queue, 2).await;
        assert_eq!(sorted(&leased), [format!("a{n}"), format!("c{n}")]);
    }
    assert!(lease_some(queue, "echo", 9).await.is_empty());
    // It takes part again with its next task.
    create_group(queue, "d", 2).await;
    queue.requeue(&name("b1")).await.unwrap();
    let leased = lease_singly(queue, 2).await;
    assert_eq!(sorted(&leased), ["b1", "d0"]);
    assert_eq!(lease_singly(queue, 1).await, ["d1"]);
}

pub(super) async fn groups_take_turns_within_a_priority(queue: &dyn TaskQueue) {
    let task = |group: &str, priority, n: usize| {
        let options = TaskOptions {
            priority,
            ..in_group(group)
        };
        with_options(&format!("{priority}-{group}-{n}"), "echo", options)
    };
    let both = [Priority::High, Priority::Normal];
    for priority in both {
        create_all(queue, (0..100).map(|n| task("flood", priority, n))).await;
        create_all(queue, (0..3).map(|n| task("other", priority, n))).await;
    }
    let leased = lease_singly(queue, 60).await;
    for priority in both {
        let prefix = format!("{priority}-");
        let its: Vec<_> = leased.iter().filter(|id| id.starts_with(&prefix)).collect();
        for n in 0..3 {
            let other = format!("{priority}-other-{n}");
            let place = its.iter().position(|id| **id == other);
            assert_eq!(place.map(|place| place / 2), Some(n), "{its:?}");
        }
    }
}

pub(super) async fn each_route_has_its_own_turns(queue: &dyn TaskQueue) {
    let task = |route: &str, group: &str, n: usize| {
        let id = format!("{route}-{group}{n}");
        let task = with_options(&id, "echo", in_group(group));
        if route == "gpu" {
            task.to(Target::Label(name("gpu")))
        } else {
            task
        }
    };
    for route in ["any", "gpu"] {
        create_all(queue, (0..20).map(|n| task(route, "flood", n))).await;
        create_all(queue, (0..2).map(|n| task(route, "other", n))).await;
        tick().await;
    }
    let leased = lease_some(queue, "echo", 99).await;
    assert_eq!(leased.len(), 44);
    for route in ["any-", "gpu-"] {
        let mut its = ids(&leased);
        its.retain(|id| id.starts_with(route));
        for n in 0..2 {
            let other = format!("{route}other{n}");
            let place = its.iter().position(|id| *id == other);
            assert_eq!(place.map(|place| place / 2), Some(n), "{its:?}");
        }
    }
}
