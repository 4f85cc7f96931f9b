//! Encodes a task for Redis and decodes it. `layout.md` documents the records.

use super::{
    attempts::{Left, Past, STEP, begun_at, parse, split_line, time_of_fence},
    errors::corrupt,
    options,
};
use crate::Error;
use bytes::Bytes;
use hostel_task::{
    AttemptHistory, ErrorClass, Name, Route, State, StateKind, Submission, Target, Task, TaskId,
    TaskOptions, UnixMs,
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

/// The bytes of a record before its content.
const HEADER_BYTES: usize = 50;

/// The line of a record that has the submission without its payload. Two submissions are compared by it, so
/// equal ones must have equal bytes.
#[derive(Serialize, Deserialize)]
struct StoredHead<'a> {
    /// Stored under an older name. It is the first field: `scripts/lease.lua` compares it.
    #[serde(rename = "lane")]
    route: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "is_empty")]
    metadata: Cow<'a, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<Cow<'a, TaskOptions>>,
}

fn is_empty(metadata: &BTreeMap<String, String>) -> bool {
    metadata.is_empty()
}

/// Returns the content of a record, which never changes: what scripts need of the options, the submission
/// without its payload, and the payload.
pub(super) fn write_content(task: &Submission, route: &str) -> Vec<u8> {
    let head = StoredHead {
        route: route.into(),
        metadata: Cow::Borrowed(task.metadata().as_ref()),
        options: task.options().map(|options| Cow::Borrowed(&**options)),
    };
    let mut content = Vec::with_capacity(64 + task.bytes());
    if let Some(given) = task.options() {
        content.extend_from_slice(options::words(given).as_bytes());
    }
    content.push(b'\n');
    // Strings and options always serialize, on one line.
    content.extend_from_slice(&serde_json::to_vec(&head).unwrap_or_default());
    content.push(b'\n');
    content.extend_from_slice(task.payload());
    content
}

/// A record.
pub(super) struct Record {
    pub order: u64,
    /// When the pending task is due, unless that is the time of its submission.
    due_at: Option<UnixMs>,
    /// How many attempts have ended and were counted.
    pub attempts: u32,
    pub losses: u32,
    pub task_type: Name,
    pub target: Target,
    pub metadata: Arc<BTreeMap<String, String>>,
    pub options: Option<Arc<TaskOptions>>,
    /// Empty if the record was read without it.
    pub payload: Bytes,
}

impl Record {
    pub fn submitted_at(&self) -> UnixMs {
        UnixMs(self.order / STEP)
    }

