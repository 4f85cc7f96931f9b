//! The manifest of a plugin: checks what the plugin declares, collects every diagnostic, and applies the
//! operator's settings. Pure.

use super::contract::{Exports, TASK_HANDLER, VERSION};
use crate::{diagnostic::Diagnostic, sandbox::bindings::manifest};
use hostel_config::{self as config, TaskTypeOverrides};
use hostel_runtime::untrusted::is_unprintable;
use hostel_task::{DeclaredLimits, GivenLimit, GivenLimits, MAX_RETRY_DELAY, Name, RetryPolicy};
use std::{collections::BTreeSet, time::Duration};

const MAX_TASK_TYPES: usize = 256;
const MAX_TOPICS: usize = 256;
const MAX_VERSION_BYTES: usize = 64;
const MAX_DESCRIPTION_BYTES: usize = 1024;

/// A task type with the limits in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskType {
    /// The name of the type.
    pub name: Name,
    /// What the plugin says of it.
    pub description: String,
    /// Wall-clock time of one attempt.
    pub timeout: Duration,
    /// How often and how soon a failed attempt is repeated.
    pub retry: RetryPolicy,
    /// Concurrency limit of the task type on this node, unless another one is set at run time.
    pub max_concurrency: Option<usize>,
    /// The limits that the plugin declares and that the configuration has. All but the concurrency on a
    /// node are the operator's alone.
    pub limits: DeclaredLimits,
}

/// A manifest without diagnostics.
#[derive(Debug)]
pub struct Manifest {
    pub name: Name,
    pub version: String,
    pub description: String,
    pub task_types: Vec<TaskType>,
    pub topics: Vec<Name>,
    /// The task types whose declared timeout was cut to `plugins.max_timeout_ms`.
    pub cut_timeouts: Vec<Name>,
}

/// Checks what a plugin declares against its exports and the configuration.
pub fn check(
    given: manifest::Description,
    exports: Exports,
    config: &config::Config,
) -> Result<Manifest, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let name = Name::parse("the plugin's name", &given.name)
        .map_err(|error| diagnostics.push(Diagnostic::new(format!("manifest: {error}"))))
        .ok();
    check_version(&given.version, &mut diagnostics);
    check_description("the plugin", &given.description, &mut diagnostics);
    if given.task_types.len() > MAX_TASK_TYPES {
        diagnostics.push(Diagnostic::new(format!(
            "manifest: {} task types; at most {MAX_TASK_TYPES} are allowed",
            given.task_types.len()
        )));
    }
    if given.task_types.is_empty() {
        if !exports.component {
            diagnostics.push(Diagnostic::new(
                "manifest: declares no task types, and there is no component",
            ));
        }
    } else if !exports.task_handler {
        diagnostics.push(Diagnostic::new(format!(
            "declares task types but does not export {TASK_HANDLER}@{VERSION}"
        )));
    }
    let topics = topics(&given, exports, &mut diagnostics);

    let section = name.as_ref().and_then(|name| config.plugin.get(name));
    let mut seen = BTreeSet::new();
    let mut task_types = Vec::new();
    let mut cut_timeouts = Vec::new();
    for declared in given.task_types.into_iter().take(MAX_TASK_TYPES) {
        let overrides = section
            .and_then(|section| section.task.get(declared.name.as_str()))
            .cloned()
            .unwrap_or_default();
        if !seen.insert(declared.name.clone()) {
            let twice = format!("manifest: task type {:?} is declared twice", declared.name);
            diagnostics.push(Diagnostic::new(twice));
            continue;
        }
        let (timeout, cut) = timeout(&declared, &overrides, &config.plugins);
        let checked = task_type(declared, &overrides, timeout, &mut diagnostics);
        let cut = checked.iter().filter(|_| cut);
        cut_timeouts.extend(cut.map(|checked| checked.name.clone()));
        task_types.extend(checked);
    }
    match name {
        Some(name) if diagnostics.is_empty() => Ok(Manifest {
            name,
            version: given.version,
            description: given.description,
            task_types,
            topics,
            cut_timeouts,
        }),
        _ => Err(diagnostics),
    }
}

