//! The order of the tasks of one backlog.

use super::*;

fn name(given: &str) -> Name {
    Name::parse("group", given).unwrap()
}

/// A backlog with tasks that are due at their numbers; a group of "" is none.
fn backlog(tasks: &[(i64, &str)]) -> Backlog {
    let mut backlog = Backlog::default();
    for &(number, group) in tasks {
        insert(&mut backlog, number, group);
    }
    backlog
}

fn insert(backlog: &mut Backlog, number: i64, group: &str) {
    let group = (!group.is_empty()).then(|| name(group));
    backlog.insert((number, number), group.as_ref());
}

/// Takes the next task by `now`. No group has limits.
fn take(backlog: &mut Backlog, now: i64) -> Option<QueuePosition> {
    backlog.take(now, |_| false, |_, _| Turn::Now)
}

fn take_all(backlog: &mut Backlog, now: i64) -> Vec<i64> {
    let take = || take(backlog, now).map(|(_, number)| number);
    std::iter::from_fn(take).collect()
}

#[test]
fn tasks_without_a_group_come_by_age() {
    let mut backlog = backlog(&[(3, ""), (1, ""), (2, ""), (9, "")]);
    assert_eq!(backlog.first(), Some((1, 1)));
    backlog.remove((2, 2), None);
    assert_eq!(take_all(&mut backlog, 5), [1, 3]);
    assert_eq!(backlog.first(), Some((9, 9)));
}

#[test]
fn groups_take_turns_from_the_oldest_on() {
    let mut backlog = backlog(&[(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, ""), (6, "")]);
    assert_eq!(take_all(&mut backlog, 9), [1, 4, 5, 2, 6, 3]);
    assert!(matches!(backlog, Backlog::Plain(tasks) if tasks.is_empty()));
}

#[test]
fn a_group_joins_the_round_when_it_is_due() {
    let mut backlog = backlog(&[(1, "a"), (2, "a"), (3, "a"), (20, "b")]);
    assert_eq!(take(&mut backlog, 10), Some((1, 1)));
    insert(&mut backlog, 4, "c");
    assert_eq!(take_all(&mut backlog, 10), [2, 4, 3]);
    assert_eq!(backlog.first(), Some((20, 20)));
    assert_eq!(take_all(&mut backlog, 20), [20]);
}

#[test]
fn a_group_has_one_place_in_the_round() {
    let mut backlog = backlog(&[(1, "a"), (2, "b"), (3, "b"), (4, "b"), (5, "a")]);
    assert_eq!(take(&mut backlog, 9), Some((1, 1)));
    // The group leaves the round and comes back before its turn.
    backlog.remove((5, 5), Some(&name("a")));
    insert(&mut backlog, 6, "a");
    insert(&mut backlog, 7, "a");
    assert_eq!(take_all(&mut backlog, 9), [2, 6, 3, 7, 4]);
}

#[test]
fn late_tasks_cost_no_turn() {
    let mut backlog = backlog(&[(1, "a"), (2, "a"), (3, "b"), (4, ""), (5, "c")]);
    let late = |position: QueuePosition| matches!(position.1, 1 | 3 | 5);
    let mut taken = Vec::new();
    while let Some((_, number)) = backlog.take(9, late, |_, _| Turn::Now) {
        taken.push(number);
    }
    assert_eq!(taken, [2, 4]);
    assert_eq!(backlog.first(), None);
}

#[test]
fn a_backlog_without_groups_left_is_plain_again() {
    let mut backlog = backlog(&[(1, ""), (2, "a"), (3, "")]);
    assert!(matches!(backlog, Backlog::Grouped(_)));
    backlog.remove((2, 2), Some(&name("a")));
    assert!(matches!(backlog, Backlog::Plain(_)));
    assert_eq!(take_all(&mut backlog, 9), [1, 3]);
}

#[test]
fn every_task_is_taken_once_whatever_happens_before() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut backlog = Backlog::default();
        let mut pending: BTreeMap<i64, &str> = BTreeMap::new();
        for number in 0..60 {
            let group = ["", "a", "b", "c"][random.usize(..4)];
            let due = random.i64(..10);
            let position = (due, number);
            let of = (!group.is_empty()).then(|| name(group));
            backlog.insert(position, of.as_ref());
            if random.u8(..4) == 0 {
                backlog.remove(position, of.as_ref());
            } else {
                pending.insert(number, group);
            }
            if random.bool()
                && let Some((due, number)) = take(&mut backlog, 5)
            {
                assert!(due <= 5);
                assert!(pending.remove(&number).is_some(), "seed {seed}");
            }
        }
        let mut rest = take_all(&mut backlog, 10);
        rest.sort_unstable();
        assert!(rest.into_iter().eq(pending.into_keys()), "seed {seed}");
        assert!(matches!(backlog, Backlog::Plain(tasks) if tasks.is_empty()));
    }
}

/// Takes all that is due by `now`, of groups that have what `turn` says.
fn take_limited(backlog: &mut Backlog, now: i64, turn: impl Fn(&str) -> Turn) -> Vec<i64> {
    let turn = |group: &Name, _: usize| turn(group.as_str());
    let take = || backlog.take(now, |_| false, turn);
    std::iter::from_fn(take).map(|(_, number)| number).collect()
}

