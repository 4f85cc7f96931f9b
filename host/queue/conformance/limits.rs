//! Limits of types and of their groups: how many tasks run, how often they begin, how many are pending.

use super::helpers::*;
use futures_util::future::join_all;
use hostel_task::{GroupLimits, Limits, PendingLimits, Rate};
use std::collections::BTreeMap;

const NO_LIMITS: Limits = Limits {
    max_concurrency: None,
    max_cluster_concurrency: None,
    max_rate: None,
    max_pending: None,
};

/// A request of a node for `max` tasks of the type `echo`, with limits of each group.
fn grouped(node: &str, each: Limits, max: usize) -> LeaseRequest {
    let mut request = request(&[("echo", usize::MAX)], max, HOUR);
    request.node = name(node);
    let limits = Arc::make_mut(&mut request.types)
        .get_mut(&name("echo"))
        .unwrap();
    limits.groups = (each != NO_LIMITS).then(|| {
        let named = Default::default();
        Arc::new(GroupLimits { each, named })
    });
    request
}

/// A request for `max` tasks of the type `echo`, which may begin at this rate.
fn rated(rate: Rate, max: usize) -> LeaseRequest {
    let mut request = request(&[("echo", usize::MAX)], max, HOUR);
    let limits = Arc::make_mut(&mut request.types)
        .get_mut(&name("echo"))
        .unwrap();
    limits.max_rate = Some(rate);
    request
}

fn at_most(max_cluster_concurrency: usize) -> Limits {
    Limits {
        max_cluster_concurrency: Some(max_cluster_concurrency),
        ..NO_LIMITS
    }
}

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

/// Creates tasks with these ids and groups; "" is none.
async fn create_in_groups(queue: &dyn TaskQueue, tasks: &[(String, String)]) {
    let tasks = tasks.iter().map(|(id, group)| {
        let options = match group.as_str() {
            "" => TaskOptions::default(),
            group => in_group(group),
        };
        with_options(id, "echo", options)
    });
    create_all(queue, tasks).await;
}

fn owned(tasks: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(id, group): &(&str, &str)| (id.to_owned(), group.to_owned());
    tasks.iter().map(owned).collect()
}

/// The groups of tasks in their order, with `-` for none.
fn in_groups(leased: &[Leased]) -> String {
    let group = |task: &Leased| task.group().map_or("-".to_owned(), Name::to_string);
    let mut groups: Vec<_> = leased.iter().map(group).collect();
    groups.sort_unstable();
    groups.join(" ")
}

/// Leases with this request until it is given nothing more.
async fn lease_all(queue: &dyn TaskQueue, request: &LeaseRequest) -> Vec<Leased> {
    let mut all = Vec::new();
    loop {
        let leased = queue.lease(request).await.unwrap();
        if leased.is_empty() {
            return all;
        }
        all.extend(leased);
    }
}

/// Whether the queue says that nothing can be leased now.
async fn waits(queue: &dyn TaskQueue, request: &LeaseRequest) -> bool {
    queue.next_due(request).await.unwrap() != Some(Duration::ZERO)
}

/// How many tasks run, by their groups.
async fn running_in_groups(queue: &dyn TaskQueue) -> BTreeMap<Option<Name>, usize> {
    let running = Filter {
        state: Some(StateKind::Running),
        ..Filter::default()
    };
    let mut groups = BTreeMap::new();
    for task in list_all(queue, &running, 500).await {
        let group = task.options.and_then(|options| options.group.clone());
        *groups.entry(group).or_default() += 1;
    }
    groups
}

pub(super) async fn a_cluster_wide_limit_is_exact(queue: &dyn TaskQueue) {
    create_all(queue, (0..40).map(|n| task(&format!("t{n}"), "echo", b""))).await;
    let of_node = |n: usize| {
        let mut request = limited(request(&[("echo", 9)], 9, HOUR), "echo", 3);
        request.node = name(&format!("node-{n}"));
        request
    };
    // Many nodes at once get no more than one node alone.
    let requests: Vec<_> = (0..8).map(of_node).collect();
    let leases = requests.iter().map(|request| lease_all(queue, request));
    let mut running: Vec<Leased> = join_all(leases).await.into_iter().flatten().collect();
    running.extend(lease_all(queue, &of_node(9)).await);
    assert_eq!(running.len(), 3);
    // Each way to end an attempt frees one place, and a second end of the same frees none.
    let ends: [fn() -> Outcome; 6] = [
        || completed(b""),
        || failed("no"),
        || retry(HOUR, "later"),
        || Outcome::Lost {
            after: HOUR,
            error: "its node died".into(),
        },
        || Outcome::Cancelled,
        || Outcome::Released,
    ];
    for (n, outcome) in ends.iter().enumerate() {
        let token = running.remove(0).token;
        for _ in 0..2 {
            finish_one(queue, &token, outcome()).await;
        }
        let next = lease_all(queue, &of_node(n)).await;
        assert_eq!(next.len(), 1, "{:?}", outcome());
        running.extend(next);
    }
    // No place is lost in the end.
    let mut left = 40;
    while !running.is_empty() {
        assert!(running.len() <= 3);
        left -= running.len();
        for leased in running.drain(..) {
            finish_one(queue, &leased.token, completed(b"")).await;
        }
        running = lease_all(queue, &of_node(left)).await;
    }
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts.get(&(name("echo"), StateKind::Running)), None);
    // Two wait for an hour.
    assert_eq!(counts[&(name("echo"), StateKind::Pending)], 2);
    assert_eq!(
        queue
            .next_due(&of_node(1))
            .await
            .unwrap()
            .map(|due| due > HOUR / 2),
        Some(true)
    );
}

