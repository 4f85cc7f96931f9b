//! The rules that a plugin is checked against.

use super::*;
use crate::{Message, task};

fn same(payload: Vec<u8>) -> Vec<u8> {
    payload
}

#[test]
fn a_valid_plugin_passes() {
    let good = Plugin::new("p", "1.0.0", "").with(task("a.b_c:d-9", same));
    assert_eq!(good.check(), Ok(()));
}

#[test]
fn all_faults_are_reported_at_once() {
    let second = Duration::from_secs(1);
    let bad = Plugin::new("my plugin", "", "")
        .with(task("twice", same).attempts(0).concurrency(0))
        .with(task("twice", same).timeout(Duration::from_micros(9)))
        .with(task("-dash", same).backoff(second * 2, second))
        .with(task("", same))
        .with(task("late", same).backoff(second, MAX_BACKOFF + second));
    let faults = bad.check().unwrap_err();
    let faults: Vec<_> = faults.lines().collect();
    assert_eq!(
        faults,
        [
            "plugin name \"my plugin\" has a character other than A-Z a-z 0-9 . _ : -",
            "the plugin has no version",
            "task type \"twice\" has no attempts",
            "task type \"twice\" has no concurrency",
            "task type \"twice\" is declared twice",
            "task type \"twice\" has a timeout below a millisecond",
            "task type \"-dash\" does not begin with a letter or a digit",
            "task type \"-dash\" has an initial backoff above its maximum",
            "task type \"\" is not 1 to 128 bytes long",
            "task type \"late\" has a backoff of more than 7 days",
        ]
    );
    assert!(Plugin::new("p", "1", "").check().is_err());
}

struct Listens<const CASE: usize>;

impl<const CASE: usize> Component for Listens<CASE> {
    const TOPICS: &'static [&'static str] = match CASE {
        0 => &["a.b_c:d-9", "p.other"],
        1 => &["twice", "", "twice", "a/b", "p", "-"],
        _ => &["t"; 257],
    };
    type In = ();
    type Out = ();

    fn start() -> Result<Self> {
        Ok(Self)
    }

    fn on_message(&mut self, (): (), _: &Message) -> Result<()> {
        Ok(())
    }
}

#[test]
fn topics_of_a_component_are_checked() {
    let check = |plugin: Plugin| plugin.check();
    let new = || Plugin::new("p", "1", "");
    assert_eq!(check(new().with_component::<Listens<0>>()), Ok(()));
    let faults = check(new().with_component::<Listens<1>>()).unwrap_err();
    let faults: Vec<_> = faults.lines().collect();
    assert_eq!(
        faults,
        [
            "topic \"\" is not 1 to 128 bytes long",
            "topic \"twice\" is declared twice",
            "topic \"a/b\" has a character other than A-Z a-z 0-9 . _ : -",
            "topic \"p\" is the name of the component",
            "topic \"-\" does not begin with a letter or a digit",
        ]
    );
    let faults = check(new().with_component::<Listens<2>>()).unwrap_err();
    let first = "the component subscribes to more than 256 topics";
    assert_eq!(faults.lines().next(), Some(first));
}

#[test]
fn lengths_and_counts_have_the_limits_of_a_node() {
    let at_most = "x".repeat(64).leak();
    let too_long = "x".repeat(65).leak();
    let line = "x".repeat(1024).leak();
    let check = |version, description| {
        let plugin = Plugin::new("p", version, description);
        plugin
            .with(task("t", same).description(description))
            .check()
    };
    assert_eq!(check(at_most, line), Ok(()));
    assert_eq!(
        check(too_long, "x".repeat(1025).leak()).unwrap_err(),
        "the plugin has a version of more than 64 bytes\n\
         the plugin has a description of more than 1024 bytes\n\
         task type \"t\" has a description of more than 1024 bytes"
    );
    assert_eq!(
        check("1 beta", "two\nlines").unwrap_err().lines().count(),
        3
    );
    assert!(check("1\u{1b}", "\u{202e}").is_err());
    let with = |count: usize| {
        let names = (0..count).map(|n| &*format!("t{n}").leak());
        names.fold(Plugin::new("p", "1", ""), |p, name| {
            p.with(task(name, same))
        })
    };
    assert_eq!(with(256).check(), Ok(()));
    let fault = with(257).check().unwrap_err();
    assert_eq!(fault, "the plugin has more than 256 task types");
}
