//! Which node may take a task: targets, and limits over all nodes.

use super::*;

fn to(id: &str, target: Target) -> Submission {
    task(id, "echo", b"payload").to(target)
}

/// A worker of another name, with no labels.
fn elsewhere(types: &[(&str, usize)], max: usize) -> LeaseRequest {
    LeaseRequest {
        node: name("node-2"),
        labels: Vec::new(),
        ..want(types, max, HOUR)
    }
}

pub async fn a_task_waits_for_its_node_or_label(queue: &dyn TaskQueue) {
    let batch = vec![
        to("here", Target::Node(name("node-1"))),
        to("there", Target::Node(name("node-2"))),
        to("gpu", Target::Label(name("gpu"))),
        // A label is no node, whatever it is called.
        to("label", Target::Label(name("node-2"))),
        to("anywhere", Target::Any),
    ];
    queue.submit(batch).await.unwrap();
    assert_eq!(
        queue.counts().await.unwrap()[&(name("echo"), StateKind::Pending)],
        5
    );
    let task = get(queue, "gpu").await;
    assert_eq!(task.task_type, name("echo"));
    assert_eq!(task.target, Target::Label(name("gpu")));
    let there = elsewhere(&[("echo", 9)], 9);
    assert_eq!(queue.next_due(&there).await.unwrap(), Some(Duration::ZERO));
    let leased = queue.lease(&there).await.unwrap();
    assert_eq!(ids(&leased), ["there", "anywhere"]);
    assert_eq!(queue.next_due(&there).await.unwrap(), None);
    let leased = lease_some(queue, "echo", 9).await;
    assert_eq!(ids(&leased), ["here", "gpu"]);
    assert_eq!(leased[0].task_type, name("echo"));
    let filter = Filter {
        task_type: Some(name("echo")),
        ..Filter::default()
    };
    assert_eq!(list_all(queue, &filter, 2).await.len(), 5);
    // It goes back to its own lane.
    let token = &leased[1].token;
    finish_one(queue, token, retry(Duration::ZERO, "again")).await;
    tick().await;
    assert!(queue.lease(&there).await.unwrap().is_empty());
    assert_eq!(ids(&lease_some(queue, "echo", 9).await), ["gpu"]);
    assert_eq!(
        queue.cancel(&name("label")).await.unwrap(),
        Cancel::Cancelled
    );
    assert_eq!(
        queue.requeue(&name("label")).await.unwrap(),
        Requeue::Requeued
    );
    assert!(queue.lease(&there).await.unwrap().is_empty());
}

pub async fn lanes_of_one_type_share_its_maximum(queue: &dyn TaskQueue) {
    for number in 0..4 {
        create(queue, &format!("any{number}"), "echo").await;
        tick().await;
        let gpu = to(&format!("gpu{number}"), Target::Label(name("gpu")));
        submit_one(queue, gpu).await;
        tick().await;
    }
    assert_eq!(
        ids(&lease_some(queue, "echo", 3).await),
        ["any0", "gpu0", "any1"]
    );
    let most = want(&[("echo", 9)], 4, HOUR);
    let leased = queue.lease(&most).await.unwrap();
    assert_eq!(ids(&leased), ["gpu1", "any2", "gpu2", "any3"]);
}

pub async fn what_a_target_asks_for_is_part_of_the_task(queue: &dyn TaskQueue) {
    let gpu = || to("t", Target::Label(name("gpu")));
    assert_eq!(submit_one(queue, gpu()).await, Submitted::Created);
    assert_eq!(submit_one(queue, gpu()).await, Submitted::Existing);
    for other in [
        Target::Any,
        Target::Label(name("eu")),
        Target::Node(name("gpu")),
    ] {
        assert_eq!(submit_one(queue, to("t", other)).await, Submitted::Conflict);
    }
}

pub async fn a_limit_over_all_nodes_counts_who_runs(queue: &dyn TaskQueue) {
    let batch = (0..6).map(|n| match n % 2 {
        0 => task(&format!("t{n}"), "echo", b""),
        _ => task(&format!("t{n}"), "echo", b"").to(Target::Label(name("gpu"))),
    });
    queue.submit(batch.collect()).await.unwrap();
    create(queue, "other", "free").await;
    let limited = |want: LeaseRequest| limited(want, "echo", 3);
    let here = limited(want(&[("echo", 2), ("free", 9)], 9, HOUR));
    let there = limited(elsewhere(&[("echo", 9)], 9));
    let first = queue.lease(&here).await.unwrap();
    assert_eq!(ids(&first), ["t0", "t1", "other"]);
    let second = queue.lease(&there).await.unwrap();
    assert_eq!(ids(&second), ["t2"]);
    assert!(queue.lease(&here).await.unwrap().is_empty());
    // No time will let another run, but an end.
    assert_eq!(queue.next_due(&here).await.unwrap(), None);
    let unlimited = want(&[("echo", 1)], 1, HOUR);
    let due = queue.next_due(&unlimited).await.unwrap();
    assert_eq!(due, Some(Duration::ZERO));
    finish_one(queue, &first[1].token, completed(b"")).await;
    let due = queue.next_due(&here).await.unwrap();
    assert_eq!(due, Some(Duration::ZERO));
    assert_eq!(ids(&queue.lease(&here).await.unwrap()), ["t3"]);
    finish_one(queue, &first[0].token, retry(HOUR, "later")).await;
    finish_one(queue, &second[0].token, failed("no")).await;
    assert_eq!(
        queue
            .lease(&limited(want(&[("echo", 9)], 9, HOUR)))
            .await
            .unwrap()
            .len(),
        2
    );
}
