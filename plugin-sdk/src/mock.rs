//! A host for native tests: runs handlers as the sandbox does, from bytes to bytes, with a given
//! task, configuration and a captured log. It has none of the sandbox's limits, and no queue:
//! whether a failed attempt is tried again is the node's affair.

use crate::{Plugin, Result, Task, logger};
use std::cell::RefCell;
use std::collections::HashMap;
use std::mem;
use std::time::Duration;

/// Runs the tasks of one plugin. What is set before a run holds for all runs after it.
///
/// A handler that panics panics through [`run`](Self::run); in the node it would be a failed
/// attempt.
pub struct MockHost {
    plugin: Plugin,
    config: HashMap<String, String>,
    task: Task,
    logs: RefCell<Vec<LogLine>>,
}

/// A line that a handler logged through the `log` crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub level: log::Level,
    /// The module that logged, or the target that it named.
    pub target: String,
    pub message: String,
}

impl MockHost {
    /// A host without configuration, for tasks without metadata in their first of 5 attempts, with
    /// a timeout of 60 s. Panics if a node would refuse the plugin.
    pub fn new(plugin: Plugin) -> Self {
        if let Err(faults) = plugin.check() {
            panic!("the node would refuse this plugin:\n{faults}");
        }
        Self {
            plugin,
            config: HashMap::new(),
            task: Task {
                id: "mock-task".to_owned(),
                task_type: String::new(),
                metadata: Vec::new(),
                attempt: 1,
                max_attempts: 5,
                timeout: Duration::from_secs(60),
            },
            logs: RefCell::default(),
        }
    }

    /// Sets what [`config::get`](crate::config::get) answers for `key`.
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }

    /// Sets the id of the tasks; it is `mock-task` otherwise.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.task.id = id.into();
        self
    }

    /// Sets one metadata entry of the tasks.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into();
        self.task.metadata.retain(|(other, _)| *other != key);
        self.task.metadata.push((key, value.into()));
        self
    }

    /// Runs tasks as attempt number `attempt`, from 1, of `max`.
    pub fn attempt(mut self, attempt: u32, max: u32) -> Self {
        self.task.attempt = attempt;
        self.task.max_attempts = max;
        self
    }

    /// Sets what a handler reads as its timeout. Nothing interrupts it here.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.task.timeout = timeout;
        self
    }

    /// Runs one task, from the bytes of its payload to the bytes of its result.
    pub fn run(&self, task_type: &str, payload: impl Into<Vec<u8>>) -> Result<Vec<u8>> {
        let task = Task {
            task_type: task_type.to_owned(),
            ..self.task.clone()
        };
        logger::install();
        let inside = Inside::enter(self);
        let result = self.plugin.run(payload.into(), &task);
        drop(inside);
        result
    }

    /// What the runs so far have logged, in order.
    pub fn logs(&self) -> Vec<LogLine> {
        self.logs.borrow().clone()
    }
}

/// What a running handler can reach. It belongs to the thread, because the functions that handlers
/// call take no host, and tests run side by side.
#[derive(Default)]
struct Surroundings {
    config: HashMap<String, String>,
    /// `None` outside of a run: what is logged there is nobody's.
    logs: Option<Vec<LogLine>>,
}

thread_local! {
    static CURRENT: RefCell<Surroundings> = RefCell::default();
}

/// Puts a host's surroundings in place and takes them away again, after a panic too.
struct Inside<'a> {
    host: &'a MockHost,
    outer: Surroundings,
}

impl<'a> Inside<'a> {
    fn enter(host: &'a MockHost) -> Self {
        let inner = Surroundings {
            config: host.config.clone(),
            logs: Some(Vec::new()),
        };
        let outer = CURRENT.replace(inner);
        Self { host, outer }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let inner = CURRENT.replace(mem::take(&mut self.outer));
        let lines = inner.logs.unwrap_or_default();
        self.host.logs.borrow_mut().extend(lines);
    }
}

pub(crate) fn current_config(key: &str) -> Option<String> {
    CURRENT.with_borrow(|current| current.config.get(key).cloned())
}

pub(crate) fn capture(record: &log::Record<'_>) {
    // Formatted first: what is being logged may itself read the configuration.
    let line = LogLine {
        level: record.level(),
        target: record.target().to_owned(),
        message: record.args().to_string(),
    };
    CURRENT.with_borrow_mut(|current| {
        if let Some(logs) = &mut current.logs {
            logs.push(line);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TaskError, config, task};
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
    }

    #[test]
    fn a_handler_sees_its_task() {
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
    fn configuration_belongs_to_the_host_that_runs() {
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
    fn what_is_logged_is_kept_in_order() {
        let host = MockHost::new(plugin());
        host.run("config", "a").unwrap();
        log::error!("nobody's");
        host.run("config", "b").unwrap();
        let line = |message: &str| LogLine {
            level: log::Level::Warn,
            target: "t".to_owned(),
            message: message.to_owned(),
        };
        assert_eq!(host.logs(), [line("reading a"), line("reading b")]);
    }

    #[test]
    fn a_panic_leaves_nothing_behind() {
        let host = MockHost::new(plugin()).config("n", "7");
        assert!(catch_unwind(AssertUnwindSafe(|| host.run("panic", ""))).is_err());
        assert_eq!(config::get("n"), Ok(None));
        assert_eq!(host.run("config", "n").unwrap(), b"Some(7)");
    }

    #[test]
    fn an_unknown_type_is_a_permanent_error() {
        assert_eq!(
            MockHost::new(plugin()).run("abuot", ""),
            Err(TaskError::permanent(
                "plugin mocked has no task type `abuot`"
            ))
        );
    }

    #[test]
    #[should_panic(expected = "task type \"about\" is there twice")]
    fn a_plugin_that_the_node_would_refuse_does_not_run() {
        MockHost::new(plugin().with(task("about", |()| ())));
    }
}
