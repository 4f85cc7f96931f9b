//! The policy: what follows from the way in which an attempt ended. Written once, here; a queue
//! only applies the outcome.

use bytes::Bytes;
use std::time::Duration;

/// How often a task is tried and how long it waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first attempt included; at least 1.
    pub max_attempts: u32,
    /// The longest wait before the second attempt. It doubles with each further one.
    pub backoff_initial: Duration,
    /// What no wait exceeds.
    pub backoff_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            backoff_initial: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
        }
    }
}

/// How an attempt ended, as the worker saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The handler returned its result.
    Returned(Bytes),
    /// The attempt failed and another one may succeed: the handler said so, it trapped, or it
    /// took too long.
    Retryable {
        error: String,
        after: Option<Duration>,
    },
    /// No further attempt can succeed: the handler said so, or a limit fired.
    Permanent { error: String },
    /// The node died or lost its lease, after `losses` such ends that were not charged to the task.
    Lost { losses: u32 },
    /// Somebody asked for the end.
    Cancelled,
    /// The node is shutting down, or no longer hosts the type. Costs the task nothing.
    Drained,
}

/// What is written to the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Completed {
        result: Bytes,
    },
    /// Pending again, due `after` from now.
    Retry {
        after: Duration,
        error: String,
    },
    Failed {
        error: String,
    },
    Cancelled,
    /// Pending again at once; the attempt is not counted.
    Released,
    /// Pending again, due `after` from now; the attempt is not counted, and one more loss is.
    Lost {
        after: Duration,
        error: String,
    },
}

/// From so many losses on a task is a suspect.
pub const SUSPECT_AFTER: u32 = 2;

/// Whether a task that was lost so often is suspected of killing its node. Many tasks are lost with a
/// node and one of them, at most, is the reason; so the first losses are charged to none. Who was lost
/// more often runs as the only suspect of its node, beside whatever is not suspected: when that node dies
/// as well, the attempt counts, so that a task which kills its nodes comes to its end and the others do
/// not come to it with it.
pub fn is_suspect(losses: u32) -> bool {
    losses >= SUSPECT_AFTER
}

/// Decides what becomes of a task whose attempt number `attempt` (1 for the first) has ended.
/// `jitter` lies in `0.0..=1.0` and scales the wait ("full jitter").
pub fn transition(ended: Ended, attempt: u32, policy: &RetryPolicy, jitter: f64) -> Outcome {
    let (error, after) = match ended {
        Ended::Returned(result) => return Outcome::Completed { result },
        Ended::Permanent { error } => return Outcome::Failed { error },
        Ended::Cancelled => return Outcome::Cancelled,
        Ended::Drained => return Outcome::Released,
        Ended::Retryable { error, after } => (error, after),
        Ended::Lost { losses } => {
            let error = "the node that ran this attempt died or lost its lease".into();
            if !is_suspect(losses) {
                let after = policy.wait(attempt, jitter);
                return Outcome::Lost { after, error };
            }
            (error, None)
        }
    };
    if attempt >= policy.max_attempts {
        return Outcome::Failed {
            error: format!("attempt {attempt} of {}: {error}", policy.max_attempts),
        };
    }
    let after = after.unwrap_or_else(|| policy.wait(attempt, jitter));
    Outcome::Retry { after, error }
}

impl RetryPolicy {
    /// How long to wait after attempt number `attempt`.
    fn wait(&self, attempt: u32, jitter: f64) -> Duration {
        self.ceiling(attempt).mul_f64(jitter.clamp(0.0, 1.0))
    }

    /// The longest wait after attempt number `attempt`.
    fn ceiling(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.backoff_initial
            .saturating_mul(1 << doublings)
            .min(self.backoff_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retryable() -> Ended {
        Ended::Retryable {
            error: "no".into(),
            after: None,
        }
    }

    fn wait(attempt: u32, jitter: f64) -> Duration {
        let policy = RetryPolicy {
            max_attempts: u32::MAX,
            ..RetryPolicy::default()
        };
        match transition(retryable(), attempt, &policy, jitter) {
            Outcome::Retry { after, .. } => after,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn waits_double_up_to_the_ceiling_and_never_overflow() {
        let seconds = [1, 2, 3, 9, 10, 40, u32::MAX - 1].map(|n| wait(n, 1.0).as_secs());
        assert_eq!(seconds, [1, 2, 4, 256, 300, 300, 300]);
        assert_eq!(wait(3, 0.0), Duration::ZERO);
        assert_eq!(wait(3, 0.5), Duration::from_secs(2));
    }

    #[test]
    fn the_last_attempt_fails_and_says_so() {
        let policy = RetryPolicy {
            max_attempts: 3,
            ..RetryPolicy::default()
        };
        let losses = SUSPECT_AFTER;
        for ended in [retryable(), Ended::Lost { losses }] {
            assert!(matches!(
                transition(ended.clone(), 2, &policy, 0.5),
                Outcome::Retry { .. }
            ));
            let Outcome::Failed { error } = transition(ended, 3, &policy, 0.5) else {
                panic!()
            };
            assert!(error.starts_with("attempt 3 of 3: "), "{error}");
        }
    }

    #[test]
    fn only_a_suspect_is_charged_for_its_node() {
        let policy = RetryPolicy {
            max_attempts: 1,
            ..RetryPolicy::default()
        };
        for losses in 0..SUSPECT_AFTER {
            assert!(!is_suspect(losses));
            let outcome = transition(Ended::Lost { losses }, 1, &policy, 1.0);
            assert!(
                matches!(outcome, Outcome::Lost { after, .. } if after.as_secs() == 1),
                "{outcome:?}"
            );
        }
        let losses = SUSPECT_AFTER;
        assert!(is_suspect(losses));
        let outcome = transition(Ended::Lost { losses }, 1, &policy, 1.0);
        assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    }

    #[test]
    fn the_handler_may_choose_its_wait() {
        let after = Some(Duration::from_secs(7));
        let ended = Ended::Retryable {
            error: "busy".into(),
            after,
        };
        assert!(matches!(
            transition(ended, 1, &RetryPolicy::default(), 0.0),
            Outcome::Retry { after, .. } if after.as_secs() == 7
        ));
    }

    #[test]
    fn permanent_cancelled_and_drained_ignore_the_attempts_left() {
        let policy = RetryPolicy::default();
        let error = String::from("bad input");
        assert_eq!(
            transition(
                Ended::Permanent {
                    error: error.clone()
                },
                1,
                &policy,
                0.0
            ),
            Outcome::Failed { error }
        );
        assert_eq!(
            transition(Ended::Cancelled, 9, &policy, 0.0),
            Outcome::Cancelled
        );
        assert_eq!(
            transition(Ended::Drained, 9, &policy, 0.0),
            Outcome::Released
        );
    }
}
