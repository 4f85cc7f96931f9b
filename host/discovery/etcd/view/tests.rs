//! The view without an etcd: snapshots, changes and their order.

use super::*;

const GRACE: Duration = Duration::from_secs(15);
const SECOND: Duration = Duration::from_secs(1);

fn name(text: &str) -> Name {
    Name::parse("name", text).unwrap()
}

fn record(id: &str) -> NodeRecord {
    NodeRecord::new(name(id), format!("{id}:1"))
}

fn node(id: &str) -> Entry {
    Entry::Node(RegisteredNode {
        record: record(id),
        instance: "i".into(),
    })
}

fn service(id: &str) -> Entry {
    Entry::Service(ServiceInfo {
        id: name(id),
        name: name("web"),
        address: "a:1".into(),
        metadata: BTreeMap::new(),
        ttl: None,
    })
}

fn shown(view: &View) -> String {
    let nodes = view.nodes();
    let ids: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
    ids.join(" ")
}

fn removed(id: &str) -> Vec<(Key, Option<Entry>)> {
    vec![(Key::Node(name(id)), None)]
}

fn three(now: Instant) -> View {
    let mut view = View::new(GRACE);
    view.set_own(Some(record("a")));
    let all = ["a", "b", "c"].map(|id| (node(id), 1));
    view.replace(all.into(), 5, now);
    view
}

#[test]
fn a_snapshot_replaces_the_content() {
    let now = Instant::now();
    let mut view = three(now);
    assert_eq!(shown(&view), "a b c");
    view.change(vec![(service("x").key(), Some(service("x")))], 6, now);
    // Written by this node after the snapshot.
    view.apply_write(service("y"), 9);
    view.replace(vec![(node("a"), 1), (node("d"), 7)], 8, now);
    assert_eq!(shown(&view), "a d");
    let found = view.services(&name("web"), usize::MAX).unwrap().len();
    assert_eq!((found, view.services_count), (1, 1));
    assert!(view.has_service(&(name("web"), name("y"))));
    // An etcd that was set up anew counts from the start.
    view.replace(vec![(node("a"), 1), (node("b"), 2)], 3, now);
    assert_eq!(shown(&view), "a b");
}

#[test]
fn a_write_that_the_watch_reported_is_not_applied_again() {
    let now = Instant::now();
    let mut view = three(now);
    view.change(vec![(service("x").key(), None)], 8, now);
    view.apply_write(service("x"), 7);
    assert_eq!(view.services_count, 0);
}

#[test]
fn a_change_of_a_service_copies_no_record() {
    let now = Instant::now();
    let mut view = three(now);
    // Shows whether the list is made anew, even if it would be equal.
    let marked: Arc<[NodeRecord]> = Arc::new([record("marked")]);
    view.shown = marked.clone();
    let is_untouched = |view: &View| Arc::ptr_eq(&view.nodes(), &marked);
    let key = service("x").key();
    view.change(vec![(key.clone(), Some(service("x")))], 6, now);
    view.change(vec![(key.clone(), Some(service("x")))], 7, now);
    view.apply_write(service("y"), 8);
    view.apply_delete(&service("y").key(), 9, now);
    view.change(vec![(key, None)], 10, now);
    assert!(is_untouched(&view), "{:?}", view.nodes());
    assert_eq!((view.revision, view.services_count), (10, 0));
    view.change(removed("b"), 11, now);
    assert_eq!(shown(&view), "a c");
}

#[test]
fn a_single_removed_node_is_removed_at_once() {
    let now = Instant::now();
    let mut view = three(now);
    view.change(removed("b"), 6, now);
    assert_eq!(shown(&view), "a c");
    view.change(removed("c"), 7, now);
    assert_eq!(shown(&view), "a");
    assert!(view.has_own());
}

#[test]
fn nodes_removed_all_at_once_are_kept_for_the_grace() {
    let now = Instant::now();
    let mut view = three(now);
    for (revision, id) in [(6, "b"), (7, "a"), (8, "c")] {
        view.change(removed(id), revision, now);
    }
    assert_eq!(shown(&view), "a b c");
    assert!(!view.has_own());
    assert_eq!(view.expire(now), Some(now + GRACE));
    // A node that registers again stays and is confirmed.
    view.change(vec![(node("b").key(), Some(node("b")))], 9, now + SECOND);
    view.apply_write(node("a"), 10);
    assert!(view.has_own());
    assert_eq!(view.expire(now + GRACE), None);
    assert_eq!(shown(&view), "a b");
    // An empty snapshot equals many deletions.
    view.replace(Vec::new(), 20, now + GRACE);
    assert_eq!(shown(&view), "a b");
    assert_eq!(view.expire(now + GRACE * 2), None);
    assert_eq!(shown(&view), "a", "this node is always in its view");
}

#[test]
fn a_node_that_deregisters_is_not_shown() {
    let now = Instant::now();
    let mut view = three(now);
    view.set_own(None);
    assert_eq!(shown(&view), "b c");
    view.change(removed("a"), 6, now);
    assert_eq!(shown(&view), "b c");
    assert!(view.has_own(), "no record is needed");
}