pub(super) async fn an_expired_lease_keeps_its_place_until_it_is_ended(queue: &dyn TaskQueue) {
    for id in ["1", "2", "3"] {
        create(queue, id, "echo").await;
    }
    let short = limited(
        request(&[("echo", 9)], 9, Duration::from_millis(30)),
        "echo",
        1,
    );
    let long = limited(request(&[("echo", 9)], 9, HOUR), "echo", 1);
    let held = queue.lease(&short).await.unwrap().remove(0).token;
    pass(Duration::from_millis(200)).await;
    // By the record it runs.
    assert!(lease_all(queue, &long).await.is_empty());
    let expired = queue.expired(Duration::ZERO, &[], 9).await.unwrap();
    assert_eq!(expired[0].token, held);
    let lost = Outcome::Lost {
        after: HOUR,
        error: "its node died".into(),
    };
    let ended = finish_one(queue, &held, lost).await;
    assert_eq!(ended, Finished::Applied);
    let next = lease_all(queue, &long).await;
    assert_eq!(next.len(), 1);
    // The holder that was taken for lost frees nothing.
    assert_eq!(
        finish_one(queue, &held, completed(b"")).await,
        Finished::Stale
    );
    assert_eq!(renew_one(queue, &held, HOUR).await, Renewal::Lost);
    assert!(lease_all(queue, &long).await.is_empty());
    finish_one(queue, &next[0].token, completed(b"")).await;
    assert_eq!(lease_all(queue, &long).await.len(), 1);
}

pub(super) async fn renewals_keep_a_place(queue: &dyn TaskQueue) {
    for id in ["1", "2"] {
        create(queue, id, "echo").await;
    }
    let ttl = Duration::from_millis(200);
    let short = limited(request(&[("echo", 9)], 9, ttl), "echo", 1);
    let held = queue.lease(&short).await.unwrap().remove(0).token;
    for _ in 0..6 {
        pass(ttl / 4).await;
        assert_eq!(renew_one(queue, &held, HOUR).await, Renewal::Held);
        assert!(lease_all(queue, &short).await.is_empty());
    }
    finish_one(queue, &held, completed(b"")).await;
    assert_eq!(lease_all(queue, &short).await.len(), 1);
}

pub(super) async fn groups_are_limited_one_by_one(queue: &dyn TaskQueue) {
    let tasks = [
        ("a1", "a"),
        ("a2", "a"),
        ("a3", "a"),
        ("b1", "b"),
        ("b2", "b"),
        ("n1", ""),
        ("n2", ""),
    ];
    create_in_groups(queue, &owned(&tasks)).await;
    let request = grouped("node-1", at_most(1), 9);
    let first = lease_all(queue, &request).await;
    // Tasks without a group have no limit.
    assert_eq!(in_groups(&first), "- - a b");
    assert!(waits(queue, &request).await);
    let of_a = first.iter().find(|task| task.group() == Some(&name("a")));
    finish_one(queue, &of_a.unwrap().token, completed(b"")).await;
    let due = queue.next_due(&request).await.unwrap();
    assert!(due.is_some_and(|due| due <= Duration::from_secs(1)));
    assert_eq!(in_groups(&lease_all(queue, &request).await), "a");
    // Another limit is in force at once.
    let request = grouped("node-1", at_most(2), 9);
    assert_eq!(in_groups(&lease_all(queue, &request).await), "a b");
}

