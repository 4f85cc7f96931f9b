//! Options as part of a task: they come back as given, belong to its content, and are found again.

use super::helpers::*;
use std::collections::BTreeSet;

/// Options that ask for everything and let the task be leased at once.
fn everything(queue: &dyn TaskQueue) -> TaskOptions {
    TaskOptions {
        start: Start::At(UnixMs(1)),
        start_by: Some(queue.now().after(HOUR)),
        timeout: Some(Duration::from_millis(1500)),
        max_attempts: Some(7),
        backoff_initial: Some(Duration::from_millis(20)),
        backoff_max: Some(Duration::from_millis(40)),
        result_ttl: Some(HOUR),
        priority: Priority::Low,
        group: Some(name("group-1")),
        tags: tags(&["red", "green"]),
        unique: Some(Unique {
            key: name("key"),
            time: Some(HOUR),
        }),
    }
}

fn tags(given: &[&str]) -> BTreeSet<Name> {
    given.iter().map(|tag| name(tag)).collect()
}

fn tagged(given: &[&str]) -> TaskOptions {
    TaskOptions {
        tags: tags(given),
        ..TaskOptions::default()
    }
}

pub(super) async fn options_come_back_as_given(queue: &dyn TaskQueue) {
    let options = everything(queue);
    let given = Some(&options);
    submit_one(queue, with_options("t", "echo", options.clone())).await;
    create(queue, "plain", "other").await;
    let check = async |state| {
        let found = get(queue, "t").await;
        assert_eq!(found.options.as_deref(), given);
        assert_eq!(found.state.kind(), state);
        let status = queue.get_status(&name("t"), 1 << 20).await.unwrap();
        assert!(
            matches!(&status, Some(StatusRead::Task(task)) if task.options.as_deref() == given),
            "{status:?}"
        );
        let listed = list_all(queue, &Filter::default(), 9).await;
        for task in listed {
            let its = given.filter(|_| task.id == name("t"));
            assert_eq!(task.options.as_deref(), its, "{}", task.id);
        }
    };
    let flood = async || {
        // More than the cache of a backend holds.
        let flood = task("flood", "other", &vec![0; 9 << 20]);
        queue.submit(vec![flood]).await.unwrap();
    };
    check(StateKind::Pending).await;
    let short = request(&[("echo", 1)], 1, Duration::from_millis(1));
    let leased = queue.lease(&short).await.unwrap().remove(0);
    assert_eq!(leased.options.as_deref(), given);
    check(StateKind::Running).await;
    tick().await;
    tick().await;
    let expired = queue.expired(Duration::ZERO, &[], 9).await.unwrap();
    assert_eq!(expired[0].options.as_deref(), given);
    finish_one(queue, &leased.token, retry(Duration::ZERO, "again")).await;
    flood().await;
    check(StateKind::Pending).await;
    let leased = lease_one(queue, "echo").await;
    assert_eq!(leased.options.as_deref(), given);
    finish_one(queue, &leased.token, failed("no")).await;
    check(StateKind::Failed).await;
    queue.requeue(&name("t")).await.unwrap();
    check(StateKind::Pending).await;
    let leased = lease_one(queue, "echo").await;
    assert_eq!(leased.options.as_deref(), given);
    finish_one(queue, &leased.token, completed(b"r")).await;
    check(StateKind::Completed).await;
    let plain = lease_some(queue, "other", 9).await;
    assert!(plain.iter().all(|task| task.options.is_none()));
}

pub(super) async fn options_are_part_of_the_content(queue: &dyn TaskQueue) {
    let options = everything(queue);
    let same = || with_options("t", "echo", options.clone());
    let plain = || with_options("plain", "echo", TaskOptions::default());
    assert_eq!(submit_one(queue, same()).await, Submitted::Created);
    assert_eq!(submit_one(queue, plain()).await, Submitted::Created);
    let change = |change: fn(&mut TaskOptions)| {
        let mut options = options.clone();
        change(&mut options);
        with_options("t", "echo", options)
    };
    let others = [
        with_options("t", "echo", TaskOptions::default()),
        with_options("plain", "echo", options.clone()),
        change(|it| it.start = Start::Now),
        change(|it| it.start = Start::At(UnixMs(2))),
        change(|it| it.start = Start::After(Duration::from_millis(1))),
        change(|it| it.start_by = None),
        change(|it| it.timeout = None),
        change(|it| it.max_attempts = Some(8)),
        change(|it| it.backoff_initial = None),
        change(|it| it.backoff_max = Some(Duration::from_millis(41))),
        change(|it| it.result_ttl = None),
        change(|it| it.priority = Priority::Normal),
        change(|it| it.group = Some(name("group-2"))),
        change(|it| it.tags = tags(&["red"])),
        change(|it| it.unique = None),
    ];
    let leased = lease_some(queue, "echo", 9).await;
    assert_eq!(leased.len(), 2);
    for other in others {
        let compared = queue.compare(&other).await.unwrap();
        assert_eq!(compared, Some(Submitted::Conflict), "{other:?}");
        let submitted = submit_one(queue, other).await;
        assert_eq!(submitted, Submitted::Conflict);
    }
    for same in [same(), plain()] {
        let compared = queue.compare(&same).await.unwrap();
        assert_eq!(compared, Some(Submitted::Existing));
        assert_eq!(submit_one(queue, same).await, Submitted::Existing);
    }
    // A delay compares as given, whatever the time is.
    let delayed = || {
        let options = TaskOptions {
            start: Start::After(HOUR),
            ..TaskOptions::default()
        };
        with_options("delayed", "echo", options)
    };
    assert_eq!(submit_one(queue, delayed()).await, Submitted::Created);
    tick().await;
    assert_eq!(submit_one(queue, delayed()).await, Submitted::Existing);
}

