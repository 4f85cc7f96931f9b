//! Gives task types that need more than is usually free their turn. Smaller tasks pass a large one by, so
//! that it does not hold them up. A type that has been passed by for a second gets a turn: what other tasks
//! give back is kept for it, and only the rest is leased meanwhile. If its resources do not come together
//! within the turn, the others have the same time to themselves, and the next turn is twice as long. So
//! the type runs in the end, and at most half of the time is spent on waiting for it.

use crate::task::Name;
use std::{future::Future, pin::Pin};
use tokio::time::{Duration, Instant, sleep_until};

/// How long a type is passed by before its first turn, and how long that turn lasts at most.
const FIRST: Duration = Duration::from_secs(1);

/// How often to check whether a type is passed by.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The wait for resources, which collects what other tasks give back from the moment it is first
/// polled.
type Wait<R> = Pin<Box<dyn Future<Output = R> + Send>>;

/// The type whose turn it is or will be next; `R` is the resources that it waits for.
pub struct Turns<R> {
    state: State<R>,
    next_check: Option<Instant>,
}

enum State<R> {
    Idle,
    /// A type is passed by; its turn begins at `turn_at`.
    Passed {
        task_type: Name,
        turn_at: Instant,
        lasts: Duration,
    },
    Turn {
        task_type: Name,
        wait: Wait<R>,
        until: Instant,
        lasts: Duration,
    },
}

impl<R> State<R> {
    fn is_of(&self, other: &Name) -> bool {
        match self {
            Self::Idle => false,
            Self::Passed { task_type, .. } | Self::Turn { task_type, .. } => task_type == other,
        }
    }
}

impl<R> Turns<R> {
    pub fn new() -> Self {
        Self {
            state: State::Idle,
            next_check: None,
        }
    }

    /// Whether to ask the queue which type is passed by.
    pub fn is_check_due(&self, now: Instant) -> bool {
        self.next_check.is_none_or(|at| at <= now)
    }

    /// The type whose turn it is: the only one to ask about. A turn leaves little to lease, so that other
    /// types are passed by as well.
    pub fn current(&self) -> Option<&Name> {
        match &self.state {
            State::Turn { task_type, .. } => Some(task_type),
            State::Idle | State::Passed { .. } => None,
        }
    }

    /// Takes the queue's answer: the type that is passed by now, if any. If its turn begins, `wait`
    /// creates the wait for its resources.
    pub fn update(
        &mut self,
        now: Instant,
        passed: Option<Name>,
        wait: impl FnOnce(&Name) -> Wait<R>,
    ) {
        self.next_check = Some(now + CHECK_INTERVAL);
        let state = std::mem::replace(&mut self.state, State::Idle);
        self.state = match (passed, state) {
            (None, _) => State::Idle,
            (
                Some(passed),
                State::Passed {
                    task_type,
                    turn_at,
                    lasts,
                },
            ) if passed == task_type && turn_at <= now => State::Turn {
                wait: wait(&task_type),
                task_type,
                until: now + lasts,
                lasts,
            },
            (Some(passed), state) if state.is_of(&passed) => state,
            (Some(task_type), _) => State::Passed {
                task_type,
                turn_at: now + FIRST,
                lasts: FIRST,
            },
        };
    }

    /// Waits for the resources of the type whose turn it is, and returns both. Pending for ever if no type
    /// has a turn; a turn that ends first gives its resources back.
    pub async fn ready(&mut self) -> (Name, R) {
        if let State::Turn {
            task_type,
            wait,
            until,
            ..
        } = &mut self.state
        {
            let until = *until;
            tokio::select! {
                biased;
                permit = wait => {
                    let task_type = task_type.clone();
                    self.state = State::Idle;
                    return (task_type, permit);
                }
                () = sleep_until(until) => self.end_turn(until),
            }
        }
        std::future::pending().await
    }

    /// Ends the turn if its time is over.
    fn end_turn(&mut self, now: Instant) {
        if let State::Turn {
            task_type,
            until,
            lasts,
            ..
        } = &self.state
            && *until <= now
        {
            self.state = State::Passed {
                task_type: task_type.clone(),
                turn_at: *until + *lasts,
                lasts: *lasts * 2,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const SECOND: Duration = Duration::from_secs(1);

    fn name(given: &str) -> Name {
        Name::parse("type", given).unwrap()
    }

    fn never(_: &Name) -> Wait<u8> {
        Box::pin(std::future::pending())
    }

    fn at_once(_: &Name) -> Wait<u8> {
        Box::pin(std::future::ready(7))
    }

    #[test]
    fn turns_last_longer_each_time_and_leave_as_much_to_the_others() {
        let (mut turns, mut now) = (Turns::new(), Instant::now());
        // The seconds of each turn, and of each pause between two.
        let (mut lengths, mut was_turn, mut length) = (Vec::new(), false, 0.0);
        for _ in 0..250 {
            turns.end_turn(now);
            if turns.is_check_due(now) {
                turns.update(now, Some(name("large")), never);
            }
            if turns.current().is_some() != was_turn {
                lengths.push(f64::round(length));
                (was_turn, length) = (!was_turn, 0.0);
            }
            now += SECOND / 10;
            length += 0.1;
        }
        assert_eq!(lengths, [1.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 8.0]);
    }

    #[tokio::test]
    async fn resources_end_the_turn_and_another_type_waits_anew() {
        let (mut turns, now) = (Turns::new(), Instant::now());
        assert!(turns.is_check_due(now));
        turns.update(now, Some(name("large")), at_once);
        assert!(!turns.is_check_due(now));
        assert!(turns.ready().now_or_never().is_none());
        turns.update(now + SECOND, Some(name("other")), at_once);
        assert_eq!(turns.current(), None);
        turns.update(now + 2 * SECOND, Some(name("other")), at_once);
        assert_eq!(turns.current(), Some(&name("other")));
        let ready = turns.ready().now_or_never();
        assert_eq!(ready, Some((name("other"), 7)));
        assert_eq!(turns.current(), None);
    }

    #[test]
    fn a_turn_ends_when_no_task_waits_for_it() {
        let (mut turns, now) = (Turns::new(), Instant::now());
        for after in [0, 1, 1] {
            turns.update(now + after * SECOND, Some(name("large")), never);
        }
        assert_eq!(turns.current(), Some(&name("large")));
        turns.update(now + SECOND, None, never);
        assert_eq!(turns.current(), None);
    }
}