pub(super) async fn a_limit_of_a_node_counts_its_own_tasks(queue: &dyn TaskQueue) {
    let tasks: Vec<_> = (0..6).map(|n| (format!("a{n}"), "a".to_owned())).collect();
    create_in_groups(queue, &tasks).await;
    let limits = Limits {
        max_concurrency: Some(2),
        max_cluster_concurrency: Some(3),
        ..NO_LIMITS
    };
    let here = grouped("node-1", limits, 9);
    let first = lease_all(queue, &here).await;
    assert_eq!(first.len(), 2);
    let there = grouped("node-2", limits, 9);
    let second = lease_all(queue, &there).await;
    assert_eq!(second.len(), 1);
    for request in [&here, &there] {
        assert!(lease_all(queue, request).await.is_empty());
        assert!(waits(queue, request).await);
    }
    finish_one(queue, &second[0].token, completed(b"")).await;
    assert!(lease_all(queue, &here).await.is_empty());
    assert_eq!(lease_all(queue, &there).await.len(), 1);
    finish_one(queue, &first[0].token, completed(b"")).await;
    assert_eq!(lease_all(queue, &here).await.len(), 1);
}

pub(super) async fn a_group_at_its_limit_holds_up_no_other(queue: &dyn TaskQueue) {
    let flood = (0..500).map(|n| (format!("a{n}"), "a".to_owned()));
    let flood: Vec<_> = flood.collect();
    create_in_groups(queue, &flood).await;
    tick().await;
    create_in_groups(queue, &owned(&[("b1", "b"), ("c1", "c")])).await;
    let one = |max| grouped("node-1", at_most(1), max);
    let mut leased = Vec::new();
    for _ in 0..3 {
        leased.extend(queue.lease(&one(1)).await.unwrap());
    }
    let first = ids(&leased);
    assert!(first.contains(&"b1") && first.contains(&"c1"), "{first:?}");
    assert!(queue.lease(&one(9)).await.unwrap().is_empty());
    assert!(waits(queue, &one(9)).await);
}

pub(super) async fn thousands_of_groups_have_their_own_limits(queue: &dyn TaskQueue) {
    const GROUPS: usize = 1200;
    let tasks = (0..2 * GROUPS).map(|n| (format!("t{n}"), format!("g{}", n % GROUPS)));
    let tasks: Vec<_> = tasks.collect();
    for batch in tasks.chunks(400) {
        create_in_groups(queue, batch).await;
    }
    let request = grouped("node-1", at_most(1), 100);
    for _ in 0..2 {
        let leased = lease_all(queue, &request).await;
        assert_eq!(leased.len(), GROUPS);
        let running = running_in_groups(queue).await;
        assert_eq!(running.len(), GROUPS);
        assert!(running.values().all(|&count| count == 1));
        assert!(queue.lease(&request).await.unwrap().is_empty());
        for part in leased.chunks(400) {
            let finish = |leased: &Leased| Finish::new(leased.token.clone(), completed(b""), None);
            let finished = queue.finish(part.iter().map(finish).collect()).await;
            assert!(finished.unwrap().iter().all(|it| *it == Finished::Applied));
        }
    }
    assert_eq!(queue.next_due(&request).await.unwrap(), None);
}

pub(super) async fn a_rate_allows_its_burst_and_then_waits(queue: &dyn TaskQueue) {
    create_all(queue, (0..9).map(|n| task(&format!("t{n}"), "echo", b""))).await;
    create(queue, "other", "free").await;
    let hourly = rated(rate("1/h burst 2"), 9);
    let leased = lease_all(queue, &hourly).await;
    assert_eq!(leased.len(), 2);
    let wait = queue.next_due(&hourly).await.unwrap().unwrap();
    assert!(wait > HOUR / 2 && wait <= HOUR, "{wait:?}");
    // A task that ends, however it does, gives no permit back.
    finish_one(queue, &leased[0].token, completed(b"")).await;
    finish_one(queue, &leased[1].token, Outcome::Released).await;
    assert!(lease_all(queue, &hourly).await.is_empty());
    // Another type has no part in it.
    let mut both = hourly.clone();
    let free = limits(9, 1);
    Arc::make_mut(&mut both.types).insert(name("free"), free);
    assert_eq!(queue.next_due(&both).await.unwrap(), Some(Duration::ZERO));
    assert_eq!(ids(&lease_all(queue, &both).await), ["other"]);
    // Two more permits than before, of which two are spent.
    assert_eq!(
        lease_all(queue, &rated(rate("1/h burst 4"), 9)).await.len(),
        2
    );
    assert!(lease_all(queue, &hourly).await.is_empty());
    let unlimited = request(&[("echo", 9)], 9, HOUR);
    assert_eq!(
        queue.next_due(&unlimited).await.unwrap(),
        Some(Duration::ZERO)
    );
    assert_eq!(lease_all(queue, &unlimited).await.len(), 6);
}

