//! In which order tasks run.

use super::{ONE_SLOT, busy, has_status, start, status};
use crate::support::{backend::Backend, node::Node};
use hostel::proto::distributed::{Priority, Task};

/// Occupies the only slot of a node until `tasks` are stored, and returns their ids in the order
/// in which they began.
async fn order_of(node: &Node, tasks: Vec<Task>) -> Vec<String> {
    let mut client = node.client();
    client
        .submit_task(busy("blocker", 10_000_000))
        .await
        .unwrap();
    has_status(&client, "blocker", "running").await;
    let ids: Vec<_> = tasks.iter().map(|task| task.task_id.clone()).collect();
    for task in tasks {
        client.submit_task(task).await.unwrap();
    }
    client.cancel_task("blocker").await.unwrap();
    let mut began = Vec::new();
    for id in ids {
        let ended = client.wait_for_task(&id).await.unwrap();
        assert_eq!(ended.status, "completed", "{ended:?}");
        began.push((ended.started_at_ms, id));
    }
    began.sort();
    began.into_iter().map(|(_, id)| id).collect()
}

pub async fn high_priority_comes_first_and_low_is_not_starved(on: Backend) {
    let node = start(on, ONE_SLOT).await;
    let of = |priority: Priority, prefix: &str, count: usize| {
        let task = |n| Task {
            priority: priority.into(),
            ..busy(&format!("{prefix}{n:02}"), 2)
        };
        (0..count).map(task).collect::<Vec<_>>()
    };
    let low = of(Priority::Low, "low", 4);
    let high = of(Priority::High, "high", 40);
    let began = order_of(&node, [low, high].concat()).await;
    let places = |prefix: &str| {
        let of_prefix = |(_, id): &(usize, &String)| id.starts_with(prefix);
        let places = began.iter().enumerate().filter(of_prefix);
        places.map(|(place, _)| place).collect::<Vec<_>>()
    };
    // One of 21 leases is for low priority, until the high ones have ended.
    let low = places("low");
    assert!(low[0] <= 21, "{began:?}");
    let before_last_high = low.iter().filter(|place| **place < 41).count();
    assert!((1..=3).contains(&before_last_high), "{began:?}");
    let shown = status(&mut node.client(), "low00").await;
    assert_eq!(shown.priority(), Priority::Low);
}

pub async fn groups_take_turns(on: Backend) {
    let node = start(on, ONE_SLOT).await;
    let of = |group: &str, count: usize| {
        let task = |n| Task {
            group: group.into(),
            ..busy(&format!("{group}{n:02}"), 2)
        };
        (0..count).map(task).collect::<Vec<_>>()
    };
    let flood = of("flood", 40);
    let other = of("other", 3);
    let began = order_of(&node, [flood, other].concat()).await;
    for n in 0..3 {
        let id = format!("other{n:02}");
        let place = began.iter().position(|began| *began == id).unwrap();
        // Tasks that began within the same millisecond may have been in either order.
        assert!(place <= 2 * n + 3, "{began:?}");
    }
    let shown = status(&mut node.client(), "other00").await;
    assert_eq!(shown.group, "other");
}