pub(super) async fn filters_select_by_group_and_tag(queue: &dyn TaskQueue) {
    let options = |n: usize| {
        let tags: &[&str] = match n % 3 {
            0 => &["red", "blue"],
            1 => &["red"],
            _ => &[],
        };
        TaskOptions {
            group: (n % 2 == 1).then(|| name(if n % 4 == 1 { "g" } else { "h" })),
            ..tagged(tags)
        }
    };
    let task_type = |n: usize| if n < 12 { "a" } else { "b" };
    let batch = (0..24).map(|n| with_options(&format!("t{n}"), task_type(n), options(n)));
    create_all(queue, batch).await;
    // Of group g: 1 5 9 13 17 21; of h: 3 7 11 15 19 23; red but for 2 5 8 11 ..., blue 0 3 6 9 ...
    queue.cancel(&name("t9")).await.unwrap();
    queue.cancel(&name("t15")).await.unwrap();
    let list = async |filter: Filter| {
        let mut found = Vec::new();
        for size in [1, 2, 100] {
            let tasks = list_all(queue, &filter, size).await;
            let ids: Vec<_> = tasks.iter().map(|task| &task.id.as_str()[1..]).collect();
            found.push(ids.join(" "));
        }
        assert!(found.iter().all(|ids| *ids == found[0]), "{found:?}");
        found.remove(0)
    };
    let of = |group: Option<&str>, tag: Option<&str>| Filter {
        group: group.map(name),
        tag: tag.map(name),
        ..Filter::default()
    };
    assert_eq!(list(of(Some("g"), None)).await, "21 17 13 9 5 1");
    assert_eq!(list(of(None, Some("blue"))).await, "21 18 15 12 9 6 3 0");
    assert_eq!(list(of(Some("h"), Some("blue"))).await, "15 3");
    assert_eq!(list(of(Some("none"), None)).await, "");
    assert_eq!(list(of(None, Some("g"))).await, "");
    let in_state = |state, filter| Filter {
        state: Some(state),
        ..filter
    };
    let of_type = |task_type, filter| Filter {
        task_type: Some(name(task_type)),
        ..filter
    };
    use StateKind::{Cancelled, Pending};
    let cancelled = in_state(Cancelled, of(None, Some("red")));
    assert_eq!(list(cancelled).await, "15 9");
    let pending = in_state(Pending, of(Some("g"), None));
    assert_eq!(list(pending).await, "21 17 13 5 1");
    let of_b = of_type("b", of(Some("g"), Some("red")));
    assert_eq!(list(of_b.clone()).await, "21 13");
    assert_eq!(list(in_state(Cancelled, of_b)).await, "");
    // A submission between two pages shifts nothing, and a purged task is gone.
    let filter = of(None, Some("blue"));
    let page = |after| Page { size: 3, after };
    let first = queue.list(&filter, &page(None)).await.unwrap();
    create_all(queue, [with_options("new", "a", tagged(&["blue"]))]).await;
    tick().await;
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 9)
            .await
            .unwrap(),
        2
    );
    let second = queue.list(&filter, &page(first.next)).await.unwrap();
    let ids: Vec<_> = second.tasks.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(ids, ["t12", "t6", "t3"]);
    let third = queue.list(&filter, &page(second.next)).await.unwrap();
    assert_eq!(third.tasks[0].id, name("t0"));
    assert_eq!((third.tasks.len(), third.next), (1, None));
}

pub(super) async fn a_result_ttl_counts_instead_of_the_age(queue: &dyn TaskQueue) {
    let kept_for = |id: &str, time| {
        let options = TaskOptions {
            result_ttl: Some(time),
            ..TaskOptions::default()
        };
        with_options(id, "echo", options)
    };
    let short = Duration::from_millis(100);
    create_all(queue, [kept_for("long", HOUR), kept_for("short", short)]).await;
    create(queue, "plain", "echo").await;
    create_all(queue, [kept_for("open", short)]).await;
    let leased = lease_some(queue, "echo", 3).await;
    assert_eq!(leased.len(), 3);
    for leased in leased {
        finish_one(queue, &leased.token, failed("no")).await;
    }
    pass(short).await;
    // Only the short one has had its time.
    assert_eq!(queue.purge(&Retention::of(HOUR), 9).await.unwrap(), 1);
    assert!(queue.get(&name("short")).await.unwrap().is_none());
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 9)
            .await
            .unwrap(),
        1
    );
    assert!(queue.get(&name("plain")).await.unwrap().is_none());
    // A task that is requeued is open again, and has its time from its next end on.
    create_all(queue, [kept_for("again", short)]).await;
    queue.cancel(&name("again")).await.unwrap();
    queue.requeue(&name("again")).await.unwrap();
    pass(short).await;
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 9)
            .await
            .unwrap(),
        0
    );
    queue.cancel(&name("again")).await.unwrap();
    pass(short).await;
    assert_eq!(queue.purge(&Retention::of(HOUR), 0).await.unwrap(), 0);
    assert_eq!(queue.purge(&Retention::of(HOUR), 9).await.unwrap(), 1);
    let left = list_all(queue, &Filter::default(), 9).await;
    let left: Vec<_> = left.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(&"open") && left.contains(&"long"));
}
