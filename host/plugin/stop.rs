//! Why a call of a guest gave no value, in words for whoever has to act, and what that means for a
//! task. Decides nothing else.

use super::{engine::MAX_STACK_BYTES, text::clip};
use crate::task::Ended;
use std::time::Duration;

/// Why a call gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    #[error("it was cancelled")]
    Cancelled,
    #[error(
        "there was no room for it within {} ms, with what other plugins hold \
         (plugins.max_components, plugins.max_total_memory_bytes)", .0.as_millis()
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

impl Stop {
    pub fn into_ended(self) -> Ended {
        let error = clip(self.to_string());
        match self {
            Stop::Cancelled => Ended::Cancelled,
            Stop::NoRoom(_) | Stop::Timeout(_) | Stop::Trap(_) => {
                Ended::Retryable { error, after: None }
            }
            Stop::Cpu(_)
            | Stop::Memory(_)
            | Stop::Table(_)
            | Stop::Result(_)
            | Stop::Transfer(_)
            | Stop::Stack => Ended::Permanent { error },
        }
    }
}
