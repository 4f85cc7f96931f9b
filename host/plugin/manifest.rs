//! What a plugin says about itself, checked: every fault at once. Pure; the operator's settings are
//! already applied to what comes out.

use super::{Fault, bindings::manifest, text::is_unprintable};
use crate::{
    config::{self, TaskTypeOverrides},
    task::{Name, RetryPolicy},
};
use std::{collections::BTreeSet, time::Duration};

const MAX_TASK_TYPES: usize = 256;
const MAX_VERSION_BYTES: usize = 64;
const MAX_DESCRIPTION_BYTES: usize = 1024;

/// A task type with the limits in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskType {
    pub name: Name,
    pub description: String,
    /// Wall-clock time of one attempt.
    pub timeout: Duration,
    pub retry: RetryPolicy,
    /// How many tasks of the type this node runs at once.
    pub max_concurrency: Option<usize>,
}

/// A manifest without faults.
#[derive(Debug)]
pub struct Manifest {
    pub name: Name,
    pub version: String,
    pub description: String,
    pub task_types: Vec<TaskType>,
}

/// `has_handler` says whether the plugin exports task-handler.
pub fn check(
    given: manifest::Description,
    has_handler: bool,
    config: &config::Config,
) -> Result<Manifest, Vec<Fault>> {
    let mut faults = Vec::new();
    let name = Name::parse("the plugin's name", &given.name)
        .map_err(|error| faults.push(Fault::new(format!("manifest: {error}"))))
        .ok();
    check_version(&given.version, &mut faults);
    check_description("the plugin", &given.description, &mut faults);
    if given.task_types.len() > MAX_TASK_TYPES {
        faults.push(Fault::new(format!(
            "manifest: {} task types; at most {MAX_TASK_TYPES} are allowed",
            given.task_types.len()
        )));
    }
    if given.task_types.is_empty() {
        faults.push(Fault::new("manifest: declares no task types"));
    } else if !has_handler {
        faults.push(Fault::new(
            "declares task types but does not export hostel:plugin/task-handler@0.1.0",
        ));
    }
    if !given.topics.is_empty() {
        faults.push(Fault::new(
            "manifest: names topics, but has no component to listen to them",
        ));
    }
    for topic in given.topics.iter().take(MAX_TASK_TYPES) {
        if let Err(error) = Name::parse("topic", topic) {
            faults.push(Fault::new(format!("manifest: {error}")));
        }
    }

    let section = name.as_ref().and_then(|name| config.plugin.get(name));
    let mut seen = BTreeSet::new();
    let mut task_types = Vec::new();
    for declared in given.task_types.into_iter().take(MAX_TASK_TYPES) {
        let overrides = section
            .and_then(|section| section.task.get(declared.name.as_str()))
            .cloned()
            .unwrap_or_default();
        if !seen.insert(declared.name.clone()) {
            let twice = format!("manifest: task type {:?} is declared twice", declared.name);
            faults.push(Fault::new(twice));
            continue;
        }
        let timeout = config.plugins.sandbox.timeout;
        task_types.extend(task_type(declared, &overrides, timeout, &mut faults));
    }
    match name {
        Some(name) if faults.is_empty() => Ok(Manifest {
            name,
            version: given.version,
            description: given.description,
            task_types,
        }),
        _ => Err(faults),
    }
}

fn check_version(version: &str, faults: &mut Vec<Fault>) {
    if version.is_empty() {
        faults.push(Fault::new("manifest: the version is empty"));
    } else if version.len() > MAX_VERSION_BYTES {
        let length = version.len();
        faults.push(Fault::new(format!(
            "manifest: the version has {length} bytes; at most {MAX_VERSION_BYTES} are allowed"
        )));
    } else if version.contains(|c: char| is_unprintable(c) || c.is_whitespace()) {
        faults.push(Fault::new(format!(
            "manifest: the version {version:?} has blanks or control characters"
        )));
    }
}

fn check_description(of: &str, description: &str, faults: &mut Vec<Fault>) {
    if description.len() > MAX_DESCRIPTION_BYTES {
        let length = description.len();
        faults.push(Fault::new(format!(
            "manifest: the description of {of} has {length} bytes; at most {MAX_DESCRIPTION_BYTES} are allowed"
        )));
    } else if description.contains(is_unprintable) {
        faults.push(Fault::new(format!(
            "manifest: the description of {of} has line breaks or control characters; it has to be one line"
        )));
    }
}

fn task_type(
    declared: manifest::TaskType,
    overrides: &TaskTypeOverrides,
    default_timeout: Duration,
    faults: &mut Vec<Fault>,
) -> Option<TaskType> {
    let before = faults.len();
    let name = Name::parse("task type", &declared.name)
        .map_err(|error| faults.push(Fault::new(format!("manifest: {error}"))))
        .ok()?;
    let of = format!("task type {name}");
    check_description(&of, &declared.description, faults);
    let zeroes = [
        ("timeout-ms", declared.timeout_ms == Some(0)),
        ("max-attempts", declared.max_attempts == Some(0)),
        ("max-concurrency", declared.max_concurrency == Some(0)),
    ];
    for (field, _) in zeroes.iter().filter(|(_, zero)| *zero) {
        faults.push(Fault::new(format!("manifest: {of}: {field} is 0")));
    }
    let default = RetryPolicy::default();
    let ms = |given: Option<u64>| given.map(Duration::from_millis);
    let initial = ms(declared.backoff_initial_ms);
    let max = ms(declared.backoff_max_ms);
    if let (Some(initial), Some(max)) = (initial, max)
        && initial > max
    {
        faults.push(Fault::new(format!(
            "manifest: {of}: backoff-initial-ms is more than backoff-max-ms"
        )));
    }
    let backoff_initial = overrides.backoff_initial.or(initial);
    let backoff_initial = backoff_initial.unwrap_or(default.backoff_initial);
    let backoff_max = overrides.backoff_max.or(max);
    let concurrency = declared
        .max_concurrency
        .map(|max| usize::try_from(max).unwrap_or(usize::MAX));
    let task_type = TaskType {
        name,
        description: declared.description,
        timeout: overrides
            .timeout
            .or(ms(declared.timeout_ms))
            .unwrap_or(default_timeout),
        retry: RetryPolicy {
            max_attempts: overrides
                .max_attempts
                .or(declared.max_attempts)
                .unwrap_or(default.max_attempts),
            backoff_initial,
            backoff_max: backoff_max.unwrap_or(default.backoff_max.max(backoff_initial)),
        },
        max_concurrency: overrides.max_concurrency.or(concurrency),
    };
    (faults.len() == before).then_some(task_type)
}
