//! Damage to one task's record: metadata that does not parse, a state that does not exist, a value of
//! the wrong type, a page that cannot be read.

use hostel_sqlite::Fault;
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

    /// Turns a fault into damage to that record; returns a fault of another kind as it is.
    pub fn of(seq: i64, fault: Fault) -> Result<Self, Fault> {
        if fault.is_damage() {
            Ok(Self::new(seq, fault))
        } else {
            Err(fault)
        }
    }
}