#[test]
fn nodes_are_kept_if_this_one_registers_again_before_the_last_is_removed() {
    let now = Instant::now();
    let mut view = three(now);
    view.change(removed("a"), 6, now);
    view.apply_write(node("a"), 7);
    assert!(view.has_own());
    view.change(removed("b"), 8, now);
    view.change(removed("c"), 9, now + SECOND);
    assert_eq!(shown(&view), "a b c");
    // Much later, a removed node is removed at once.
    view.change(vec![(node("b").key(), Some(node("b")))], 10, now);
    let later = now + GRACE * 2;
    assert_eq!(view.expire(later), None);
    view.change(removed("b"), 11, later);
    assert_eq!(shown(&view), "a");
}

#[test]
fn unconfirmed_nodes_are_probed() {
    let now = Instant::now();
    let mut view = three(now);
    let mut changed = view.changed();
    changed.mark_unchanged();
    view.replace(Vec::new(), 6, now);
    assert_eq!(shown(&view), "a b c");
    assert!(changed.has_changed().unwrap(), "there are nodes to probe");
    let to_probe = ["b", "c"].map(|id| (name(id), format!("{id}:1")));
    assert_eq!(view.unconfirmed(), to_probe);
    view.probe_refused(&name("b"));
    assert_eq!(shown(&view), "a c");
    // A node that answers is kept for longer, up to a limit.
    let mut when = now;
    while view.unconfirmed().len() == 1 {
        when += GRACE / 3;
        view.expire(when);
        view.probe_answered(&name("c"), when);
    }
    assert_eq!(when, now + GRACE * MOST_GRACES);
    assert_eq!(shown(&view), "a");
    // Late results change nothing for nodes that are confirmed again, or removed.
    view.change(vec![(node("b").key(), Some(node("b")))], 7, when);
    view.probe_refused(&name("b"));
    view.probe_answered(&name("c"), when);
    assert_eq!(shown(&view), "a b");
}

#[test]
fn drain_requests_are_independent_of_the_nodes() {
    let now = Instant::now();
    let mut view = three(now);
    let drained = |view: &View| {
        let ids: Vec<String> = view.drained().iter().map(Name::to_string).collect();
        ids.join(" ")
    };
    let request = |id: &str| Entry::Drained(name(id));
    let mut changed = view.changed();
    view.apply_write(request("b"), 6);
    view.change(vec![(request("z").key(), Some(request("z")))], 7, now);
    assert_eq!(
        (drained(&view), shown(&view)),
        ("b z".into(), "a b c".into())
    );
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    view.change(removed("b"), 8, now);
    assert_eq!(drained(&view), "b z");
    // A snapshot older than a write does not undo it; a later one does.
    view.apply_write(request("c"), 12);
    view.replace(vec![(node("a"), 1), (request("z"), 7)], 10, now);
    assert_eq!(drained(&view), "c z");
    view.apply_delete(&request("z").key(), 13, now);
    assert_eq!(drained(&view), "c");
    view.replace(vec![(node("a"), 1)], 14, now);
    assert_eq!(drained(&view), "");
    // A deletion that the watch reported is not applied again.
    view.change(vec![(request("b").key(), Some(request("b")))], 20, now);
    view.apply_delete(&request("b").key(), 19, now);
    assert_eq!(drained(&view), "b");
}

#[test]
fn lost_drain_requests_are_distinguished_from_withdrawn_ones() {
    let now = Instant::now();
    let request = |id: &str, revision| (Entry::Drained(name(id)), revision);
    let snapshot = |store: Option<&str>, is_new, revision, entries| Snapshot {
        entries,
        revision,
        store: store.map(|store| store.into()),
        is_new,
    };
    let mut view = View::new(GRACE);
    // An empty view has lost nothing.
    let none = Vec::<Name>::new();
    assert_eq!(
        view.lost_drain_requests(&snapshot(None, false, 1, vec![])),
        none
    );
    let all = vec![request("a", 3), request("b", 9)];
    view.load(snapshot(Some("one"), false, 10, all), now);
    let lost = |store, is_new, revision, entries| {
        let lost = view.lost_drain_requests(&snapshot(store, is_new, revision, entries));
        lost.iter()
            .map(Name::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    // The same store at a later revision: missing requests were withdrawn.
    assert_eq!(lost(Some("one"), false, 12, vec![]), "");
    assert_eq!(lost(Some("one"), true, 12, vec![]), "");
    // The same store restored to before b was drained, and then a was undrained.
    assert_eq!(lost(Some("one"), false, 5, vec![]), "b");
    // Another store, whatever its revisions: lost, if none can have been withdrawn.
    assert_eq!(lost(None, false, 1, vec![]), "a b");
    assert_eq!(lost(Some("two"), true, 2, vec![request("b", 2)]), "a");
    assert_eq!(lost(Some("two"), true, 100, vec![]), "a b");
    assert_eq!(lost(Some("two"), false, 100, vec![]), "");

    // Loaded as a whole: nothing of the store before is newer.
    view.load(snapshot(Some("two"), false, 4, vec![request("b", 4)]), now);
    assert_eq!(view.drained().iter().collect::<Vec<_>>(), [&name("b")]);
    view.change(vec![(Key::Drained(name("b")), None)], 5, now);
    assert!(view.drained().is_empty());
}
