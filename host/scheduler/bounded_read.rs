//! Reads the status of a task within a budget. Most results are small, so little is reserved at first;
//! a larger result is read again once its actual size is reserved. If not even that little is free, a tiny
//! result is read uncounted, so that clients that leave large results unread do not delay it.

use super::error::Error;
use crate::{
    budget::{Budget, Reservation},
    queue::{self, StatusRead},
    task::{Task, TaskId},
};

/// The memory reserved for the first read of a result.
const SMALL_RESULT_BYTES: usize = 64 << 10;

/// The largest result that is read without a reservation.
const TINY_RESULT_BYTES: usize = 2 << 10;

/// Calls `read` with the largest result that it may return, until the result fits. Returns the task without
/// its payload, and the memory reserved for it; a tiny result may have none.
pub(super) async fn read_within<F>(
    budget: &Budget,
    id: &TaskId,
    read: impl Fn(usize) -> F,
) -> Result<(Task, Option<Reservation>), Error>
where
    F: Future<Output = Result<Option<StatusRead>, queue::Error>>,
{
    let mut reservation = budget.try_reserve(SMALL_RESULT_BYTES);
    let mut max = match reservation {
        Some(_) => SMALL_RESULT_BYTES,
        None => TINY_RESULT_BYTES,
    };
    loop {
        match read(max).await.map_err(queue::Error::as_read_error)? {
            None => return Err(Error::UnknownTask(id.clone())),
            Some(StatusRead::Task(task)) => {
                if let Some(reservation) = &mut reservation {
                    reservation.shrink_to(task.bytes());
                }
                return Ok((task, reservation));
            }
            Some(StatusRead::ResultTooLarge { bytes }) => {
                // The reservation is given back before the next one is awaited.
                drop(reservation.take());
                // A result larger than the budget takes all of it.
                reservation = Some(budget.reserve(bytes).await);
                max = bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{State, Target, UnixMs};
    use futures_util::{FutureExt, future::join_all};
    use std::{
        cell::Cell,
        future::{pending, ready},
    };

    const MIB: usize = 1 << 20;

    fn id() -> TaskId {
        TaskId::parse("id", "a").unwrap()
    }

    /// What a queue answers for a task with a result of this size.
    fn answer(size: usize, max: usize) -> Result<Option<StatusRead>, queue::Error> {
        if size > max {
            return Ok(Some(StatusRead::ResultTooLarge { bytes: size }));
        }
        Ok(Some(StatusRead::Task(Task {
            id: id(),
            task_type: id(),
            target: Target::Any,
            payload: bytes::Bytes::new(),
            metadata: Default::default(),
            options: None,
            submitted_at: UnixMs(0),
            state: State::Completed {
                result: vec![0; size].into(),
                started_at: UnixMs(0),
                finished_at: UnixMs(0),
            },
            attempt: 1,
            error: None,
            error_class: None,
            executed_by: None,
            progress: None,
            losses: 0,
            finishes: 1,
        })))
    }

    #[test]
    fn many_reads_run_at_once_in_one_connections_share() {
        let (budget, reads, id) = (Budget::new(32 * MIB), Cell::new(0), id());
        let reading = || {
            read_within(&budget, &id, |_| {
                reads.set(reads.get() + 1);
                pending()
            })
        };
        let all = join_all(std::iter::repeat_with(reading).take(256));
        assert!(all.now_or_never().is_none());
        assert_eq!(reads.get(), 256);
    }

    #[test]
    fn a_large_result_is_read_only_once_its_size_is_reserved() {
        let (budget, id) = (Budget::new(4 * MIB), id());
        let others = budget.try_reserve(3 * MIB).unwrap();
        let largest = Cell::new(0);
        let read = |max| {
            largest.set(largest.get().max(max));
            ready(answer(2 * MIB, max))
        };
        let mut reading = Box::pin(read_within(&budget, &id, read));
        assert!(reading.as_mut().now_or_never().is_none());
        assert_eq!(largest.get(), SMALL_RESULT_BYTES);
        drop(others);
        let (task, reservation) = reading.now_or_never().unwrap().unwrap();
        let reserved = reservation.unwrap().bytes();
        assert_eq!((task.bytes(), reserved), (2 * MIB, 2 * MIB));
    }

    #[test]
    fn a_result_larger_than_the_budget_takes_all_of_it() {
        let (budget, id) = (Budget::new(MIB), id());
        let reading = read_within(&budget, &id, |max| ready(answer(3 * MIB, max)));
        let (task, reservation) = reading.now_or_never().unwrap().unwrap();
        let reserved = reservation.unwrap().bytes();
        assert_eq!((task.bytes(), reserved), (3 * MIB, MIB));
    }

    #[test]
    fn a_tiny_result_is_read_from_a_budget_that_is_used_up() {
        let (budget, id) = (Budget::new(MIB), id());
        let others = budget.try_reserve(MIB).unwrap();
        let tiny = read_within(&budget, &id, |max| ready(answer(2000, max)));
        let (task, reservation) = tiny.now_or_never().unwrap().unwrap();
        assert_eq!(task.bytes(), 2000);
        assert!(reservation.is_none());
        let mut small = Box::pin(read_within(&budget, &id, |max| ready(answer(3000, max))));
        assert!(small.as_mut().now_or_never().is_none());
        drop(others);
        let (_, reservation) = small.now_or_never().unwrap().unwrap();
        assert_eq!(reservation.unwrap().bytes(), 3 << 10);
    }
}