    /// Decodes a record that was read with or without its payload.
    pub fn read(id: &str, stored: Bytes) -> Result<Self, Error> {
        let missing = |what: &str| corrupt(id, what);
        let header = stored.get(..HEADER_BYTES);
        let header = header.and_then(|header| std::str::from_utf8(header).ok());
        let mut words = header.unwrap_or_default().split_ascii_whitespace();
        let mut number = |what: &str| -> Result<u64, Error> {
            let number = words.next().and_then(|word| word.parse().ok());
            number.ok_or_else(|| missing(what))
        };
        let order = number("its order")?;
        let due_at = Some(number("its due time")?).filter(|&due| due > 0);
        let attempts = number("its attempts")?;
        let losses = number("its losses")?;
        let marks = words.next().unwrap_or_default();
        let content = stored.slice(HEADER_BYTES..);
        let end_of_line = |from: usize| {
            let rest = content.get(from..)?;
            Some(from + rest.iter().position(|&byte| byte == b'\n')?)
        };
        let words_end = end_of_line(0).ok_or_else(|| missing("its options"))?;
        let head_end = end_of_line(words_end + 1).ok_or_else(|| missing("its head"))?;
        let head: StoredHead<'_> = serde_json::from_slice(&content[words_end + 1..head_end])
            .map_err(|error| missing(&format!("its head ({error})")))?;
        let route = Route::parse(&head.route).ok_or_else(|| missing("its route"))?;
        Ok(Self {
            order,
            due_at: due_at.map(UnixMs),
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            losses: u32::try_from(losses).unwrap_or(u32::MAX),
            task_type: route.task_type,
            target: route.target,
            metadata: Arc::new(head.metadata.into_owned()),
            options: options::with_mark(
                head.options.map(Cow::into_owned),
                marks.chars().next().unwrap_or_default(),
            )
            .map(Arc::new),
            payload: content.slice(head_end + 1..),
        })
    }
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

/// What is stored of a task, as `scripts/shared/reading.lua` returns it: the record and its size, the value of
/// its lease and the end of that, the record of its end and its size, what earlier attempts left, and the
/// progress of the latest attempt.
pub(super) type Parts = (Text, usize, Text, Text, Text, usize, Text, Text);

type Text = Vec<u8>;

/// Returns the size of a record without its payload.
pub(super) fn head_bytes(record: &[u8]) -> usize {
    let header = HEADER_BYTES.min(record.len());
    header + two_lines(&record[header..])
}

/// Returns the size of the record of an end without the result.
pub(super) fn end_head_bytes(end: &[u8]) -> usize {
    two_lines(end)
}

/// Returns the size of the first two lines of a text; of all of it if it has fewer.
fn two_lines(text: &[u8]) -> usize {
    let mut ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    ends.nth(1).map_or(text.len(), |(at, _)| at + 1)
}

/// Returns the task type in the value of a lease.
pub(super) fn type_of_lease(run: &[u8]) -> Option<Name> {
    let route = std::str::from_utf8(run).ok()?.split(' ').nth(3)?;
    Some(Route::parse(route)?.task_type)
}

/// Decodes the attempts of a task that have ended.
pub(super) fn history(parts: &Parts) -> AttemptHistory {
    let (record, .., end, _, past, _) = parts;
    let mut history = Past::read(past).history();
    let number = ended_attempts(record).saturating_add(1);
    let ended = Ended::read(end);
    if let Some(last) = ended.and_then(|it| it.attempt.record(number, it.at, None)) {
        history.push(last);
    }
    history
}

/// Returns how many attempts have ended and were counted before the one that ended the task.
fn ended_attempts(record: &[u8]) -> u32 {
    let header = record.get(..HEADER_BYTES).unwrap_or_default();
    header
        .split(|&byte| byte == b' ')
        .nth(2)
        .and_then(parse)
        .unwrap_or(0)
}

/// Decodes a task. One whose record is damaged has the state that its end or its lease says, as in lists and
/// counts: an attempt runs on what was leased. A pending one is returned as failed, which it will be once a
/// script finds it.
pub(super) fn task(id: TaskId, parts: Parts) -> Task {
    let (record, _, run, lease_end, end, _, past, progress) = parts;
    let record = Record::read(id.as_str(), Bytes::from(record));
    let ended = (!end.is_empty()).then(|| Ended::read(&end));
    let record = match record {
        Ok(record) => record,
        Err(error) => {
            return match (ended, running(&run, &lease_end)) {
                (Some(Some(ended)), _) => damaged_ended(id, ended, &error),
                (None, Some(state)) => damaged_running(id, state, &run, &error),
                _ => damaged(id, &error),
            };
        }
    };
    let past = Past::read(&past);
    let said = past.status();
    let task = match ended {
        Some(None) => {
            let error = corrupt(id.as_str(), "what is stored of its end");
            damaged(id, &error)
        }
        Some(Some(ended)) => ended_task(id, record, ended, &past, &said),
        None if run.is_empty() => {
            let submitted_at = record.submitted_at();
            let due_at = record.due_at.unwrap_or(submitted_at);
            open_task(id, record, State::Pending { due_at }, &said)
        }
        None => match running(&run, &lease_end) {
            Some(state) => open_task(id, record, state, &said),
            None => {
                let error = corrupt(id.as_str(), "its lease");
                damaged(id, &error)
            }
        },
    };
    // Progress that cannot be read is left out: nothing depends on it.
    Task {
        progress: serde_json::from_slice(&progress).ok(),
        ..task
    }
}

/// What is stored of the end of a task.
struct Ended<'a> {
    state: StateKind,
    at: UnixMs,
    task_type: Option<Name>,
    attempt: Left<'a>,
    result: Bytes,
}

impl Ended<'_> {
    fn read(stored: &[u8]) -> Option<Self> {
        let (line, rest) = split_line(stored);
        let (attempt, result) = split_line(rest);
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let state = state(words.next()?).filter(|state| state.is_terminal())?;
        let at = UnixMs(words.next()?.parse().ok()?);
        let task_type = words
            .nth(2)
            .and_then(|word| Name::parse("task type", word).ok());
        Some(Self {
            state,
            at,
            task_type,
            attempt: Left::read(attempt),
            result: Bytes::copy_from_slice(result),
        })
    }

    fn state(&self, started_at: Option<UnixMs>) -> State {
        let finished_at = self.at;
        match self.state {
            StateKind::Completed => State::Completed {
                result: self.result.clone(),
                started_at: started_at.unwrap_or(finished_at),
                finished_at,
            },
            StateKind::Cancelled => State::Cancelled {
                started_at,
                finished_at,
            },
            StateKind::Failed | StateKind::Pending | StateKind::Running => State::Failed {
                started_at,
                finished_at,
            },
        }
    }
}

