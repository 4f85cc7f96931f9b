//! What the calls of one input are given: values of any kind that the types allow.

use hostel::{
    queue::{LeaseRequest, RequestedType, RequestedTypes},
    task::{
        Action, GroupLimits, Limits, Name, Outcome, Priority, Rate, Resources, Start, Submission,
        SubmissionLimits, Target, TaskOptions, Unique, UnixMs,
    },
};
use hostel_fuzz::Choices;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Names that a script could take for something else.
const NAMES: [&str; 10] = [
    "a",
    "b",
    "order:4711",
    "0x10",
    "nan",
    "inf",
    "1e308",
    "a__",
    "p",
    "r:x",
];

/// A name, mostly one that a script could take for something else.
pub fn name(choices: &mut Choices<'_>) -> Name {
    let sample = *choices.one_of(&NAMES);
    let given = if choices.below(8) == 7 {
        choices.near_text(&[sample])
    } else {
        sample.to_owned()
    };
    let name = Name::parse("name", &given).or_else(|_| Name::parse("name", sample));
    name.expect("a sound name")
}

/// A text of a guest or a client.
pub fn text(choices: &mut Choices<'_>) -> String {
    choices.near_text(&[
        "",
        "why",
        "two\nlines \u{1b}[2J",
        "{\"a\":\"\\u0000\"}",
        "nil",
    ])
}

/// What an operator does to tasks.
pub fn action(choices: &mut Choices<'_>) -> Action {
    match choices.below(6) {
        0 => Action::Cancel(None),
        1 => Action::Cancel(Some(text(choices).into())),
        2 => Action::Requeue,
        3 => Action::Purge,
        4 => Action::SetPriority(*choices.one_of(&Priority::ALL)),
        _ => Action::RunNow,
    }
}

/// A time of any length.
pub fn time(choices: &mut Choices<'_>) -> Duration {
    if choices.below(8) == 7 {
        return Duration::MAX;
    }
    Duration::from_millis(choices.number())
}

/// A number of any size.
pub fn count(choices: &mut Choices<'_>) -> usize {
    usize::try_from(choices.number()).unwrap_or(usize::MAX)
}

/// A target.
fn target(choices: &mut Choices<'_>) -> Target {
    match choices.below(4) {
        2 => Target::Node(name(choices)),
        3 => Target::Label(name(choices)),
        _ => Target::Any,
    }
}

/// A task.
pub fn submission(choices: &mut Choices<'_>) -> Submission {
    let limits = SubmissionLimits {
        payload_bytes: usize::MAX,
        metadata_entries: usize::MAX,
        metadata_bytes: usize::MAX,
    };
    let metadata = (0..choices.below(3)).map(|_| (format!("k{}", text(choices)), text(choices)));
    let metadata = metadata.collect();
    let payload = choices
        .near(&[b"", b"payload", b"\0\xff\r\n$-1\r\n"])
        .into();
    let (id, task_type) = (name(choices), name(choices));
    let task = Submission::new(id.as_str(), task_type.as_str(), payload, metadata, &limits);
    let task = task.expect("a sound task").to(target(choices));
    if choices.flag() {
        return task;
    }
    task.with(options(choices))
}

/// Options of a task.
fn options(choices: &mut Choices<'_>) -> TaskOptions {
    TaskOptions {
        start: match choices.below(4) {
            0 => Start::After(time(choices)),
            1 => Start::At(UnixMs(choices.number())),
            _ => Start::Now,
        },
        start_by: choices.maybe(|choices| UnixMs(choices.number())),
        timeout: choices.maybe(time),
        max_attempts: None,
        backoff_initial: None,
        backoff_max: choices.maybe(time),
        result_ttl: choices.maybe(time),
        priority: *choices.one_of(&Priority::ALL),
        group: choices.maybe(name),
        tags: (0..choices.below(3)).map(|_| name(choices)).collect(),
        unique: choices.maybe(|choices| Unique {
            key: name(choices),
            time: choices.maybe(time),
        }),
    }
}

/// An amount of each resource.
fn resources(choices: &mut Choices<'_>) -> Resources {
    Resources {
        memory_bytes: count(choices),
        pool_slots: count(choices),
    }
}

fn rate(choices: &mut Choices<'_>) -> Rate {
    let rates = ["1/s", "1000000/s burst 1000000", "1/d"];
    choices.one_of(&rates).parse().unwrap()
}

/// The limits of each group.
fn groups(choices: &mut Choices<'_>) -> Arc<GroupLimits> {
    let each = Limits {
        max_concurrency: choices.maybe(count),
        max_cluster_concurrency: choices.maybe(count),
        max_rate: choices.maybe(rate),
        max_pending: None,
    };
    let named = HashMap::new();
    Arc::new(GroupLimits { each, named })
}

/// A lease request.
pub fn request(choices: &mut Choices<'_>) -> LeaseRequest {
    let requested = (0..choices.below(4)).map(|_| {
        let requested = RequestedType {
            max: count(choices),
            max_cluster_concurrency: choices.maybe(count),
            max_rate: choices.maybe(rate),
            groups: choices.maybe(groups),
            needs: choices.maybe(resources).unwrap_or_default(),
        };
        (name(choices), requested)
    });
    let types: RequestedTypes = requested.collect();
    LeaseRequest {
        node: name(choices),
        labels: (0..choices.below(3)).map(|_| name(choices)).collect(),
        types: types.into(),
        remaining: (0..choices.below(3))
            .map(|_| (name(choices), count(choices)))
            .collect(),
        only: choices.maybe(name),
        available: choices.maybe(resources).unwrap_or(Resources::UNLIMITED),
        max: count(choices),
        allow_suspect: choices.flag(),
        ttl: time(choices),
    }
}

/// The outcome of an attempt.
pub fn outcome(choices: &mut Choices<'_>) -> Outcome {
    let error = text(choices);
    match choices.below(6) {
        0 => Outcome::Completed {
            result: choices.near(&[b"", b"result", b"\0\xff"]).into(),
        },
        1 => Outcome::Retry {
            after: time(choices),
            error,
        },
        2 => Outcome::Failed { error },
        3 => Outcome::Cancelled,
        4 => Outcome::Released,
        _ => Outcome::Lost {
            after: time(choices),
            error,
        },
    }
}
