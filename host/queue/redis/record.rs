//! Encodes a task for its Redis hash and decodes it. `scripts/common.lua` documents the fields.

use super::{errors::corrupt, options};
use crate::Error;
use bytes::Bytes;
use hostel_task::{
    ErrorClass, ExecutedBy, Name, Route, State, StateKind, Submission, Target, Task, TaskId, UnixMs,
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap, str::FromStr, sync::Arc};

/// The fields of a status and of a listing, in the order of `task` and of `list.lua`. Without the head,
/// which holds metadata of any kind and only repeats the route.
pub(super) const FIELDS: [&str; 14] = [
    "s", "t", "u", "a", "b", "n", "k", "e", "w", "z", "d", "l", "v", "i",
];

/// The remaining fields of a task: result, head and payload.
pub(super) const BULK: [&str; 3] = ["r", "m", "p"];

/// The value of a field, if the hash has it.
type Text = Option<Vec<u8>>;

/// Field `m`: the submission without its payload. Two submissions are compared by it, so equal ones must
/// have equal bytes.
#[derive(Serialize, Deserialize)]
struct StoredHead<'a> {
    /// Stored under an older name.
    #[serde(rename = "lane")]
    route: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "is_empty")]
    metadata: Cow<'a, BTreeMap<String, String>>,
}

fn is_empty(metadata: &BTreeMap<String, String>) -> bool {
    metadata.is_empty()
}

/// A submission without its payload.
pub(super) struct Head {
    pub task_type: Name,
    pub target: Target,
    pub metadata: Arc<BTreeMap<String, String>>,
}

pub(super) fn write_head(task: &Submission, route: &str) -> String {
    let head = StoredHead {
        route: route.into(),
        metadata: Cow::Borrowed(task.metadata().as_ref()),
    };
    // Strings always serialize.
    serde_json::to_string(&head).unwrap_or_default()
}

pub(super) fn read_head(id: &str, stored: &[u8]) -> Result<Head, Error> {
    let head: StoredHead<'_> = serde_json::from_slice(stored)
        .map_err(|error| corrupt(id, &format!("its head ({error})")))?;
    let route = Route::parse(&head.route);
    let Route { task_type, target } = route.ok_or_else(|| corrupt(id, "its route"))?;
    Ok(Head {
        task_type,
        target,
        metadata: Arc::new(head.metadata.into_owned()),
    })
}

