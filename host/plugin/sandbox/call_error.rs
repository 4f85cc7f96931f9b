//! Why a call of a guest returned no value, and what that means for a task.

use super::engine_config::MAX_STACK_BYTES;
use hostel_runtime::untrusted::clip;
use hostel_task::{AttemptClass, AttemptResult};
use std::time::Duration;

/// Longer error texts are cut.
pub const MAX_ERROR_BYTES: usize = 4 << 10;

/// Why a call returned no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The call was cancelled.
    #[error("it was cancelled")]
    Cancelled,
    /// No memory became free in this time.
    #[error(
        "there was no room for it within {} ms, with what other plugins hold \
         (plugins.max_total_memory_bytes, and plugins.max_component_memory_bytes for a component)", .0.as_millis()
    )]
    NoRoom(Duration),
    /// The call took longer than this.
    #[error("it took longer than its timeout of {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The call used more processor time than this.
    #[error("it used more than {} ms of processor time (plugins.sandbox.max_cpu_ms)", .0.as_millis())]
    Cpu(Duration),
    /// The guest needed more memory than this number of bytes, and may have given a reason.
    #[error("it needed more than {0} bytes of memory (plugins.sandbox.max_memory_bytes){reason}", reason = after_colon(.1))]
    Memory(usize, Option<String>),
    /// The guest needed tables with more than this number of elements, and may have given a reason.
    #[error("it needed more than {0} table elements (plugins.sandbox.max_table_elements){reason}", reason = after_colon(.1))]
    Table(usize, Option<String>),
    /// The result has more than this number of bytes.
    #[error("its result has more than {0} bytes (plugins.sandbox.max_result_bytes)")]
    Result(usize),
    /// The guest passed more than this number of bytes to the node at once.
    #[error(
        "it passed more than {0} bytes to the node in one call, which is twice the largest of \
         plugins.sandbox.max_result_bytes, limits.max_payload_bytes and keyvalue.max_batch_bytes, and \
         some more for keys"
    )]
    Transfer(usize),
    /// The guest's stack overflowed.
    #[error("it recursed deeper than its stack of {MAX_STACK_BYTES} bytes")]
    Stack,
    /// A failure of the guest itself.
    #[error("{0}")]
    Trap(String),
}

fn after_colon(reason: &Option<String>) -> String {
    let reason = reason.as_ref().map(|reason| format!(": {reason}"));
    reason.unwrap_or_default()
}

/// The class of the failure that ended an attempt, as the log names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The handler returned a retryable error.
    Retryable,
    /// The handler returned a permanent error.
    Permanent,
    /// The attempt took too long.
    Timeout,
    /// The guest panicked, exited or broke a rule of WebAssembly.
    Trap,
    /// The guest reached a limit of its sandbox.
    Limit,
    /// The guest was not admitted in time.
    NoRoom,
    /// The node itself failed.
    Node,
}

impl FailureClass {
    /// Returns the name of the class as logs and metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retryable => "retryable",
            Self::Permanent => "permanent",
            Self::Timeout => "timeout",
            Self::Trap => "trap",
            Self::Limit => "limit",
            Self::NoRoom => "no_room",
            Self::Node => "node",
        }
    }
}

impl From<FailureClass> for AttemptClass {
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::Retryable => Self::Retryable,
            FailureClass::Permanent => Self::Permanent,
            FailureClass::Timeout => Self::Timeout,
            FailureClass::Trap => Self::Trap,
            FailureClass::Limit => Self::Limit,
            FailureClass::NoRoom => Self::NoRoom,
            FailureClass::Node => Self::Node,
        }
    }
}

impl CallError {
    /// Returns `None` for a cancellation, which is no failure.
    pub fn class(&self) -> Option<FailureClass> {
        match self {
            Self::Cancelled => None,
            Self::NoRoom(_) => Some(FailureClass::NoRoom),
            Self::Timeout(_) => Some(FailureClass::Timeout),
            Self::Trap(_) => Some(FailureClass::Trap),
            Self::Cpu(_)
            | Self::Memory(..)
            | Self::Table(..)
            | Self::Result(_)
            | Self::Transfer(_)
            | Self::Stack => Some(FailureClass::Limit),
        }
    }

    /// How an attempt ends that failed like this: reaching a limit is permanent, since a retry would
    /// reach it again.
    pub fn into_ended(self) -> AttemptResult {
        let error = clip(self.to_string(), MAX_ERROR_BYTES);
        match self.class() {
            None => AttemptResult::Cancelled,
            Some(FailureClass::Limit) => AttemptResult::Permanent { error },
            Some(_) => AttemptResult::Retryable { error, after: None },
        }
    }
}
