//! How much of its limits a type or a group uses, for explanations.

use super::helpers::*;
use crate::usage::UsageScope;
use hostel_task::{GroupLimits, Limits, Rate};

fn scope(group: Option<&str>, rate: &str) -> UsageScope {
    UsageScope {
        task_type: name("echo"),
        group: group.map(name),
        node: name("node-1"),
        rate: rate.parse().ok(),
    }
}

pub(super) async fn what_runs_and_when_a_rate_allows_more(queue: &dyn TaskQueue) {
    let (of_type, of_group) = ("3/d burst 3", "2/d burst 2");
    let usage = async |group, rate| queue.usage(&scope(group, rate)).await.unwrap();
    let unused = usage(None, of_type).await;
    assert_eq!((unused.running, unused.wait), (0, Duration::ZERO));
    let grouped = ["a", "b"].map(|id| with_options(id, "echo", in_group("g")));
    create_all(queue, grouped).await;
    create(queue, "c", "echo").await;

    let mut request = request(&[("echo", usize::MAX)], 9, HOUR);
    let limits = Arc::make_mut(&mut request.types).get_mut(&name("echo"));
    let limits = limits.unwrap();
    let rate = |text: &str| text.parse::<Rate>().ok();
    limits.max_rate = rate(of_type);
    limits.groups = Some(Arc::new(GroupLimits {
        each: Limits {
            max_rate: rate(of_group),
            ..Limits::default()
        },
        named: Default::default(),
    }));
    let mut leased = Vec::new();
    while leased.len() < 3 {
        leased.extend(queue.lease(&request).await.unwrap());
    }
    for (group, rate, running) in [(None, of_type, 3), (Some("g"), of_group, 2)] {
        let used = usage(group, rate).await;
        assert_eq!(used.running, running, "{group:?}");
        assert!(used.on_node.is_none_or(|on_node| on_node == running));
        assert!(Duration::ZERO < used.wait && used.wait <= 24 * HOUR);
        // Without its rate nothing holds it up.
        assert_eq!(usage(group, "").await.wait, Duration::ZERO);
    }
    assert_eq!(usage(Some("g"), "").await.on_node, Some(2));
    let other = usage(Some("other"), of_group).await;
    assert_eq!((other.running, other.wait), (0, Duration::ZERO));
    for task in leased {
        finish_one(queue, &task.token, completed(b"")).await;
    }
    // Its end gives a place back, and no permit.
    let ended = usage(None, of_type).await;
    assert_eq!(ended.running, 0);
    assert!(ended.wait > Duration::ZERO);
}