/// Returns what field `l` repeats of the head.
fn read_route(id: &str, stored: Text) -> Result<Head, Error> {
    let route = stored.and_then(|route| Route::parse(std::str::from_utf8(&route).ok()?));
    let Route { task_type, target } = route.ok_or_else(|| corrupt(id, "its route"))?;
    Ok(Head {
        task_type,
        target,
        metadata: Arc::default(),
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

/// Returns the letter of a state.
pub(super) fn letter(state: StateKind) -> char {
    match state {
        StateKind::Pending => 'p',
        StateKind::Running => 'r',
        StateKind::Completed => 'c',
        StateKind::Failed => 'f',
        StateKind::Cancelled => 'x',
    }
}

/// Returns the state of a letter that `letter` wrote.
pub(super) fn state(text: impl AsRef<[u8]>) -> Option<StateKind> {
    let first = char::from(*text.as_ref().first()?);
    StateKind::ALL
        .into_iter()
        .find(|&state| letter(state) == first)
}

/// Decodes the values of `FIELDS`, and of `BULK` if they follow: all of them, or the first. `None` if there
/// is no such task. A task whose record is damaged is returned as failed, which it will be once a script
/// finds it.
pub(super) fn task(id: TaskId, values: Vec<Text>) -> Option<Task> {
    if values.iter().all(Option::is_none) {
        return None;
    }
    let known = [15, 1, 2, 7, 10, 11, 13].map(|field| values.get(field).cloned().flatten());
    let task = decode(id.clone(), values);
    Some(task.unwrap_or_else(|error| damaged(id, known, &error)))
}

/// Returns a task whose key holds another type of value.
pub(super) fn unreadable(id: TaskId, error: &Error) -> Task {
    damaged(id, Default::default(), error)
}

/// Returns what is known of a task whose record is damaged, from its head, its times, its error with its
/// class, its route, and its options.
fn damaged(id: TaskId, known: [Text; 7], error: &Error) -> Task {
    let [head, submitted_at, at, text, class, route, options] = known;
    let options = options.and_then(|stored| options::read(id.as_str(), &stored).ok());
    let head = head.and_then(|head| read_head(id.as_str(), &head).ok());
    let route = route.and_then(|route| Route::parse(std::str::from_utf8(&route).ok()?));
    let route = match &head {
        Some(head) => Some((head.task_type.clone(), head.target.clone())),
        None => route.map(|route| (route.task_type, route.target)),
    };
    // A task needs a type; without a known one its id takes that place.
    let (task_type, target) = route.unwrap_or_else(|| (id.clone(), Target::Any));
    let submitted_at = parse(submitted_at).map_or(UnixMs(0), UnixMs);
    let error_text = class
        .and(text)
        .map(|text| String::from_utf8_lossy(&text).into_owned());
    Task {
        id,
        task_type,
        target,
        payload: Bytes::new(),
        metadata: head.map(|head| head.metadata).unwrap_or_default(),
        options: options.flatten(),
        submitted_at,
        state: State::Failed {
            started_at: None,
            finished_at: parse(at).map_or(submitted_at, UnixMs),
        },
        attempt: 0,
        error: Some(error_text.unwrap_or_else(|| format!("its record is damaged: {error}"))),
        error_class: Some(ErrorClass::Corrupt),
        executed_by: None,
        losses: 0,
        finishes: 1,
    }
}

/// Whether the state of a task is completed, from the values of `FIELDS`.
pub(super) fn is_completed(values: &[Text]) -> bool {
    let letter = values.first().and_then(Option::as_ref);
    letter.and_then(state) == Some(StateKind::Completed)
}

fn decode(id: TaskId, values: Vec<Text>) -> Result<Task, Error> {
    let has_head = values.len() == FIELDS.len() + BULK.len();
    let mut values = values.into_iter();
    let mut next = || values.next().flatten();
    let kind = next().and_then(state);
    let kind = kind.ok_or_else(|| corrupt(id.as_str(), "its state"))?;
    let number = |what: &str, text: Text| -> Result<u64, Error> {
        parse(text).ok_or_else(|| corrupt(id.as_str(), what))
    };
    let submitted_at = UnixMs(number("its time of submission", next())?);
    let at = UnixMs(number("its time", next())?);
    let attempt = number("its attempt", next())?;
    let started_at = parse(next()).map(UnixMs);
    let node = next();
    let cancel_requested = next().is_some();
    let error = next().map(|text| String::from_utf8_lossy(&text).into_owned());
    let executed_by = next().and_then(|text| read_executed_by(&text));
    let finishes = number("its number of ends", next())?;
    let error_class = next().map(|class| read_class(&class));
    let route = next();
    let losses = parse(next()).unwrap_or(0);
    let options = options::read(id.as_str(), &next().unwrap_or_default())?;
    let result = Bytes::from(next().unwrap_or_default());
    let head = if has_head {
        let head = next().ok_or_else(|| corrupt(id.as_str(), "its head"))?;
        read_head(id.as_str(), &head)?
    } else {
        read_route(id.as_str(), route)?
    };
    let payload = Bytes::from(next().unwrap_or_default());
    let begun = || started_at.ok_or_else(|| corrupt(id.as_str(), "its time of start"));
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
        options,
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

/// Reads field `d`.
fn read_class(stored: &[u8]) -> ErrorClass {
    let class = |class: &ErrorClass| class.as_str().as_bytes() == stored;
    let class = ErrorClass::ALL.into_iter().find(class);
    class.unwrap_or(ErrorClass::Corrupt)
}

fn parse<T: FromStr>(text: Text) -> Option<T> {
    std::str::from_utf8(&text?).ok()?.parse().ok()
}
