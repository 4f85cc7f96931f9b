//! Lists by what executed a task and by its times; and where pending tasks wait.

use super::helpers::*;
use crate::filter::TimeRange;

fn by(node: &str, plugin: &str, version: &str) -> ExecutedBy {
    ExecutedBy {
        node: name(node),
        plugin: name(plugin),
        plugin_version: version.into(),
    }
}

/// Returns the ids of the selected tasks in the order of their names, for several sizes of pages.
async fn found(queue: &dyn TaskQueue, filter: Filter) -> String {
    let mut found = Vec::new();
    for size in [1, 3, 100] {
        let tasks = list_all(queue, &filter, size).await;
        let mut ids: Vec<String> = tasks.iter().map(|task| task.id.to_string()).collect();
        ids.sort_unstable();
        found.push(ids.join(" "));
    }
    assert!(found.iter().all(|ids| *ids == found[0]), "{found:?}");
    found.remove(0)
}

/// Tasks of which a and b completed, c failed, d waits for its second attempt, e runs and f waits.
async fn create_some(queue: &dyn TaskQueue) {
    let attempts = [
        ("a", completed(b""), by("n1", "p", "1")),
        ("b", completed(b""), by("n2", "p", "2")),
        ("c", failed("no"), by("n2", "q", "1")),
        ("d", retry(HOUR, "no"), by("n1", "p", "2")),
    ];
    for (id, outcome, executed_by) in attempts {
        create(queue, id, "echo").await;
        let token = lease_one(queue, "echo").await.token;
        let finish = Finish::new(token, outcome, Some(executed_by));
        let answers = queue.finish(vec![finish]).await.unwrap();
        assert_eq!(answers, [Finished::Applied]);
        tick().await;
    }
    create(queue, "e", "echo").await;
    lease_one(queue, "echo").await;
    tick().await;
    create_all(queue, [with_options("f", "other", in_group("g"))]).await;
}

pub(super) async fn a_search_selects_by_what_executed_a_task(queue: &dyn TaskQueue) {
    create_some(queue).await;
    let of = |node: &str, plugin: &str, version: &str| {
        let given = |text: &str| (!text.is_empty()).then(|| name(text));
        Filter {
            node: given(node),
            plugin: given(plugin),
            plugin_version: Some(version).filter(|it| !it.is_empty()).map(Into::into),
            ..Filter::default()
        }
    };
    assert_eq!(found(queue, of("n1", "", "")).await, "a d");
    // The node that runs a task counts.
    assert_eq!(found(queue, of("node-1", "", "")).await, "e");
    assert_eq!(found(queue, of("", "p", "")).await, "a b d");
    assert_eq!(found(queue, of("", "", "2")).await, "b d");
    assert_eq!(found(queue, of("n2", "p", "2")).await, "b");
    assert_eq!(found(queue, of("n1", "q", "")).await, "");
    assert_eq!(found(queue, of("unheard-of", "", "")).await, "");
    let in_state = |state, filter| Filter {
        state: Some(state),
        ..filter
    };
    let waiting = in_state(StateKind::Pending, of("n1", "", ""));
    assert_eq!(found(queue, waiting).await, "d");
    let of_type = Filter {
        task_type: Some(name("other")),
        ..of("n1", "", "")
    };
    assert_eq!(found(queue, of_type).await, "");
    let in_group = Filter {
        group: Some(name("g")),
        ..of("n1", "", "")
    };
    assert_eq!(found(queue, in_group).await, "");
}

pub(super) async fn a_search_selects_by_time(queue: &dyn TaskQueue) {
    create_some(queue).await;
    let submitted_at = async |id: &str| get(queue, id).await.submitted_at;
    let finished_at = async |id: &str| match get(queue, id).await.state {
        State::Completed { finished_at, .. } | State::Failed { finished_at, .. } => finished_at,
        other => panic!("{id} is {}", other.kind()),
    };
    let (b, d) = (submitted_at("b").await, submitted_at("d").await);
    let submitted = |from, until| Filter {
        submitted: TimeRange { from, until },
        ..Filter::default()
    };
    assert_eq!(found(queue, submitted(Some(b), None)).await, "b c d e f");
    assert_eq!(found(queue, submitted(None, Some(b))).await, "a");
    assert_eq!(found(queue, submitted(Some(b), Some(d))).await, "b c");
    let later = queue.now().after(HOUR);
    assert_eq!(found(queue, submitted(Some(later), None)).await, "");
    assert_eq!(
        found(queue, submitted(None, Some(later))).await,
        "a b c d e f"
    );
    assert_eq!(found(queue, submitted(None, Some(UnixMs(1)))).await, "");
    let finished = |from, until| Filter {
        finished: TimeRange { from, until },
        ..Filter::default()
    };
    let end = finished_at("b").await;
    assert_eq!(found(queue, finished(Some(end), None)).await, "b c");
    assert_eq!(found(queue, finished(None, Some(end))).await, "a");
    // Open tasks have not ended at any time.
    assert_eq!(found(queue, finished(None, Some(later))).await, "a b c");
    let both = Filter {
        group: Some(name("g")),
        ..submitted(Some(d), Some(later))
    };
    assert_eq!(found(queue, both).await, "f");
}

pub(super) async fn pages_of_a_search_end(queue: &dyn TaskQueue) {
    let batch = (0..700).map(|n| task(&format!("t{n}"), "echo", b""));
    create_all(queue, batch).await;
    let token = lease_one(queue, "echo").await.token;
    finish_one(queue, &token, completed(b"")).await;
    let filter = Filter {
        plugin: Some(name("plugin-1")),
        ..Filter::default()
    };
    assert_eq!(found(queue, filter).await, token.id.as_str());
}

pub(super) async fn a_pending_task_has_a_place(queue: &dyn TaskQueue) {
    let ahead = async |id: &str| {
        let place = queue.place(&name(id)).await.unwrap();
        place.map(|place| {
            assert!(!place.is_more && !place.is_expired, "{place:?}");
            place.ahead
        })
    };
    assert_eq!(ahead("unknown").await, None);
    for id in ["a", "b", "c"] {
        create(queue, id, "echo").await;
        tick().await;
    }
    for (id, group) in [("g1", "g"), ("h1", "h"), ("g2", "g")] {
        create_all(queue, [with_options(id, "echo", in_group(group))]).await;
        tick().await;
    }
    create_all(
        queue,
        [with_options("high", "echo", of_priority(Priority::High))],
    )
    .await;
    create(queue, "other", "other").await;
    for (id, place) in [
        ("a", 0),
        ("b", 1),
        ("c", 2),
        ("g1", 0),
        ("h1", 0),
        ("g2", 1),
        ("high", 0),
        ("other", 0),
    ] {
        assert_eq!(ahead(id).await, Some(place), "{id}");
    }
    queue.cancel(&name("a")).await.unwrap();
    assert_eq!(ahead("a").await, None);
    assert_eq!(ahead("c").await, Some(1));
    // A task that is no longer to begin has no place before others.
    let late = TaskOptions {
        start_by: Some(UnixMs(1)),
        ..TaskOptions::default()
    };
    create_all(queue, [with_options("late", "third", late)]).await;
    let place = queue.place(&name("late")).await.unwrap().unwrap();
    assert!(place.is_expired, "{place:?}");
}
