//! How a task is written in its hash, and read back. The fields are told in `script/common.lua`.
//! Sends nothing.

use super::super::Error;
use bytes::Bytes;
use hostel_task::{
    ErrorClass, ExecutedBy, Name, Route, State, StateKind, Submission, Target, Task, TaskId, UnixMs,
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap, str::FromStr, sync::Arc};

/// What a listing reads, in the order of `task`; so does `list.lua`.
pub(super) const FIELDS: [&str; 14] = [
    "m", "s", "t", "u", "a", "b", "n", "k", "e", "w", "z", "d", "l", "v",
];

/// What else there is to a task: payload and result.
pub(super) const BULK: [&str; 2] = ["p", "r"];

type Text = Option<Vec<u8>>;

/// Field `m`. The same for the same task, since two submissions are compared by it.
#[derive(Serialize, Deserialize)]
struct Asked<'a> {
    lane: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "is_empty")]
    metadata: Cow<'a, BTreeMap<String, String>>,
}

fn is_empty(metadata: &BTreeMap<String, String>) -> bool {
    metadata.is_empty()
}

/// What was asked for, without the payload.
pub(super) struct Head {
    pub task_type: Name,
    pub target: Target,
    pub metadata: Arc<BTreeMap<String, String>>,
}

pub(super) fn write_head(task: &Submission, lane: &str) -> String {
    let asked = Asked {
        lane: lane.into(),
        metadata: Cow::Borrowed(task.metadata().as_ref()),
    };
    // Texts always have a JSON form.
    serde_json::to_string(&asked).unwrap_or_default()
}

pub(super) fn read_head(id: &str, stored: &[u8]) -> Result<Head, Error> {
    let asked: Asked<'_> = serde_json::from_slice(stored)
        .map_err(|error| corrupt(id, &format!("what was asked for: {error}")))?;
    let lane = Route::parse(&asked.lane);
    let Route { task_type, target } = lane.ok_or_else(|| corrupt(id, "its lane"))?;
    Ok(Head {
        task_type,
        target,
        metadata: Arc::new(asked.metadata.into_owned()),
    })
}

/// Field `w`: node, plugin, version.
pub(super) fn write_executed_by(executed_by: Option<&ExecutedBy>) -> String {
    let texts = executed_by.map(|by| [by.node.as_str(), by.plugin.as_str(), &by.plugin_version]);
    texts.map_or_else(String::new, |texts| {
        serde_json::to_string(&texts).unwrap_or_default()
    })
}

fn read_executed_by(stored: &[u8]) -> Option<ExecutedBy> {
    let [node, plugin, version]: [String; 3] = serde_json::from_slice(stored).ok()?;
    Some(ExecutedBy {
        node: Name::parse("node", &node).ok()?,
        plugin: Name::parse("plugin", &plugin).ok()?,
        plugin_version: version.into(),
    })
}

pub(super) fn letter(state: StateKind) -> char {
    match state {
        StateKind::Pending => 'p',
        StateKind::Running => 'r',
        StateKind::Completed => 'c',
        StateKind::Failed => 'f',
        StateKind::Cancelled => 'x',
    }
}

/// Reads what `letter` wrote.
pub(super) fn state(written: impl AsRef<[u8]>) -> Option<StateKind> {
    let first = char::from(*written.as_ref().first()?);
    StateKind::ALL
        .into_iter()
        .find(|&state| letter(state) == first)
}

/// Reads the values of `FIELDS`, and of `BULK` where they follow. `None` when there is no such task.
/// One whose record is damaged looks as it will once a script has come across it: it has failed.
pub(super) fn task(id: TaskId, values: Vec<Text>) -> Option<Task> {
    if values.iter().all(Option::is_none) {
        return None;
    }
    let known = [0, 2, 3, 8, 11, 12].map(|field| values.get(field).cloned().flatten());
    let task = sound(id.clone(), values);
    Some(task.unwrap_or_else(|error| damaged(id, known, &error)))
}

/// What a task looks like where something else than a record is in its place.
pub(super) fn unreadable(id: TaskId, error: &Error) -> Task {
    damaged(id, Default::default(), error)
}

/// What can be told of a task whose record is damaged, from its head, its times, its error with its class,
/// and its lane.
fn damaged(id: TaskId, known: [Text; 6], error: &Error) -> Task {
    let [head, submitted_at, at, told, class, lane] = known;
    let head = head.and_then(|head| read_head(id.as_str(), &head).ok());
    let lane = lane.and_then(|lane| Route::parse(std::str::from_utf8(&lane).ok()?));
    let lane = match &head {
        Some(head) => Some((head.task_type.clone(), head.target.clone())),
        None => lane.map(|lane| (lane.task_type, lane.target)),
    };
    // An id is a name too, and there has to be a type.
    let (task_type, target) = lane.unwrap_or_else(|| (id.clone(), Target::Any));
    let submitted_at = parse(submitted_at).map_or(UnixMs(0), UnixMs);
    let told = class
        .and(told)
        .map(|text| String::from_utf8_lossy(&text).into_owned());
    Task {
        id,
        task_type,
        target,
        payload: Bytes::new(),
        metadata: head.map(|head| head.metadata).unwrap_or_default(),
        submitted_at,
        state: State::Failed {
            started_at: None,
            finished_at: parse(at).map_or(submitted_at, UnixMs),
        },
        attempt: 0,
        error: Some(told.unwrap_or_else(|| format!("its record is damaged: {error}"))),
        error_class: Some(ErrorClass::Corrupt),
        executed_by: None,
        losses: 0,
        finishes: 1,
    }
}

