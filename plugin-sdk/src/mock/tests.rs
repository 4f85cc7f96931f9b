//! Tests of tasks on the mock host.

use super::*;
use crate::{TaskError, config, task, tracing};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn about(task: &Task) -> String {
    let metadata: Vec<_> = task.all_metadata().collect();
    format!(
        "{} {} {}/{} {:?} {metadata:?} {}",
        task.id(),
        task.task_type(),
        task.attempt(),
        task.max_attempts(),
        task.timeout(),
        task.is_last_attempt(),
    )
}

fn plugin() -> Plugin {
    Plugin::new("mocked", "0.1.0", "")
        .with(task("about", |(), task: &Task| about(task)))
        .with(task("config", |key: String| {
            log::warn!(target: "t", "reading {key}");
            config::get_as::<u32>(&key).map(|value| format!("{value:?}"))
        }))
        .with(task("panic", |()| -> () { panic!("as asked") }))
        .with(task("steps", |(), task: &Task| {
            for done in 0..5 {
                task.progress(done, 5, format!("step {done}"));
                if task.is_cancelled() {
                    return Err(TaskError::retryable("stopped"));
                }
            }
            Ok(())
        }))
}

#[test]
fn a_handler_gets_its_task() {
    let host = MockHost::new(plugin());
    assert_eq!(
        host.run("about", "").unwrap(),
        b"mock-task about 1/5 60s [] false"
    );
    let host = host.id("7").attempt(2, 2).timeout(Duration::from_secs(1));
    let host = host.metadata("k", "first").metadata("k", "v");
    assert_eq!(
        host.run("about", "").unwrap(),
        br#"7 about 2/2 1s [("k", "v")] true"#
    );
}

#[test]
fn each_host_has_its_own_configuration() {
    let host = MockHost::new(plugin()).config("n", "7").config("x", "?");
    assert_eq!(host.run("config", "n").unwrap(), b"Some(7)");
    assert_eq!(host.run("config", "other").unwrap(), b"None");
    let error = host.run("config", "x").unwrap_err();
    let message = "config `x` = \"?\": invalid digit found in string";
    assert_eq!(error, TaskError::retryable(message));

    assert_eq!(MockHost::new(plugin()).run("config", "n").unwrap(), b"None");
    assert_eq!(config::get("n"), Ok(None));
}

#[test]
fn log_records_are_kept_in_order() {
    let host = MockHost::new(plugin());
    host.run("config", "a").unwrap();
    log::error!("outside a host");
    host.run("config", "b").unwrap();
    let line = |message: &str| LogLine {
        level: log::Level::Warn,
        target: "t".to_owned(),
        message: message.to_owned(),
    };
    assert_eq!(host.logs(), [line("reading a"), line("reading b")]);
}

#[test]
fn progress_is_recorded_until_the_task_is_cancelled() {
    let host = MockHost::new(plugin());
    host.run("steps", "").unwrap();
    let report = |done: u64| Progress {
        done,
        total: 5,
        note: format!("step {done}"),
    };
    assert_eq!(host.progress(), (0..5).map(report).collect::<Vec<_>>());
    let host = MockHost::new(plugin()).cancel_after(2);
    // Each task is cancelled anew.
    for _ in 0..2 {
        let error = host.run("steps", "").unwrap_err();
        assert_eq!(error, TaskError::retryable("stopped"));
    }
    assert_eq!(host.progress(), [0, 1, 2, 0, 1, 2].map(report));
    let at_once = MockHost::new(plugin()).cancel_after(0);
    assert!(at_once.run("steps", "").is_err());
    assert_eq!(at_once.progress(), [report(0)]);
}

#[test]
fn a_note_is_cut_as_by_a_node() {
    let note = "é".repeat(200);
    let report = move |(), task: &Task| task.progress(1, 0, &note);
    let host = MockHost::new(Plugin::new("p", "1", "").with(task("report", report)));
    host.run("report", "").unwrap();
    assert_eq!(host.progress()[0].note, "é".repeat(128));
}

#[test]
fn a_panic_restores_the_previous_host() {
    let host = MockHost::new(plugin()).config("n", "7");
    assert!(catch_unwind(AssertUnwindSafe(|| host.run("panic", ""))).is_err());
    assert_eq!(config::get("n"), Ok(None));
    assert_eq!(host.run("config", "n").unwrap(), b"Some(7)");
}

#[test]
fn an_unknown_task_type_is_a_permanent_error() {
    assert_eq!(
        MockHost::new(plugin()).run("abuot", ""),
        Err(TaskError::permanent(
            "plugin mocked has no task type `abuot`"
        ))
    );
}

#[test]
#[should_panic(expected = "task type \"about\" is declared twice")]
fn an_invalid_plugin_does_not_run() {
    MockHost::new(plugin().with(task("about", |()| ())));
}

#[test]
fn tracing_events_are_logged_and_span_transitions_are_not() {
    #[tracing::instrument]
    fn inner(number: u32) {
        tracing::warn!(number, "inside");
    }
    let plugin = Plugin::new("p", "1", "").with(task("trace", |()| {
        let _span = tracing::info_span!("outer").entered();
        inner(7);
    }));
    let host = MockHost::new(plugin);
    host.run("trace", "").unwrap();
    let logs = host.logs();
    let logs: Vec<_> = logs
        .iter()
        .map(|line| (line.level, &*line.message))
        .collect();
    assert_eq!(
        logs,
        [
            (log::Level::Info, "inner; number=7"),
            (log::Level::Warn, "inside number=7"),
        ]
    );
}
