//! `WatchTasks`: sends the changes after a cursor that pass a filter. Changes are read while the client takes
//! them, a few at a time: a client that is slow holds nothing up, and falls behind until it gets a resync.

use super::{
    super::{
        read_convert::{self, checked},
        security::auth::{AuthContext, WatchedContext},
        status::{self, IntoStatus},
    },
    stream::revoked,
};
use crate::{
    budget::Reservation,
    proto::hostel::v1::{TaskChange, WatchTasksRequest},
    queue::{Change, LoggedChange},
    scheduler::{MAX_CHANGES_READ, TaskScheduler},
    task::{Name, StateKind, TaskId, Violations},
};
use std::{collections::HashSet, pin::Pin, sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// What a stream may hold, in bytes: the changes of one read, with their names and cursors, and its filter.
pub const STREAM_BYTES: usize = MAX_CHANGES_READ * 1024 + MAX_IDS * 256;

/// The most tasks that a filter names.
const MAX_IDS: usize = 1000;

/// After which time a client is sent its cursor although no change passes its filter.
const CURSOR_INTERVAL: Duration = Duration::from_secs(5);

pub type Responses = Pin<Box<dyn Stream<Item = Result<TaskChange, Status>> + Send>>;

/// What a stream needs of its node and its call.
pub struct Setup {
    pub scheduler: Arc<dyn TaskScheduler>,
    /// Ends with the server.
    pub end: CancellationToken,
    /// The token that admitted the stream, if tokens are required.
    pub auth: Option<AuthContext>,
    /// The memory of `STREAM_BYTES`.
    pub memory: Reservation,
}

/// Selects changes; all by default.
#[derive(Debug)]
struct ChangeFilter {
    task_type: Option<Name>,
    state: Option<StateKind>,
    group: Option<Name>,
    ids: HashSet<TaskId>,
}

/// One stream.
struct TaskWatch {
    scheduler: Arc<dyn TaskScheduler>,
    end: CancellationToken,
    auth: Option<WatchedContext>,
    filter: ChangeFilter,
    /// Empty until the first read.
    cursor: String,
    sent_at: Instant,
    _memory: Reservation,
}

/// The messages of a new stream.
pub fn responses(request: WatchTasksRequest, setup: Setup) -> Result<Responses, Status> {
    let mut watch = TaskWatch {
        filter: ChangeFilter::parse(&request)?,
        cursor: request.cursor,
        scheduler: setup.scheduler,
        end: setup.end,
        auth: setup.auth.map(AuthContext::watch),
        sent_at: Instant::now(),
        _memory: setup.memory,
    };
    let responses: Responses = Box::pin(async_stream::try_stream! {
        loop {
            for change in watch.next().await? {
                yield change;
            }
        }
    });
    Ok(responses)
}

impl TaskWatch {
    /// Waits some seconds for messages.
    async fn next(&mut self) -> Result<Vec<TaskChange>, Status> {
        let is_first = self.cursor.is_empty();
        let after = (!is_first).then_some(&*self.cursor);
        let read = tokio::select! {
            read = self.scheduler.next_changes(after) => read.map_err(IntoStatus::into_status)?,
            () = self.end.cancelled() => return Err(status::stopping()),
            () = revoked(&mut self.auth) => return Err(status::revoked()),
        };
        self.cursor = read.cursor;
        let only_cursor = TaskChange {
            cursor: self.cursor.clone(),
            resync: read.resync,
            ..TaskChange::default()
        };
        let passes = |logged: &LoggedChange| self.filter.passes(&logged.change);
        let changes = read.changes.into_iter().filter(passes);
        let mut messages: Vec<_> = changes.map(read_convert::change).collect();
        let is_time = self.sent_at.elapsed() >= CURSOR_INTERVAL;
        if messages.is_empty() && (is_first || read.resync || is_time) {
            messages.push(only_cursor);
        }
        if !messages.is_empty() {
            self.sent_at = Instant::now();
        }
        Ok(messages)
    }
}

impl ChangeFilter {
    /// Makes a filter of a request, or returns all its faults.
    fn parse(request: &WatchTasksRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let mut given = &request.task_ids[..];
        if given.len() > MAX_IDS {
            let reason = format!("{} tasks; a stream may name {MAX_IDS}", given.len());
            violations.refuse("task_ids", reason);
            // The faults of so many ids would hide the others.
            given = &[];
        }
        let ids = given
            .iter()
            .filter_map(|id| violations.name("task_ids", "task id", id));
        let ids = ids.collect();
        let filter = Self {
            ids,
            task_type: violations.optional_name("task_type", "task type", &request.task_type),
            group: violations.optional_name("group", "group", &request.group),
            state: read_convert::state(&request.status, &mut violations),
        };
        checked(filter, violations)
    }

    fn passes(&self, change: &Change) -> bool {
        self.task_type
            .as_ref()
            .is_none_or(|only| *only == change.task_type)
            && self.state.is_none_or(|only| only == change.state)
            && (self.group.is_none() || self.group == change.group)
            && (self.ids.is_empty() || self.ids.contains(&change.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(given: &str) -> Name {
        Name::parse("name", given).unwrap()
    }

    #[test]
    fn every_part_of_a_filter_counts() {
        let change = Change {
            group: Some(name("g")),
            ..Change::new(name("a"), name("echo"), StateKind::Failed)
        };
        let passes =
            |request: WatchTasksRequest| ChangeFilter::parse(&request).unwrap().passes(&change);
        let all = WatchTasksRequest {
            task_type: "echo".into(),
            status: "failed".into(),
            group: "g".into(),
            task_ids: vec!["b".into(), "a".into()],
            ..WatchTasksRequest::default()
        };
        assert!(passes(WatchTasksRequest::default()));
        assert!(passes(all.clone()));
        for other in [
            WatchTasksRequest {
                task_type: "other".into(),
                ..all.clone()
            },
            WatchTasksRequest {
                status: "completed".into(),
                ..all.clone()
            },
            WatchTasksRequest {
                group: "h".into(),
                ..all.clone()
            },
            WatchTasksRequest {
                task_ids: vec!["b".into()],
                ..all
            },
        ] {
            assert!(!passes(other));
        }
    }

    #[test]
    fn all_faults_of_a_filter_are_reported_at_once() {
        let request = WatchTasksRequest {
            task_type: "a b".into(),
            status: "done".into(),
            group: "/".into(),
            task_ids: vec![String::new(); MAX_IDS + 1],
            ..WatchTasksRequest::default()
        };
        let refused = ChangeFilter::parse(&request).unwrap_err();
        for field in ["task_type: ", "status: ", "group: ", "task_ids: 1001 tasks"] {
            assert!(refused.message().contains(field), "{refused}");
        }
    }
}