fn topics(
    given: &manifest::Description,
    exports: Exports,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Name> {
    if !given.topics.is_empty() && !exports.component {
        diagnostics.push(Diagnostic::new(
            "manifest: names topics, but has no component to listen to them",
        ));
    }
    if given.topics.len() > MAX_TOPICS {
        diagnostics.push(Diagnostic::new(format!(
            "manifest: {} topics; at most {MAX_TOPICS} are allowed",
            given.topics.len()
        )));
    }
    let mut topics = BTreeSet::new();
    for topic in given.topics.iter().take(MAX_TOPICS) {
        if *topic == given.name {
            diagnostics.push(Diagnostic::new(format!(
                "manifest: topic {topic} is the plugin's own name: what is sent there is for one \
                 instance, and a topic is for all; take it from the list"
            )));
        }
        match Name::parse("topic", topic) {
            Err(error) => diagnostics.push(Diagnostic::new(format!("manifest: {error}"))),
            Ok(name) => {
                if !topics.insert(name) {
                    let twice = format!("manifest: topic {topic} is named twice");
                    diagnostics.push(Diagnostic::new(twice));
                }
            }
        }
    }
    topics.into_iter().collect()
}

fn check_version(version: &str, diagnostics: &mut Vec<Diagnostic>) {
    if version.is_empty() {
        diagnostics.push(Diagnostic::new("manifest: the version is empty"));
    } else if version.len() > MAX_VERSION_BYTES {
        let length = version.len();
        diagnostics.push(Diagnostic::new(format!(
            "manifest: the version has {length} bytes; at most {MAX_VERSION_BYTES} are allowed"
        )));
    } else if version.contains(|c: char| is_unprintable(c) || c.is_whitespace()) {
        diagnostics.push(Diagnostic::new(format!(
            "manifest: the version {version:?} has blanks or control characters"
        )));
    }
}

fn check_description(of: &str, description: &str, diagnostics: &mut Vec<Diagnostic>) {
    if description.len() > MAX_DESCRIPTION_BYTES {
        let length = description.len();
        diagnostics.push(Diagnostic::new(format!(
            "manifest: the description of {of} has {length} bytes; at most {MAX_DESCRIPTION_BYTES} are allowed"
        )));
    } else if description.contains(is_unprintable) {
        diagnostics.push(Diagnostic::new(format!(
            "manifest: the description of {of} has line breaks or control characters; it has to be one line"
        )));
    }
}

/// The timeout in force, and whether it is less than the plugin declares.
fn timeout(
    declared: &manifest::TaskType,
    overrides: &TaskTypeOverrides,
    plugins: &config::Plugins,
) -> (Duration, bool) {
    let wanted = declared.timeout_ms.map(Duration::from_millis);
    match (overrides.timeout, wanted) {
        (Some(timeout), _) => (timeout, false),
        (None, Some(wanted)) => (
            wanted.min(plugins.max_timeout),
            wanted > plugins.max_timeout,
        ),
        (None, None) => (plugins.sandbox.timeout, false),
    }
}

fn task_type(
    declared: manifest::TaskType,
    overrides: &TaskTypeOverrides,
    timeout: Duration,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<TaskType> {
    let before = diagnostics.len();
    let name = Name::parse("task type", &declared.name)
        .map_err(|error| diagnostics.push(Diagnostic::new(format!("manifest: {error}"))))
        .ok()?;
    let of = format!("task type {name}");
    check_description(&of, &declared.description, diagnostics);
    let zeroes = [
        ("timeout-ms", declared.timeout_ms == Some(0)),
        ("max-attempts", declared.max_attempts == Some(0)),
        ("max-concurrency", declared.max_concurrency == Some(0)),
    ];
    for (field, _) in zeroes.iter().filter(|(_, zero)| *zero) {
        diagnostics.push(Diagnostic::new(format!("manifest: {of}: {field} is 0")));
    }
    let default = RetryPolicy::default();
    let ms = |given: Option<u64>| given.map(Duration::from_millis);
    let initial = ms(declared.backoff_initial_ms);
    let max = ms(declared.backoff_max_ms);
    let backoffs = [("backoff-initial-ms", initial), ("backoff-max-ms", max)];
    for (field, given) in backoffs {
        if let Some(given) = given.filter(|&given| given > MAX_RETRY_DELAY) {
            let (given, most) = (given.as_millis(), MAX_RETRY_DELAY.as_millis());
            diagnostics.push(Diagnostic::new(format!(
                "manifest: {of}: {field} is {given}; at most {most} (7 days) is allowed"
            )));
        }
    }
    if let (Some(initial), Some(max)) = (initial, max)
        && initial > max
    {
        diagnostics.push(Diagnostic::new(format!(
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
        timeout,
        retry: RetryPolicy {
            max_attempts: overrides
                .max_attempts
                .or(declared.max_attempts)
                .unwrap_or(default.max_attempts),
            backoff_initial,
            backoff_max: backoff_max.unwrap_or(default.backoff_max.max(backoff_initial)),
        },
        max_concurrency: overrides.max_concurrency.or(concurrency),
        limits: DeclaredLimits {
            manifest: GivenLimits {
                max_concurrency: concurrency.map(GivenLimit::Max),
                ..GivenLimits::default()
            },
            config: overrides.limits(),
            config_group: overrides.group.limits(),
        },
    };
    (diagnostics.len() == before).then_some(task_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASKS: Exports = Exports {
        manifest: true,
        task_handler: true,
        component: false,
    };

    fn declared(name: &str, timeout_ms: u64) -> manifest::TaskType {
        manifest::TaskType {
            name: name.into(),
            description: String::new(),
            timeout_ms: Some(timeout_ms),
            max_attempts: None,
            backoff_initial_ms: None,
            backoff_max_ms: None,
            max_concurrency: None,
        }
    }

    fn plugin(task_types: Vec<manifest::TaskType>) -> manifest::Description {
        manifest::Description {
            name: "p".into(),
            version: "1".into(),
            description: String::new(),
            task_types,
            topics: Vec::new(),
        }
    }

    #[test]
    fn a_declared_timeout_is_cut_and_an_operator_may_exceed_the_limit() {
        let text = "[plugins]\nmax_timeout_ms = 1000\n[plugin.p.task.own]\ntimeout_ms = 5000";
        let config = config::Config::parse(text, std::iter::empty()).unwrap();
        let types = [("short", 10), ("long", u64::MAX), ("own", 9000)];
        let given = plugin(types.map(|(name, ms)| declared(name, ms)).into());
        let manifest = check(given, TASKS, &config).unwrap();
        let timeouts: Vec<_> = manifest
            .task_types
            .iter()
            .map(|t| t.timeout.as_millis())
            .collect();
        assert_eq!(timeouts, [10, 1000, 5000]);
        let cut: Vec<_> = manifest.cut_timeouts.iter().map(Name::as_str).collect();
        assert_eq!(cut, ["long"]);
    }

    #[test]
    fn a_backoff_of_more_than_the_longest_delay_is_refused() {
        let longest = u64::try_from(MAX_RETRY_DELAY.as_millis()).unwrap();
        let checked = |initial, max| {
            let task_type = manifest::TaskType {
                backoff_initial_ms: Some(initial),
                backoff_max_ms: Some(max),
                ..declared("t", 1)
            };
            let given = plugin(vec![task_type]);
            check(given, TASKS, &config::Config::default())
        };
        assert!(checked(longest, longest).is_ok());
        let diagnostics = checked(1, longest + 1).unwrap_err();
        assert_eq!(
            diagnostics
                .iter()
                .map(Diagnostic::to_string)
                .collect::<Vec<_>>(),
            [
                "manifest: task type t: backoff-max-ms is 604800001; at most 604800000 (7 days) is \
                 allowed"
            ]
        );
        assert_eq!(checked(u64::MAX, u64::MAX).unwrap_err().len(), 2);
    }

    #[test]
    fn a_component_needs_no_task_types_and_topics_need_a_component() {
        let component = Exports {
            component: true,
            ..TASKS
        };
        let config = config::Config::default();
        let given = |topics: &[&str]| manifest::Description {
            topics: topics.iter().map(|topic| topic.to_string()).collect(),
            ..plugin(Vec::new())
        };
        let manifest = check(given(&["b", "a"]), component, &config).unwrap();
        let topics: Vec<_> = manifest.topics.iter().map(Name::as_str).collect();
        assert_eq!(topics, ["a", "b"]);
        let diagnostics = check(given(&["a", "a", "/"]), component, &config).unwrap_err();
        assert_eq!(diagnostics.len(), 2, "{diagnostics:?}");
        let diagnostics = check(given(&["a"]), TASKS, &config).unwrap_err();
        assert_eq!(diagnostics.len(), 2, "{diagnostics:?}");
    }

    #[test]
    fn texts_that_could_forge_a_log_line_are_refused() {
        let mut given = plugin(vec![declared("t", 1)]);
        given.version = "1\x1b[2K".into();
        given.description = "good\nWARN forged".into();
        given.task_types[0].description = "a\rb".into();
        let diagnostics = check(given, TASKS, &config::Config::default()).unwrap_err();
        let diagnostics: Vec<_> = diagnostics.iter().map(Diagnostic::to_string).collect();
        assert_eq!(diagnostics.len(), 3, "{diagnostics:?}");
        assert!(
            diagnostics
                .iter()
                .all(|diagnostic| diagnostic.contains("control characters"))
        );
    }
}
