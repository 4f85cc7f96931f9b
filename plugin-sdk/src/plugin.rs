//! A plugin: its identity, its task types and its component. The `plugin!` macro creates it; the
//! bindings in the sandbox and the mock host run it through the same functions.

use crate::component::{Component, Declared, Instance};
use crate::{Result, Task, TaskError, TaskType};
use std::time::Duration;

// The limits of the node's `plugin/manifest.rs`.
const MAX_TASK_TYPES: usize = 256;
const MAX_TOPICS: usize = 256;
const MAX_VERSION_BYTES: usize = 64;
const MAX_DESCRIPTION_BYTES: usize = 1024;
/// The longest delay between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A plugin: its identity, its task types and its component.
#[derive(Debug)]
pub struct Plugin {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) description: &'static str,
    pub(crate) task_types: Vec<TaskType>,
    component: Option<Declared>,
}

impl Plugin {
    /// Creates a plugin without task types and component. The rule for task type names applies to
    /// `name`.
    pub fn new(name: &'static str, version: &'static str, description: &'static str) -> Self {
        Self {
            name,
            version,
            description,
            task_types: Vec::new(),
            component: None,
        }
    }

    /// Adds a task type.
    pub fn with(mut self, task_type: TaskType) -> Self {
        self.task_types.push(task_type);
        self
    }

    /// Sets the component to `C`. A plugin has at most one; its id is the plugin's name.
    pub fn with_component<C: Component>(self) -> Self {
        Self {
            component: Some(Declared::of::<C>()),
            ..self
        }
    }

    /// Returns the name of the plugin.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Returns the version of the plugin.
    pub fn version(&self) -> &str {
        self.version
    }

    /// Returns the description of the plugin.
    pub fn description(&self) -> &str {
        self.description
    }

    /// Returns the names of the task types, in the order in which they were added.
    pub fn task_types(&self) -> impl Iterator<Item = &str> {
        self.task_types.iter().map(|task_type| task_type.name)
    }

    /// Returns the topics that the component subscribes to besides the plugin's name.
    pub fn topics(&self) -> &'static [&'static str] {
        self.component.map_or(&[], |component| component.topics)
    }

    /// Starts an instance of the component.
    pub(crate) fn start(&self) -> Result<Box<dyn Instance>> {
        let no_component =
            || TaskError::permanent(format!("plugin {} has no component", self.name));
        (self.component.ok_or_else(no_component)?.start)()
    }

    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn has_component(&self) -> bool {
        self.component.is_some()
    }

    /// Runs one attempt: finds the handler, decodes the payload, calls the handler and encodes the
    /// result.
    pub(crate) fn run(&self, payload: Vec<u8>, task: &Task) -> Result<Vec<u8>> {
        let name = task.task_type();
        let found = self.task_types.iter().find(|known| known.name == name);
        let Some(task_type) = found else {
            return Err(TaskError::permanent(format!(
                "plugin {} has no task type `{name}`",
                self.name
            )));
        };
        (task_type.run)(payload, task)
    }

    /// Checks the plugin against the rules of a node. `plugin!` adds a test that calls this.
    ///
    /// # Errors
    ///
    /// Returns all reasons why a node would reject the plugin, one a line.
    pub fn check(&self) -> Result<(), String> {
        let mut faults = Vec::new();
        if let Some(fault) = name_fault(self.name) {
            faults.push(format!("plugin name {:?} {fault}", self.name));
        }
        let version = version_fault(self.version);
        faults.extend(version.map(|fault| format!("the plugin {fault}")));
        let description = description_fault(self.description);
        faults.extend(description.map(|fault| format!("the plugin {fault}")));
        if self.task_types.is_empty() && self.component.is_none() {
            faults.push("the plugin has neither a task type nor a component".to_owned());
        }
        if self.task_types.len() > MAX_TASK_TYPES {
            faults.push("the plugin has more than 256 task types".to_owned());
        }
        for (index, task_type) in self.task_types.iter().enumerate() {
            let name = task_type.name;
            if self.task_types().take(index).any(|other| other == name) {
                faults.push(format!("task type {name:?} is declared twice"));
            }
            let all = task_type_faults(task_type);
            faults.extend(all.map(|fault| format!("task type {name:?} {fault}")));
        }
        faults.extend(self.topic_faults());
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults.join("\n"))
        }
    }

    fn topic_faults(&self) -> Vec<String> {
        let topics = self.topics();
        let mut faults = Vec::new();
        if topics.len() > MAX_TOPICS {
            faults.push("the component subscribes to more than 256 topics".to_owned());
        }
        for (index, &topic) in topics.iter().enumerate() {
            if let Some(fault) = name_fault(topic) {
                faults.push(format!("topic {topic:?} {fault}"));
            } else if topics[..index].contains(&topic) {
                faults.push(format!("topic {topic:?} is declared twice"));
            } else if topic == self.name {
                faults.push(format!("topic {topic:?} is the name of the component"));
            }
        }
        faults
    }
}

fn task_type_faults(task_type: &TaskType) -> impl Iterator<Item = &'static str> {
    // The contract has whole milliseconds, so a shorter time would become zero.
    let no_time = |time: Duration| time < Duration::from_millis(1);
    let in_ms = |(initial, max): (Duration, Duration)| (initial.as_millis(), max.as_millis());
    let backoff = task_type.backoff.map(in_ms);
    let too_long = backoff.is_some_and(|(initial, max)| initial.max(max) > MAX_BACKOFF.as_millis());
    let backoff = backoff.filter(|(initial, max)| initial > max);
    [
        name_fault(task_type.name),
        description_fault(task_type.description),
        (task_type.timeout.is_some_and(no_time)).then_some("has a timeout below a millisecond"),
        (task_type.attempts == Some(0)).then_some("has no attempts"),
        (backoff.is_some()).then_some("has an initial backoff above its maximum"),
        too_long.then_some("has a backoff of more than 7 days"),
        (task_type.concurrency == Some(0)).then_some("has no concurrency"),
    ]
    .into_iter()
    .flatten()
}

/// Checks the rule of `hostel.wit` for names.
pub(crate) fn name_fault(name: &str) -> Option<&'static str> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:-".contains(byte);
    if name.is_empty() || name.len() > 128 {
        Some("is not 1 to 128 bytes long")
    } else if !name.as_bytes().iter().all(allowed) {
        Some("has a character other than A-Z a-z 0-9 . _ : -")
    } else if !name.as_bytes()[0].is_ascii_alphanumeric() {
        Some("does not begin with a letter or a digit")
    } else {
        None
    }
}

fn version_fault(version: &str) -> Option<&'static str> {
    if version.is_empty() {
        Some("has no version")
    } else if version.len() > MAX_VERSION_BYTES {
        Some("has a version of more than 64 bytes")
    } else if version.contains(|c: char| is_unprintable(c) || c.is_whitespace()) {
        Some("has a version with white space or control characters")
    } else {
        None
    }
}

fn description_fault(description: &str) -> Option<&'static str> {
    if description.len() > MAX_DESCRIPTION_BYTES {
        Some("has a description of more than 1024 bytes")
    } else if description.contains(is_unprintable) {
        Some("has a description with line breaks or control characters")
    } else {
        None
    }
}

/// Applies the node's rule: control characters, line separators and Unicode format characters are
/// unprintable.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests;
