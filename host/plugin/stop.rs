//! Why a call of a guest gave no value, in words for whoever has to act, and what that means for a
//! task. Decides nothing else.

use super::engine::MAX_STACK_BYTES;
use hostel_runtime::untrusted::clip;
use hostel_task::AttemptResult;
use std::time::Duration;

/// Longer texts of errors are cut.
pub const MAX_ERROR_BYTES: usize = 4 << 10;

/// Why a call gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    #[error("it was cancelled")]
    Cancelled,
    #[error(
        "there was no room for it within {} ms, with what other plugins hold \
         (plugins.max_total_memory_bytes, and plugins.max_component_memory_bytes for a component)", .0.as_millis()
    )]
    NoRoom(Duration),
    #[error("it took longer than its timeout of {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("it used more than {} ms of processor time (plugins.sandbox.max_cpu_ms)", .0.as_millis())]
    Cpu(Duration),
    #[error("it needed more than {0} bytes of memory (plugins.sandbox.max_memory_bytes)")]
    Memory(usize),
    #[error("it needed more than {0} table elements (plugins.sandbox.max_table_elements)")]
    Table(usize),
    #[error("its result has more than {0} bytes (plugins.sandbox.max_result_bytes)")]
    Result(usize),
    #[error(
        "it handed the node more than {0} bytes in one call (plugins.sandbox.max_result_bytes)"
    )]
    Transfer(usize),
    #[error("it recursed deeper than its stack of {MAX_STACK_BYTES} bytes")]
    Stack,
    /// The guest's own fault.
    #[error("{0}")]
    Trap(String),
}

/// What kind of failure ended an attempt, for whoever looks through the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The handler returned a retryable error.
    Retryable,
    /// The handler returned a permanent error.
    Permanent,
    Timeout,
    /// The guest panicked, exited or did what is not allowed.
    Trap,
    /// It ran into a limit of its sandbox.
    Limit,
    /// There was no room for it on this node.
    NoRoom,
    /// The node itself failed.
    Node,
}

impl FailureClass {
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

impl Stop {
    /// `None` for a cancellation, which is no failure.
    pub fn class(&self) -> Option<FailureClass> {
        match self {
            Stop::Cancelled => None,
            Stop::NoRoom(_) => Some(FailureClass::NoRoom),
            Stop::Timeout(_) => Some(FailureClass::Timeout),
            Stop::Trap(_) => Some(FailureClass::Trap),
            Stop::Cpu(_)
            | Stop::Memory(_)
            | Stop::Table(_)
            | Stop::Result(_)
            | Stop::Transfer(_)
            | Stop::Stack => Some(FailureClass::Limit),
        }
    }

    pub fn into_ended(self) -> AttemptResult {
        let error = clip(self.to_string(), MAX_ERROR_BYTES);
        match self {
            Stop::Cancelled => AttemptResult::Cancelled,
            Stop::NoRoom(_) | Stop::Timeout(_) | Stop::Trap(_) => {
                AttemptResult::Retryable { error, after: None }
            }
            Stop::Cpu(_)
            | Stop::Memory(_)
            | Stop::Table(_)
            | Stop::Result(_)
            | Stop::Transfer(_)
            | Stop::Stack => AttemptResult::Permanent { error },
        }
    }
}
