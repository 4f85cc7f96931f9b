//! Damage to one task's record: metadata that does not parse, a state that does not exist, a value of
//! the wrong type, a page that cannot be read.

use hostel_sqlite::StatementError;
use std::fmt;

/// One task's record, and what is wrong with it.
#[derive(Debug, Clone)]
pub(super) struct Damage {
    pub seq: i64,
    pub reason: String,
}

impl Damage {
    pub fn new(seq: i64, what: impl fmt::Display) -> Self {
        Self {
            seq,
            reason: format!("the task's record is damaged: {what}"),
        }
    }

    /// Turns an error into damage to that record; returns an error of another kind as it is.
    pub fn of(seq: i64, error: StatementError) -> Result<Self, StatementError> {
        if error.is_damage() {
            Ok(Self::new(seq, error))
        } else {
            Err(error)
        }
    }
}