fn sound(id: TaskId, values: Vec<Text>) -> Result<Task, Error> {
    let mut values = values.into_iter();
    let mut next = || values.next().flatten();
    let (Some(head), Some(letter)) = (next(), next()) else {
        return Err(corrupt(id.as_str(), "what was asked for, or its state,"));
    };
    let head = read_head(id.as_str(), &head)?;
    let kind = state(letter);
    let kind = kind.ok_or_else(|| corrupt(id.as_str(), "its state"))?;
    let number = |what: &str, text: Text| -> Result<u64, Error> {
        parse(text).ok_or_else(|| corrupt(id.as_str(), what))
    };
    let submitted_at = UnixMs(number("when it was submitted", next())?);
    let at = UnixMs(number("its time", next())?);
    let attempt = number("its attempt", next())?;
    let started_at = parse(next()).map(UnixMs);
    let node = next();
    let cancel_requested = next().is_some();
    let error = next().map(|text| String::from_utf8_lossy(&text).into_owned());
    let executed_by = next().and_then(|text| read_executed_by(&text));
    let finishes = number("its endings", next())?;
    let error_class = next().map(|_| ErrorClass::Corrupt);
    let _lane = next();
    let losses = parse(next()).unwrap_or(0);
    let payload = Bytes::from(next().unwrap_or_default());
    let result = Bytes::from(next().unwrap_or_default());
    let begun = || started_at.ok_or_else(|| corrupt(id.as_str(), "when it began"));
    let state = match kind {
        StateKind::Pending => State::Pending { due_at: at },
        StateKind::Running => State::Running {
            node: node
                .and_then(|text| Name::parse("node", std::str::from_utf8(&text).ok()?).ok())
                .ok_or_else(|| corrupt(id.as_str(), "its node"))?,
            started_at: begun()?,
            lease_until: at,
            cancel_requested,
        },
        StateKind::Completed => State::Completed {
            result,
            started_at: begun()?,
            finished_at: at,
        },
        StateKind::Failed => State::Failed {
            started_at,
            finished_at: at,
        },
        StateKind::Cancelled => State::Cancelled {
            started_at,
            finished_at: at,
        },
    };
    Ok(Task {
        task_type: head.task_type,
        target: head.target,
        payload,
        metadata: head.metadata,
        submitted_at,
        state,
        attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
        error,
        error_class,
        executed_by,
        losses,
        finishes: u32::try_from(finishes).unwrap_or(u32::MAX),
        id,
    })
}

fn parse<T: FromStr>(text: Text) -> Option<T> {
    std::str::from_utf8(&text?).ok()?.parse().ok()
}

pub(super) fn corrupt(id: &str, what: &str) -> Error {
    Error::Corrupt(format!("task {id}: {what} cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_fuzz as fuzz;

    /// Each field as a script writes it, and one that is nothing of the kind.
    const SAMPLES: [&[u8]; 7] = [
        br#"{"lane":"echo@node:n","metadata":{"k":"v"}}"#,
        b"r",
        b"1795698346793",
        b"1",
        b"node-1",
        br#"["node-1","echo","1.0.0"]"#,
        b"\xff\0",
    ];

    #[test]
    fn fuzz_stored_tasks() {
        fuzz::each(|near| {
            let count = FIELDS.len() + BULK.len();
            let fields = (0..count).map(|_| near.maybe(|near| near.bytes(&SAMPLES)));
            let values: Vec<Text> = fields.collect();
            let id = TaskId::parse("id", "task").unwrap();
            // A task, one that has failed for its damage, or none.
            let is_there = values.iter().any(Option::is_some);
            assert_eq!(task(id, values).is_some(), is_there);
        });
    }

    #[test]
    fn fuzz_almost_sound_tasks() {
        let sound: [&[u8]; 13] = [
            SAMPLES[0], b"c", b"1", b"2", b"1", b"1", b"n", b"1", b"why", SAMPLES[5], b"1", b"p",
            b"r",
        ];
        fuzz::each(|near| {
            let mut values: Vec<Text> = sound.iter().map(|value| Some(value.to_vec())).collect();
            let field = near.rng().usize(..sound.len());
            values[field] = near.maybe(|near| near.bytes(&[sound[field]]));
            let _ = task(TaskId::parse("id", "task").unwrap(), values);
        });
    }
}
