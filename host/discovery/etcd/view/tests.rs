//! The view without any etcd: what it makes of lists and changes.

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
    Entry::Node(Announced {
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

fn gone(id: &str) -> Vec<(Key, Option<Entry>)> {
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
fn a_list_replaces_what_was_known() {
    let now = Instant::now();
    let mut view = three(now);
    assert_eq!(shown(&view), "a b c");
    view.change(vec![(service("x").key(), Some(service("x")))], 6, now);
    // Written here, and the list that comes is older.
    view.wrote(service("y"), 9);
    view.replace(vec![(node("a"), 1), (node("d"), 7)], 8, now);
    assert_eq!(shown(&view), "a d");
    let found = view.services(&name("web")).len();
    assert_eq!((found, view.services_count()), (1, 1));
    assert!(view.has_service(&name("web"), &name("y")));
    // An etcd that was set up anew counts from the start.
    view.replace(vec![(node("a"), 1), (node("b"), 2)], 3, now);
    assert_eq!(shown(&view), "a b");
}

#[test]
fn what_was_heard_already_is_not_written_again() {
    let now = Instant::now();
    let mut view = three(now);
    view.change(vec![(service("x").key(), None)], 8, now);
    view.wrote(service("x"), 7);
    assert_eq!(view.services_count(), 0);
}

#[test]
fn one_that_goes_is_gone() {
    let now = Instant::now();
    let mut view = three(now);
    view.change(gone("b"), 6, now);
    assert_eq!(shown(&view), "a c");
    view.change(gone("c"), 7, now);
    assert_eq!(shown(&view), "a");
    assert!(view.has_own());
}

#[test]
fn all_that_go_at_once_are_kept_for_a_while() {
    let now = Instant::now();
    let mut view = three(now);
    for (revision, id) in [(6, "b"), (7, "a"), (8, "c")] {
        view.change(gone(id), revision, now);
    }
    assert_eq!(shown(&view), "a b c");
    assert!(!view.has_own());
    assert_eq!(view.expire(now), Some(now + GRACE));
    // Who comes back stays, and is not doubted any more.
    view.change(vec![(node("b").key(), Some(node("b")))], 9, now + SECOND);
    view.wrote(node("a"), 10);
    assert!(view.has_own());
    assert_eq!(view.expire(now + GRACE), None);
    assert_eq!(shown(&view), "a b");
    // An empty list says the same as many deletions.
    view.replace(Vec::new(), 20, now + GRACE);
    assert_eq!(shown(&view), "a b");
    assert_eq!(view.expire(now + GRACE * 2), None);
    assert_eq!(shown(&view), "a", "this node knows itself");
}

#[test]
fn who_withdraws_is_not_shown() {
    let now = Instant::now();
    let mut view = three(now);
    view.set_own(None);
    assert_eq!(shown(&view), "b c");
    view.change(gone("a"), 6, now);
    assert_eq!(shown(&view), "b c");
    assert!(view.has_own(), "it does not want to be known");
}

#[test]
fn all_are_kept_though_this_one_is_back_before_the_last_goes() {
    let now = Instant::now();
    let mut view = three(now);
    view.change(gone("a"), 6, now);
    view.wrote(node("a"), 7);
    assert!(view.has_own());
    view.change(gone("b"), 8, now);
    view.change(gone("c"), 9, now + SECOND);
    assert_eq!(shown(&view), "a b c");
    // Much later, somebody who goes has gone.
    view.change(vec![(node("b").key(), Some(node("b")))], 10, now);
    let later = now + GRACE * 2;
    assert_eq!(view.expire(later), None);
    view.change(gone("b"), 11, later);
    assert_eq!(shown(&view), "a");
}

#[test]
fn who_is_in_doubt_is_asked() {
    let now = Instant::now();
    let mut view = three(now);
    let mut changed = view.changed();
    changed.mark_unchanged();
    view.replace(Vec::new(), 6, now);
    assert_eq!(shown(&view), "a b c");
    assert!(changed.has_changed().unwrap(), "there is somebody to ask");
    let asked = ["b", "c"].map(|id| (name(id), format!("{id}:1")));
    assert_eq!(view.doubtful(), asked);
    view.refused(&name("b"));
    assert_eq!(shown(&view), "a c");
    // Who answers is kept longer, though not for ever.
    let mut when = now;
    while view.doubtful().len() == 1 {
        when += GRACE / 3;
        view.expire(when);
        view.answered(&name("c"), when);
    }
    assert_eq!(when, now + GRACE * MOST_GRACES);
    assert_eq!(shown(&view), "a");
    // Answers come late, too: they change nothing for who is there again, or has gone.
    view.change(vec![(node("b").key(), Some(node("b")))], 7, when);
    view.refused(&name("b"));
    view.answered(&name("c"), when);
    assert_eq!(shown(&view), "a b");
}

#[test]
fn who_is_drained_is_kept_apart_from_who_is_there() {
    let now = Instant::now();
    let mut view = three(now);
    let drained = |view: &View| {
        let ids: Vec<String> = view.drained().iter().map(Name::to_string).collect();
        ids.join(" ")
    };
    let wish = |id: &str| Entry::Drained(name(id));
    let mut changed = view.changed();
    view.wrote(wish("b"), 6);
    view.change(vec![(wish("z").key(), Some(wish("z")))], 7, now);
    assert_eq!(
        (drained(&view), shown(&view)),
        ("b z".into(), "a b c".into())
    );
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    view.change(gone("b"), 8, now);
    assert_eq!(drained(&view), "b z");
    // A list that is older than what was written here takes nothing back; a later one does.
    view.wrote(wish("c"), 12);
    view.replace(vec![(node("a"), 1), (wish("z"), 7)], 10, now);
    assert_eq!(drained(&view), "c z");
    view.erased(&wish("z").key(), 13, now);
    assert_eq!(drained(&view), "c");
    view.replace(vec![(node("a"), 1)], 14, now);
    assert_eq!(drained(&view), "");
    // What has been heard of already is not done again.
    view.change(vec![(wish("b").key(), Some(wish("b")))], 20, now);
    view.erased(&wish("b").key(), 19, now);
    assert_eq!(drained(&view), "b");
}

#[test]
fn a_lost_wish_is_told_from_one_that_was_taken_back() {
    let now = Instant::now();
    let wish = |id: &str, revision| (Entry::Drained(name(id)), revision);
    let listed = |store: Option<&str>, is_new, revision, entries| Listed {
        entries,
        revision,
        store: store.map(|store| store.into()),
        is_new,
    };
    let mut view = View::new(GRACE);
    // Who knows nothing brings nothing.
    let none = Vec::<Name>::new();
    assert_eq!(view.lost_wishes(&listed(None, false, 1, vec![])), none);
    let all = vec![wish("a", 3), wish("b", 9)];
    view.take(listed(Some("one"), false, 10, all), now);
    let lost = |store, is_new, revision, entries| {
        let lost = view.lost_wishes(&listed(store, is_new, revision, entries));
        lost.iter()
            .map(Name::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    // The same store, further on: what is missing was taken back.
    assert_eq!(lost(Some("one"), false, 12, vec![]), "");
    assert_eq!(lost(Some("one"), true, 12, vec![]), "");
    // The same one as it was before b was drained, and somebody undrained a since.
    assert_eq!(lost(Some("one"), false, 5, vec![]), "b");
    // Another one, wherever its revisions are: lost, if nobody can have taken anything back.
    assert_eq!(lost(None, false, 1, vec![]), "a b");
    assert_eq!(lost(Some("two"), true, 2, vec![wish("b", 2)]), "a");
    assert_eq!(lost(Some("two"), true, 100, vec![]), "a b");
    assert_eq!(lost(Some("two"), false, 100, vec![]), "");

    // Taken over as a whole: nothing of the store before is newer.
    view.take(listed(Some("two"), false, 4, vec![wish("b", 4)]), now);
    assert_eq!(view.drained().iter().collect::<Vec<_>>(), [&name("b")]);
    view.change(vec![(Key::Drained(name("b")), None)], 5, now);
    assert!(view.drained().is_empty());
}