pub(super) async fn no_more_begin_than_the_rate_allows(queue: &dyn TaskQueue) {
    create_all(queue, (0..200).map(|n| task(&format!("t{n}"), "echo", b""))).await;
    let request = rated(rate("50/s burst 5"), 9);
    let (began, mut count) = (tokio::time::Instant::now(), 0);
    while count < 30 {
        count += queue.lease(&request).await.unwrap().len();
        // The clock of the queue and this one may differ by their rounding.
        let elapsed = began.elapsed().as_secs_f64() + 0.005;
        assert!(
            count as f64 <= 5.0 + 50.0 * elapsed,
            "{count} in {elapsed} s"
        );
        let wait = queue.next_due(&request).await.unwrap().unwrap();
        assert!(wait <= Duration::from_millis(20), "{wait:?}");
        tokio::time::sleep(wait).await;
    }
}

pub(super) async fn a_rate_of_a_group_holds_up_no_other(queue: &dyn TaskQueue) {
    let tasks = [
        ("a1", "a"),
        ("a2", "a"),
        ("b1", "b"),
        ("n1", ""),
        ("n2", ""),
    ];
    create_in_groups(queue, &owned(&tasks)).await;
    let hourly = Limits {
        max_rate: Some(rate("1/h")),
        ..NO_LIMITS
    };
    let hourly = grouped("node-1", hourly, 9);
    assert_eq!(in_groups(&lease_all(queue, &hourly).await), "- - a b");
    let wait = queue.next_due(&hourly).await.unwrap().unwrap();
    assert!(wait > HOUR / 2 && wait <= HOUR, "{wait:?}");
    create_in_groups(queue, &owned(&[("c1", "c"), ("b2", "b")])).await;
    assert_eq!(queue.next_due(&hourly).await.unwrap(), Some(Duration::ZERO));
    assert_eq!(ids(&lease_all(queue, &hourly).await), ["c1"]);
    // A limit that is lifted ends the wait.
    let lifted = grouped("node-1", NO_LIMITS, 9);
    assert_eq!(in_groups(&lease_all(queue, &lifted).await), "a b");
}

pub(super) async fn a_type_with_too_many_pending_tasks_refuses_others(queue: &dyn TaskQueue) {
    let of_type = PendingLimits {
        of_type: Some(2),
        of_group: None,
    };
    let submit = async |id: &str| {
        let submission = task(id, "echo", b"").limited(of_type);
        submit_one(queue, submission).await
    };
    assert_eq!(submit("1").await, Submitted::Created);
    assert_eq!(submit("2").await, Submitted::Created);
    assert_eq!(submit("3").await, Submitted::TypeFull);
    // What is stored is answered as always, and other types and submissions without the limit are accepted.
    assert_eq!(submit("2").await, Submitted::Existing);
    create(queue, "other", "free").await;
    create(queue, "4", "echo").await;
    let leased = lease_some(queue, "echo", 2).await;
    assert_eq!(submit("3").await, Submitted::Created);
    assert_eq!(submit("5").await, Submitted::TypeFull);
    // A task that is tried again is never refused.
    finish_one(queue, &leased[0].token, retry(Duration::ZERO, "again")).await;
    let waiting = get(queue, leased[0].token.id.as_str()).await;
    assert_eq!(waiting.state.kind(), StateKind::Pending);
    assert_eq!(submit("5").await, Submitted::TypeFull);
}

pub(super) async fn a_group_with_too_many_pending_tasks_refuses_others(queue: &dyn TaskQueue) {
    let limits = PendingLimits {
        of_type: None,
        of_group: Some(2),
    };
    let submit = async |id: &str, group: &str| {
        let submission = match group {
            "" => task(id, "echo", b""),
            group => with_options(id, "echo", in_group(group)),
        };
        submit_one(queue, submission.limited(limits)).await
    };
    for (id, group, expected) in [
        ("a1", "a", Submitted::Created),
        ("a2", "a", Submitted::Created),
        ("a3", "a", Submitted::GroupFull),
        ("b1", "b", Submitted::Created),
        ("n1", "", Submitted::Created),
        ("n2", "", Submitted::Created),
        ("n3", "", Submitted::Created),
        ("a2", "a", Submitted::Existing),
    ] {
        assert_eq!(submit(id, group).await, expected, "{id}");
    }
    let leased = lease_all(queue, &grouped("node-1", at_most(1), 9)).await;
    assert_eq!(in_groups(&leased), "- - - a b");
    assert_eq!(submit("a3", "a").await, Submitted::Created);
    assert_eq!(submit("a4", "a").await, Submitted::GroupFull);
    assert_eq!(queue.cancel(&name("a3")).await.unwrap(), Cancel::Cancelled);
    assert_eq!(submit("a4", "a").await, Submitted::Created);
}
