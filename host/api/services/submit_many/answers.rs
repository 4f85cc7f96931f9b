//! The responses of `SubmitMany`.

use crate::{
    proto::{
        distributed as wire,
        hostel::v1::{
            EndUnread, FieldViolation, SubmitManyResponse, TaskAccepted, TaskRefused,
            submit_many_response::Event,
        },
    },
    scheduler::Accepted,
    task::{Name, TaskId, Violations},
};
use tonic::Status;

fn response(position: u64, task_id: String, event: Event) -> SubmitManyResponse {
    SubmitManyResponse {
        position,
        task_id,
        event: Some(event),
    }
}

/// The task is stored, or another one has its unique key.
pub fn accepted(
    position: u64,
    id: &TaskId,
    accepted: &Accepted,
    durability: &str,
) -> SubmitManyResponse {
    let id = match accepted {
        Accepted::New | Accepted::Existing => id,
        Accepted::Duplicate(other) => other,
    };
    let accepted = TaskAccepted {
        existing: *accepted != Accepted::New,
        durability: durability.into(),
    };
    response(position, id.to_string(), Event::Accepted(accepted))
}

/// The task is refused for what it is, or because of the state that the node is in.
pub fn refused(position: u64, id: &TaskId, status: &Status) -> SubmitManyResponse {
    let refused = TaskRefused {
        code: code(status),
        message: status.message().into(),
        violations: Vec::new(),
    };
    response(position, id.to_string(), Event::Refused(refused))
}

/// The task has fields that are wrong. An id that is too long is not repeated.
pub fn invalid(
    position: u64,
    mut id: String,
    invalid: Violations,
    status: &Status,
) -> SubmitManyResponse {
    if id.len() > Name::MAX_BYTES {
        id.clear();
    }
    let violations = invalid.0.into_iter();
    let refused = TaskRefused {
        code: code(status),
        message: status.message().into(),
        violations: violations
            .map(|violation| FieldViolation {
                field: violation.field.into(),
                description: violation.reason,
            })
            .collect(),
    };
    response(position, id, Event::Refused(refused))
}

/// The task has ended.
pub fn ended(position: u64, status: wire::TaskStatus) -> SubmitManyResponse {
    let id = status.task_id.clone();
    response(position, id, Event::Ended(Box::new(status)))
}

/// The task has ended, and the client has to read it.
pub fn unread(position: u64, id: &TaskId, status: &Status) -> SubmitManyResponse {
    let unread = EndUnread {
        code: code(status),
        message: status.message().into(),
    };
    response(position, id.to_string(), Event::Unread(unread))
}

fn code(status: &Status) -> u32 {
    status.code() as u32
}
