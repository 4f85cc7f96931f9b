//! The tasks that are stored with one call of the queue. Bounded in number and bytes, and counted in the
//! budget for requests until all of them are answered.

use crate::{
    budget::{Budget, Reservation},
    task::Submission,
};
use bytes::Bytes;
use std::collections::VecDeque;

/// The most tasks of a batch. The script of a Redis queue takes as many.
pub const MAX_TASKS: usize = 500;

/// A batch takes no further task from this size on.
const MAX_BYTES: usize = 1 << 20;

/// How much is reserved at once for small tasks.
const STEP_BYTES: usize = 64 << 10;

/// From this size on a request may have made the buffer large that later requests arrive in.
const LARGE_BYTES: usize = 16 << 10;

/// A task and its position in the stream.
pub type Numbered = (u64, Submission);

/// Tasks in the order of their positions.
#[derive(Default)]
pub struct Batch {
    tasks: VecDeque<Numbered>,
    bytes: usize,
    memory: Vec<Reservation>,
    /// What is reserved and not used yet.
    free: usize,
    /// There was no memory for the latest task, so there is none for another.
    is_closed: bool,
}

impl Batch {
    /// Whether the batch takes another task.
    pub fn has_room(&self) -> bool {
        !self.is_closed && self.tasks.len() < MAX_TASKS && self.bytes < MAX_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Numbered> {
        self.tasks.iter()
    }

    /// Adds a task. `own` is what was reserved while it arrived: nothing if it is small. A small task for
    /// which there is no memory is taken nevertheless, as the last one, so that the stream goes on.
    pub fn push(&mut self, task: Numbered, own: Vec<Reservation>, budget: &Budget) {
        let bytes = task.1.bytes();
        if own.is_empty() {
            if self.free < bytes {
                match budget.try_reserve(bytes.max(STEP_BYTES)) {
                    Some(step) => {
                        self.free += step.bytes();
                        self.memory.push(step);
                    }
                    None => self.is_closed = true,
                }
            }
            self.free = self.free.saturating_sub(bytes);
        }
        self.memory.extend(own);
        self.bytes += bytes;
        self.tasks.push_back(task);
    }

    /// Takes the first `count` tasks, which are answered.
    pub fn take(&mut self, count: usize) -> Vec<Numbered> {
        self.tasks.drain(..count.min(self.tasks.len())).collect()
    }

    /// Puts back those of the tasks taken that are to be stored later.
    pub fn put_back(&mut self, tasks: Vec<Numbered>) {
        for task in tasks.into_iter().rev() {
            self.tasks.push_front(task);
        }
    }
}

/// Copies payloads that would keep a much larger buffer alive: after a large request, the buffer that it
/// arrived in may also have small ones.
#[derive(Default)]
pub struct Payloads {
    largest: usize,
}

impl Payloads {
    /// Returns the payload in memory of about its own size.
    pub fn own(&mut self, payload: Bytes) -> Bytes {
        self.largest = self.largest.max(payload.len());
        if self.largest > LARGE_BYTES && payload.len() < self.largest / 2 {
            return Bytes::copy_from_slice(&payload);
        }
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::SubmissionLimits;

    fn task(position: u64, payload: usize) -> Numbered {
        let limits = SubmissionLimits {
            payload_bytes: usize::MAX,
            metadata_entries: 0,
            metadata_bytes: 0,
        };
        let payload = vec![0; payload].into();
        let id = format!("task-{position}");
        let task = Submission::new(&id, "echo", payload, Default::default(), &limits);
        (position, task.unwrap())
    }

    fn positions(tasks: &[Numbered]) -> Vec<u64> {
        tasks.iter().map(|(position, _)| *position).collect()
    }

    #[test]
    fn a_batch_is_bounded_in_number_and_bytes() {
        let budget = Budget::new(64 << 20);
        let filled = |payload| {
            let mut batch = Batch::default();
            while batch.has_room() {
                batch.push(task(batch.len() as u64, payload), Vec::new(), &budget);
            }
            let reserved = budget.total_bytes() - budget.free_bytes();
            assert!(reserved >= batch.bytes && reserved < batch.bytes + STEP_BYTES);
            batch.len()
        };
        assert_eq!(filled(0), MAX_TASKS);
        assert_eq!(filled(MAX_BYTES / 4), 4);
        assert_eq!(budget.free_bytes(), budget.total_bytes());
    }

    #[test]
    fn without_memory_a_batch_has_one_small_task() {
        let budget = Budget::new(1 << 20);
        let others = budget.try_reserve(1 << 20).unwrap();
        let mut batch = Batch::default();
        batch.push(task(0, 100), Vec::new(), &budget);
        assert!(!batch.has_room());
        // What was reserved while it arrived is kept until the batch is done.
        drop(others);
        let mut batch = Batch::default();
        let own = budget.try_reserve(200 << 10).unwrap();
        batch.push(task(0, 200 << 10), vec![own], &budget);
        assert!(batch.has_room());
        assert_eq!(budget.free_bytes(), (1 << 20) - (200 << 10));
        drop(batch);
        assert_eq!(budget.free_bytes(), 1 << 20);
    }

    #[test]
    fn tasks_that_are_put_back_keep_their_place() {
        let budget = Budget::new(1 << 20);
        let mut batch = Batch::default();
        for position in 0..5 {
            batch.push(task(position, 0), Vec::new(), &budget);
        }
        let mut taken = batch.take(3);
        assert_eq!(positions(&taken), [0, 1, 2]);
        taken.remove(1);
        batch.put_back(taken);
        assert_eq!(positions(&batch.take(9)), [0, 2, 3, 4]);
    }

    #[test]
    fn a_small_payload_keeps_no_large_buffer() {
        let mut payloads = Payloads::default();
        let buffer = Bytes::from(vec![7; 1 << 20]);
        let is_shared = |own: &Bytes| buffer.as_ptr_range().contains(&own.as_ptr());
        assert!(is_shared(&payloads.own(buffer.slice(..100))));
        assert!(is_shared(&payloads.own(buffer.slice(..1 << 19))));
        let own = payloads.own(buffer.slice(..100));
        assert!(!is_shared(&own) && own == buffer[..100]);
        assert!(is_shared(&payloads.own(buffer.slice(..1 << 19))));
    }
}
