//! How a task that needs more than is left gets its turn. Smaller ones pass it by, so that it holds up
//! nobody; but whose type has been passed by for a second, room is kept free for what ends, and only
//! what that leaves is leased meanwhile. Should the room not come together within the turn, the others
//! have as long a time again, and the next turn lasts twice as long: it comes in the end, whatever the
//! others take, and half of the time at most is spent on waiting for it.

use crate::task::Name;
use std::{future::Future, pin::Pin};
use tokio::time::{Duration, Instant, sleep_until};

/// How long a type is passed by before its first turn, and how long that lasts at most.
const FIRST: Duration = Duration::from_secs(1);

/// How often to look whether a type is passed by.
const LOOK: Duration = Duration::from_millis(250);

/// The wait for room, which takes what others give back from the moment it is first polled.
type Wait<R> = Pin<Box<dyn Future<Output = R> + Send>>;

/// Whose turn it is, or may be next; `R` is the room that it waits for.
pub struct Turns<R> {
    state: State<R>,
    /// When to look again.
    look_at: Option<Instant>,
}

enum State<R> {
    Idle,
    /// Passed by; its turn begins at `turn_at`.
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
            look_at: None,
        }
    }

    /// Whether the queue should be asked which type is passed by.
    pub fn should_look(&self, now: Instant) -> bool {
        self.look_at.is_none_or(|at| at <= now)
    }

    /// The one type to ask about, while it is its turn: what that leaves is little, so that others are
    /// passed by as well.
    pub fn whose(&self) -> Option<&Name> {
        match &self.state {
            State::Turn { task_type, .. } => Some(task_type),
            State::Idle | State::Passed { .. } => None,
        }
    }

    /// Takes in the type that is passed by now, if one is. `wait` makes the wait for its room, should
    /// its turn begin.
    pub fn saw(&mut self, now: Instant, passed: Option<Name>, wait: impl FnOnce(&Name) -> Wait<R>) {
        self.look_at = Some(now + LOOK);
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

    /// The type whose turn it is, with its room, as soon as that is there. Never, where it is nobody's
    /// turn; a turn that is over without the room gives back what it had.
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
                room = wait => {
                    let task_type = task_type.clone();
                    self.state = State::Idle;
                    return (task_type, room);
                }
                () = sleep_until(until) => self.end_turn(until),
            }
        }
        std::future::pending().await
    }

    /// Ends a turn that lasts no longer than until now.
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
        // How many seconds each turn lasts, and how many there is none.
        let (mut lengths, mut was_turn, mut length) = (Vec::new(), false, 0.0);
        for _ in 0..250 {
            turns.end_turn(now);
            if turns.should_look(now) {
                turns.saw(now, Some(name("large")), never);
            }
            if turns.whose().is_some() != was_turn {
                lengths.push(f64::round(length));
                (was_turn, length) = (!was_turn, 0.0);
            }
            now += SECOND / 10;
            length += 0.1;
        }
        assert_eq!(lengths, [1.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 8.0]);
    }

    #[tokio::test]
    async fn the_room_ends_the_turn_and_another_type_waits_anew() {
        let (mut turns, now) = (Turns::new(), Instant::now());
        assert!(turns.should_look(now));
        turns.saw(now, Some(name("large")), at_once);
        assert!(!turns.should_look(now));
        assert!(turns.ready().now_or_never().is_none());
        turns.saw(now + SECOND, Some(name("other")), at_once);
        assert_eq!(turns.whose(), None);
        turns.saw(now + 2 * SECOND, Some(name("other")), at_once);
        assert_eq!(turns.whose(), Some(&name("other")));
        let ready = turns.ready().now_or_never();
        assert_eq!(ready, Some((name("other"), 7)));
        assert_eq!(turns.whose(), None);
    }

    #[test]
    fn a_turn_ends_when_nothing_waits_for_it_any_more() {
        let (mut turns, now) = (Turns::new(), Instant::now());
        for after in [0, 1, 1] {
            turns.saw(now + after * SECOND, Some(name("large")), never);
        }
        assert_eq!(turns.whose(), Some(&name("large")));
        turns.saw(now + SECOND, None, never);
        assert_eq!(turns.whose(), None);
    }
}