fn running(run: &[u8], lease_end: &[u8]) -> Option<State> {
    let mut words = std::str::from_utf8(run).ok()?.split(' ').skip(1);
    let started_at = time_of_fence(words.next()?)?;
    let node = Name::parse("node", words.next()?).ok()?;
    Some(State::Running {
        node,
        started_at,
        lease_until: UnixMs(parse(lease_end).unwrap_or(started_at.0)),
        cancel_requested: words.nth(2).is_some(),
    })
}

fn open_task(id: TaskId, record: Record, state: State, past: &Left<'_>) -> Task {
    let running = u32::from(state.kind() == StateKind::Running);
    let attempt = record.attempts.saturating_add(running);
    Task {
        error: past.error().map(str::to_owned),
        executed_by: past.executed_by(),
        ..plain_task(id, record, state, attempt)
    }
}

/// Returns a task as it is before it has an error and an end.
fn plain_task(id: TaskId, record: Record, state: State, attempt: u32) -> Task {
    Task {
        id,
        submitted_at: record.submitted_at(),
        task_type: record.task_type,
        target: record.target,
        payload: record.payload,
        metadata: record.metadata,
        options: record.options,
        state,
        attempt,
        error: None,
        error_class: None,
        executed_by: None,
        progress: None,
        losses: record.losses,
        finishes: 0,
    }
}

/// Decodes a task that has ended. `said` is what it said of its attempts before that.
fn ended_task(
    id: TaskId,
    record: Record,
    ended: Ended<'_>,
    past: &Past<'_>,
    said: &Left<'_>,
) -> Task {
    let by_attempt = ended.attempt.fence.is_some();
    let counted = u32::from(by_attempt && !ended.attempt.uncounted);
    let attempt = record.attempts.saturating_add(counted);
    let started_at = ended.attempt.started_at().or(past.started_at);
    let executed_by = if by_attempt {
        ended.attempt.executed_by()
    } else {
        said.executed_by()
    };
    let error = ended.attempt.error().or(said.error());
    Task {
        error: error.map(str::to_owned),
        error_class: ended.attempt.class.as_deref().map(read_class),
        executed_by,
        finishes: 1,
        ..plain_task(id, record, ended.state(started_at), attempt)
    }
}

/// Returns what is known of a task whose record is damaged and that neither runs nor has ended.
fn damaged(id: TaskId, error: &Error) -> Task {
    let at = UnixMs(0);
    let state = State::Failed {
        started_at: None,
        finished_at: at,
    };
    Task {
        // A task needs a type; without a known one its id takes that place.
        task_type: id.clone(),
        id,
        target: Target::Any,
        payload: Bytes::new(),
        metadata: Arc::default(),
        options: None,
        submitted_at: at,
        state,
        attempt: 0,
        error: Some(format!("its record is damaged: {error}")),
        error_class: Some(ErrorClass::Corrupt),
        executed_by: None,
        progress: None,
        losses: 0,
        finishes: 1,
    }
}

/// The same for a task that has ended.
fn damaged_ended(id: TaskId, ended: Ended<'_>, error: &Error) -> Task {
    let state = ended.state(ended.attempt.started_at());
    let task = damaged(id, error);
    let of_script = ended
        .attempt
        .error
        .filter(|_| ended.attempt.class.is_some());
    Task {
        task_type: ended.task_type.unwrap_or(task.task_type),
        submitted_at: ended.at,
        attempt: u32::from(ended.attempt.fence.is_some()),
        error: of_script.map(Cow::into_owned).or(task.error),
        error_class: task
            .error_class
            .filter(|_| ended.state == StateKind::Failed),
        state,
        ..task
    }
}

/// The same for a task that runs.
fn damaged_running(id: TaskId, state: State, run: &[u8], error: &Error) -> Task {
    let task = damaged(id, error);
    let order = run.split(|&byte| byte == b' ').next().and_then(parse);
    Task {
        task_type: type_of_lease(run).unwrap_or(task.task_type),
        submitted_at: order.map_or(task.submitted_at, begun_at),
        state,
        attempt: 1,
        error_class: None,
        finishes: 0,
        ..task
    }
}

fn read_class(stored: &str) -> ErrorClass {
    let class = |class: &ErrorClass| class.as_str() == stored;
    let class = ErrorClass::ALL.into_iter().find(class);
    class.unwrap_or(ErrorClass::Corrupt)
}