#[test]
fn a_blocked_group_holds_up_no_other_and_keeps_its_turn() {
    let mut backlog = backlog(&[(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, ""), (6, "c")]);
    let blocked = |group: &str| match group {
        "a" | "c" => Turn::Blocked,
        _ => Turn::Now,
    };
    assert_eq!(take_limited(&mut backlog, 9, blocked), [3, 5, 4]);
    // Only an end makes the others due.
    assert_eq!(backlog.first(), None);
    assert_eq!(
        (backlog.count_of(&name("a")), backlog.count_of(&name("b"))),
        (2, 0)
    );
    insert(&mut backlog, 7, "b");
    assert_eq!(backlog.first(), Some((7, 7)));
    backlog.unblock(&name("a"));
    assert_eq!(backlog.first(), Some((1, 1)));
    assert_eq!(take_all(&mut backlog, 9), [1, 7, 2]);
    backlog.unblock(&name("c"));
    assert_eq!(take_all(&mut backlog, 9), [6]);
    assert!(matches!(backlog, Backlog::Plain(tasks) if tasks.is_empty()));
}

#[test]
fn a_group_waits_for_its_rate_and_is_due_then() {
    let mut backlog = backlog(&[(1, "a"), (2, "a"), (3, "b"), (40, "a")]);
    let limited = |group: &str| match group {
        "a" => Turn::At(20),
        _ => Turn::Now,
    };
    assert_eq!(take_limited(&mut backlog, 9, limited), [3]);
    assert_eq!(backlog.first(), Some((20, 1)));
    // A task that is older does not make it due before.
    insert(&mut backlog, 0, "a");
    assert_eq!(backlog.first(), Some((20, 0)));
    backlog.remove((0, 0), Some(&name("a")));
    assert_eq!(take_all(&mut backlog, 19), [0; 0]);
    assert_eq!(take_all(&mut backlog, 20), [1, 2]);
    assert_eq!(backlog.first(), Some((40, 40)));
}

#[test]
fn another_rate_ends_the_wait_for_the_one_before() {
    let mut backlog = backlog(&[(1, "a"), (2, "b"), (30, "c")]);
    let limited = |_: &str| Turn::At(1000);
    assert_eq!(take_limited(&mut backlog, 9, limited), [0; 0]);
    assert_eq!(backlog.first(), Some((30, 30)));
    backlog.forget_limits();
    assert_eq!(backlog.first(), Some((1, 1)));
    assert_eq!(take_limited(&mut backlog, 9, |_| Turn::Blocked), [0; 0]);
    assert_eq!(backlog.first(), Some((30, 30)));
    backlog.forget_limits();
    let mut taken = take_all(&mut backlog, 9);
    taken.sort_unstable();
    assert_eq!(taken, [1, 2]);
}

#[test]
fn a_blocked_group_that_is_emptied_comes_back_as_any_other() {
    let mut backlog = backlog(&[(1, "a"), (2, "b")]);
    assert_eq!(take_limited(&mut backlog, 9, |_| Turn::Blocked), [0; 0]);
    backlog.remove((1, 1), Some(&name("a")));
    insert(&mut backlog, 3, "a");
    assert_eq!(backlog.first(), Some((3, 3)));
    for group in ["a", "b", "c"] {
        backlog.unblock(&name(group));
    }
    assert_eq!(take_all(&mut backlog, 9), [2, 3]);
}

#[test]
fn a_group_that_reaches_its_limit_is_as_old_as_nothing() {
    let mut backlog = backlog(&[(1, "a"), (2, "a"), (5, "b"), (6, "b")]);
    let one_of_a = |group: &Name, taken: usize| match group.as_str() {
        "a" if taken > 0 => Turn::Blocked,
        _ => Turn::Now,
    };
    let taken = backlog.take(9, |_| false, one_of_a);
    assert_eq!(taken, Some((1, 1)));
    // Its other task holds up no other route.
    assert_eq!(backlog.first(), Some((5, 5)));
    assert_eq!(take_limited(&mut backlog, 9, |_| Turn::Now), [5, 6]);
    backlog.unblock(&name("a"));
    assert_eq!(take_all(&mut backlog, 9), [2]);
}

#[test]
fn ten_thousand_groups_that_wait_are_not_looked_at() {
    let mut backlog = Backlog::default();
    for number in 0..10_000 {
        insert(&mut backlog, number, &format!("g{number}"));
    }
    let looks = std::cell::Cell::new(0);
    let limited = |_: &str| {
        looks.set(looks.get() + 1);
        Turn::At(50_000)
    };
    for _ in 0..100 {
        assert_eq!(take_limited(&mut backlog, 20_000, limited), [0; 0]);
    }
    assert_eq!(looks.get(), 10_000);
    assert_eq!(backlog.first(), Some((50_000, 0)));
    assert_eq!(take_all(&mut backlog, 50_000).len(), 10_000);
}
