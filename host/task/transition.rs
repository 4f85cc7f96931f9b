//! The retry policy: decides what becomes of a task when an attempt has ended. A queue backend applies
//! the outcome.

use bytes::Bytes;
use hostel_backoff::exponential;
use std::time::Duration;

/// The longest delay between two attempts, from a plugin or from the configuration: a longer one would leave the task pending
/// for ever.
pub const MAX_RETRY_DELAY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often a task is tried, and how long it waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The number of attempts, the first included; at least 1.
    pub max_attempts: u32,
    /// The longest delay before the second attempt. It doubles with each further attempt.
    pub backoff_initial: Duration,
    /// The longest delay before any attempt.
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

/// How an attempt ended, as the worker observed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptResult {
    /// The handler returned its result.
    Returned(Bytes),
    /// The attempt failed and another one may succeed: the handler returned a retryable error, trapped
    /// or timed out.
    Retryable {
        /// What happened.
        error: String,
        /// When to try again, if the handler said so.
        after: Option<Duration>,
    },
    /// No further attempt can succeed: the handler returned a permanent error, or a limit was exceeded.
    Permanent {
        /// What happened.
        error: String,
    },
    /// The node died or lost its lease, after `losses` such ends that were not counted as attempts.
    Lost {
        /// How many attempts of the task were lost before and not counted.
        losses: u32,
    },
    /// A cancellation was requested.
    Cancelled,
    /// The node is shutting down, or no longer has the plugin. The attempt is not counted.
    Drained,
}

/// What becomes of the task, for the queue to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The task ends with a result.
    Completed {
        /// The result.
        result: Bytes,
    },
    /// Pending again, due in `after`.
    Retry {
        /// How long to wait.
        after: Duration,
        /// What happened.
        error: String,
    },
    /// The task ends as failed.
    Failed {
        /// What happened.
        error: String,
    },
    /// The task ends as cancelled.
    Cancelled,
    /// Pending again at once; the attempt is not counted.
    Released,
    /// Pending again, due in `after`; a loss is counted instead of the attempt.
    Lost {
        /// How long to wait.
        after: Duration,
        /// What happened.
        error: String,
    },
}

/// A task with this many losses is a suspect.
pub const SUSPECT_AFTER: u32 = 2;

/// Returns whether a task with this many losses is suspected of killing its nodes.
///
/// Many tasks are lost with a node, and at most one of them is the reason, so the first losses count as
/// attempts of none. A suspect runs as the only one on its node, beside tasks that are not suspected. If
/// that node dies as well, the attempt counts: a task that kills its nodes runs out of attempts, and the
/// tasks lost with it do not.
pub fn is_suspect(losses: u32) -> bool {
    losses >= SUSPECT_AFTER
}

/// Decides what becomes of a task whose attempt number `attempt` (1 for the first) has ended.
/// `jitter`, in `0.0..=1.0`, scales the delay ("full jitter").
pub fn transition(
    result: AttemptResult,
    attempt: u32,
    policy: &RetryPolicy,
    jitter: f64,
) -> Outcome {
    let (error, after) = match result {
        AttemptResult::Returned(result) => return Outcome::Completed { result },
        AttemptResult::Permanent { error } => return Outcome::Failed { error },
        AttemptResult::Cancelled => return Outcome::Cancelled,
        AttemptResult::Drained => return Outcome::Released,
        AttemptResult::Retryable { error, after } => (error, after),
        AttemptResult::Lost { losses } => {
            let error = "the node that ran this attempt died or lost its lease".into();
            if !is_suspect(losses) {
                let after = policy.backoff(attempt, jitter);
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
    let after = after.unwrap_or_else(|| policy.backoff(attempt, jitter));
    Outcome::Retry { after, error }
}

impl RetryPolicy {
    /// Returns the delay after attempt number `attempt`.
    fn backoff(&self, attempt: u32, jitter: f64) -> Duration {
        self.max_backoff(attempt).mul_f64(jitter.clamp(0.0, 1.0))
    }

    /// Returns the longest delay after attempt number `attempt`.
    fn max_backoff(&self, attempt: u32) -> Duration {
        exponential(self.backoff_initial, self.backoff_max, attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retryable() -> AttemptResult {
        AttemptResult::Retryable {
            error: "no".into(),
            after: None,
        }
    }

    fn delay(attempt: u32, jitter: f64) -> Duration {
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
    fn delays_double_up_to_the_longest_and_never_overflow() {
        let seconds = [1, 2, 3, 9, 10, 40, u32::MAX - 1].map(|n| delay(n, 1.0).as_secs());
        assert_eq!(seconds, [1, 2, 4, 256, 300, 300, 300]);
        assert_eq!(delay(3, 0.0), Duration::ZERO);
        assert_eq!(delay(3, 0.5), Duration::from_secs(2));
    }

    #[test]
    fn the_last_attempt_fails_with_its_number() {
        let policy = RetryPolicy {
            max_attempts: 3,
            ..RetryPolicy::default()
        };
        let losses = SUSPECT_AFTER;
        for ended in [retryable(), AttemptResult::Lost { losses }] {
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
    fn a_loss_counts_as_an_attempt_of_suspects_only() {
        let policy = RetryPolicy {
            max_attempts: 1,
            ..RetryPolicy::default()
        };
        for losses in 0..SUSPECT_AFTER {
            assert!(!is_suspect(losses));
            let outcome = transition(AttemptResult::Lost { losses }, 1, &policy, 1.0);
            assert!(
                matches!(outcome, Outcome::Lost { after, .. } if after.as_secs() == 1),
                "{outcome:?}"
            );
        }
        let losses = SUSPECT_AFTER;
        assert!(is_suspect(losses));
        let outcome = transition(AttemptResult::Lost { losses }, 1, &policy, 1.0);
        assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    }

    #[test]
    fn a_handler_may_choose_its_delay() {
        let after = Some(Duration::from_secs(7));
        let ended = AttemptResult::Retryable {
            error: "busy".into(),
            after,
        };
        assert!(matches!(
            transition(ended, 1, &RetryPolicy::default(), 0.0),
            Outcome::Retry { after, .. } if after.as_secs() == 7
        ));
    }

    #[test]
    fn permanent_cancelled_and_drained_ignore_the_remaining_attempts() {
        let policy = RetryPolicy::default();
        let error = String::from("bad input");
        assert_eq!(
            transition(
                AttemptResult::Permanent {
                    error: error.clone()
                },
                1,
                &policy,
                0.0
            ),
            Outcome::Failed { error }
        );
        assert_eq!(
            transition(AttemptResult::Cancelled, 9, &policy, 0.0),
            Outcome::Cancelled
        );
        assert_eq!(
            transition(AttemptResult::Drained, 9, &policy, 0.0),
            Outcome::Released
        );
    }
}
