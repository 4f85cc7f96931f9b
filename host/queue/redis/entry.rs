//! A task on its way to the script that stores it. Pure.

use super::options::{self, Reservation};
use hostel_task::Submission;
use std::collections::HashSet;

/// A task to store.
#[derive(Clone)]
pub(super) struct Entry {
    pub task: Submission,
    pub reservation: Reservation,
}

impl From<Submission> for Entry {
    fn from(task: Submission) -> Self {
        Self {
            task,
            reservation: Reservation::NotNeeded,
        }
    }
}

impl Entry {
    /// Returns what it asks the script for (`scripts/submit.lua`): nothing, to be handed off if it fits into the
    /// request that waits, or what its options say.
    pub fn asks(&self, fits_offer: bool) -> String {
        match self.task.options() {
            Some(given) => options::asks(given, self.reservation),
            None if fits_offer => "h".into(),
            None => String::new(),
        }
    }
}

/// Whether the ids differ and no task has options, so that the script can store all of them at once.
pub(super) fn are_simple(entries: &[&Entry]) -> bool {
    let mut ids = HashSet::new();
    entries.iter().all(|Entry { task, .. }| {
        task.options().is_none() && (entries.len() == 1 || ids.insert(task.id()))
    })
}
