//! Random operations on a queue, held against a small model in memory. The seed is printed when
//! they disagree; `HOSTEL_TEST_SEED` runs that one again.

use super::{due_at, finish_one, list_all, name, ran, task, want};
use bytes::Bytes;
use hostel::{
    queue::{
        Cancel, Filter, Finished, LeaseRequest, LeaseToken, Renewal, Requeue, Submitted, TaskQueue,
    },
    task::{Name, Outcome, State, StateKind, Task, is_suspect},
};
use std::{collections::BTreeMap, time::Duration};

const STEPS: usize = 600;
const IDS: usize = 40;
const TYPES: [&str; 3] = ["a", "b", "c"];
const HOUR: Duration = Duration::from_secs(3600);

/// What the model knows of a task. Due times come from the queue's own clock, so they are read
/// from the queue once, when the task begins to wait.
#[derive(Debug, Clone)]
struct Known {
    number: usize,
    task_type: &'static str,
    payload: Vec<u8>,
    state: StateKind,
    due: u64,
    attempt: u32,
    finishes: u32,
    error: Option<String>,
    fence: Option<u64>,
    losses: u32,
    cancel_requested: bool,
    result: Vec<u8>,
    /// The ending that was applied last.
    applied: Option<(LeaseToken, Outcome)>,
}

struct Model<'q> {
    queue: &'q dyn TaskQueue,
    random: fastrand::Rng,
    tasks: BTreeMap<Name, Known>,
    /// Tokens that once held a task.
    tokens: Vec<LeaseToken>,
    submitted: usize,
}

/// Prints the seed when the run panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was HOSTEL_TEST_SEED={}", self.0);
        }
    }
}

pub async fn random_operations_match_the_model(queue: &dyn TaskQueue) {
    let given = std::env::var("HOSTEL_TEST_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().unwrap());
    let _seed = Seed(seed);
    let mut model = Model {
        queue,
        random: fastrand::Rng::with_seed(seed),
        tasks: BTreeMap::new(),
        tokens: Vec::new(),
        submitted: 0,
    };
    for step in 0..STEPS {
        match model.random.u32(..100) {
            0..30 => model.submit().await,
            30..55 => model.lease().await,
            55..80 => model.finish().await,
            80..86 => model.cancel().await,
            86..91 => model.requeue().await,
            91..95 => model.renew().await,
            95..97 => model.purge().await,
            _ => model.compare_lists().await,
        }
        if step % 10 == 0 {
            model.compare_counts().await;
        }
    }
    model.compare_lists().await;
    for id in model.tasks.keys().cloned().collect::<Vec<_>>() {
        model.compare(&id).await;
    }
}

impl Model<'_> {
    fn any_id(&mut self) -> Name {
        name(&format!("t{}", self.random.usize(..IDS)))
    }

    async fn submit(&mut self) {
        let mut batch = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..self.random.usize(1..4) {
            let id = self.any_id();
            let task_type = TYPES[self.random.usize(..TYPES.len())];
            let payload = vec![self.random.u8(..2)];
            batch.push(task(id.as_str(), task_type, &payload));
            expected.push(match self.tasks.get(&id) {
                Some(known) if known.task_type == task_type && known.payload == payload => {
                    Submitted::Existing
                }
                Some(_) => Submitted::Conflict,
                None => {
                    self.submitted += 1;
                    let known = Known {
                        number: self.submitted,
                        task_type,
                        payload,
                        state: StateKind::Pending,
                        due: 0,
                        attempt: 0,
                        finishes: 0,
                        error: None,
                        fence: None,
                        losses: 0,
                        cancel_requested: false,
                        result: Vec::new(),
                        applied: None,
                    };
                    self.tasks.insert(id, known);
                    Submitted::Created
                }
            });
        }
        let ids: Vec<Name> = batch.iter().map(|task| task.id().clone()).collect();
        assert_eq!(self.queue.submit(batch).await.unwrap(), expected);
        for id in ids {
            self.compare(&id).await;
        }
    }

    async fn lease(&mut self) {
        let types: Vec<(&str, usize)> = TYPES
            .into_iter()
            .filter(|_| self.random.bool())
            .map(|task_type| (task_type, fastrand::usize(..4)))
            .collect();
        let max = self.random.usize(..6);
        // Whatever is due by the model's reckoning was due some milliseconds ago at the latest.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let mut left: BTreeMap<&str, usize> = types.iter().copied().collect();
        let soon = self
            .tasks
            .values()
            .map(|k| k.due)
            .filter(|&d| d < u64::MAX / 2);
        let horizon = soon.min().unwrap_or(0) + HOUR.as_millis() as u64 / 2;
        let mut due: Vec<_> = self
            .tasks
            .iter()
            .filter(|(_, known)| known.state == StateKind::Pending && known.due < horizon)
            .map(|(id, known)| (known.due, known.number, known.task_type, id.clone()))
            .collect();
        due.sort();
        let mut expected = Vec::new();
        let mut suspect = self.random.bool();
        let want = LeaseRequest {
            allow_suspect: suspect,
            ..want(&types, max, HOUR)
        };
        for (_, _, task_type, id) in due {
            let is_suspect = is_suspect(self.tasks[&id].losses);
            if is_suspect && !suspect {
                continue;
            }
            let Some(left) = left.get_mut(task_type).filter(|left| **left > 0) else {
                continue;
            };
            if expected.len() < max {
                *left -= 1;
                suspect &= !is_suspect;
                expected.push(id);
            }
        }
        let leased = self.queue.lease(&want).await.unwrap();
        let got: Vec<Name> = leased.iter().map(|task| task.token.id.clone()).collect();
        assert_eq!(got, expected, "leasing {max} of {types:?}");
        for task in leased {
            let known = self.tasks.get_mut(&task.token.id).unwrap();
            known.state = StateKind::Running;
            known.attempt += 1;
            known.fence = Some(task.token.fence);
            assert_eq!(task.attempt, known.attempt);
            assert_eq!(task.suspect, is_suspect(known.losses));
            assert_eq!(task.payload, known.payload);
            assert_eq!(task.task_type.as_str(), known.task_type);
            assert!(!self.tokens.contains(&task.token), "a fence came twice");
            self.tokens.push(task.token.clone());
            self.compare(&task.token.id).await;
        }
    }

    fn any_token(&mut self) -> Option<LeaseToken> {
        // The late ones more often: they are the ones that still hold.
        let from = match self.random.bool() {
            true => self.tokens.len().saturating_sub(8),
            false => 0,
        };
        let index = (from < self.tokens.len()).then(|| self.random.usize(from..self.tokens.len()));
        index.map(|index| self.tokens[index].clone())
    }

    fn holds(&self, token: &LeaseToken) -> bool {
        self.tasks.get(&token.id).is_some_and(|known| {
            known.state == StateKind::Running && known.fence == Some(token.fence)
        })
    }

    async fn finish(&mut self) {
        let Some(token) = self.any_token() else {
            return;
        };
        let outcome = match self.random.u32(..10) {
            0..3 => Outcome::Completed {
                result: Bytes::from(vec![self.random.u8(..); self.random.usize(..3)]),
            },
            3 => Outcome::Failed {
                error: format!("failed {}", self.random.u8(..)),
            },
            4 => Outcome::Cancelled,
            5 => Outcome::Released,
            6 => Outcome::Retry {
                after: Duration::ZERO,
                error: format!("retry {}", self.random.u8(..)),
            },
            7..9 => Outcome::Lost {
                after: Duration::ZERO,
                error: format!("lost {}", self.random.u8(..)),
            },
            _ => Outcome::Retry {
                after: HOUR,
                error: "much later".into(),
            },
        };
        let holds = self.holds(&token);
        let answer = finish_one(self.queue, &token, outcome.clone()).await;
        // A repeat of what was applied may be answered as if it were applied now.
        let repeats = self
            .tasks
            .get(&token.id)
            .is_some_and(|known| known.applied.as_ref() == Some(&(token.clone(), outcome.clone())));
        assert!(
            (answer == Finished::Applied) == holds || repeats,
            "{answer:?}"
        );
        if !holds {
            return self.compare(&token.id).await;
        }
        let known = self.tasks.get_mut(&token.id).unwrap();
        known.applied = Some((token.clone(), outcome.clone()));
        known.state = match outcome {
            Outcome::Completed { result } => {
                known.result = result.to_vec();
                StateKind::Completed
            }
            Outcome::Failed { error } => {
                known.error = Some(error);
                StateKind::Failed
            }
            Outcome::Cancelled => StateKind::Cancelled,
            Outcome::Released => {
                known.attempt -= 1;
                StateKind::Pending
            }
            Outcome::Lost { error, .. } => {
                known.attempt -= 1;
                known.losses += 1;
                known.error = Some(error);
                StateKind::Pending
            }
            Outcome::Retry { error, .. } => {
                known.error = Some(error);
                StateKind::Pending
            }
        };
        if known.state == StateKind::Pending && known.cancel_requested {
            known.state = StateKind::Cancelled;
        }
        known.finishes += u32::from(known.state.is_terminal());
        known.cancel_requested = false;
        self.compare(&token.id).await;
    }

    async fn cancel(&mut self) {
        let id = self.any_id();
        let answer = self.queue.cancel(&id).await.unwrap();
        let Some(known) = self.tasks.get_mut(&id) else {
            return assert_eq!(answer, Cancel::Unknown);
        };
        let expected = match known.state {
            StateKind::Pending => {
                known.state = StateKind::Cancelled;
                known.finishes += 1;
                Cancel::Cancelled
            }
            StateKind::Running => {
                known.cancel_requested = true;
                Cancel::Requested
            }
            ended => Cancel::Ended(ended),
        };
        assert_eq!(answer, expected);
        self.compare(&id).await;
    }

    async fn requeue(&mut self) {
        let id = self.any_id();
        let answer = self.queue.requeue(&id).await.unwrap();
        let Some(known) = self.tasks.get_mut(&id) else {
            return assert_eq!(answer, Requeue::Unknown);
        };
        let expected = match known.state {
            StateKind::Failed | StateKind::Cancelled => {
                known.state = StateKind::Pending;
                (known.attempt, known.finishes, known.losses) = (0, 0, 0);
                Requeue::Requeued
            }
            other => Requeue::Refused(other),
        };
        assert_eq!(answer, expected);
        self.compare(&id).await;
    }

    async fn renew(&mut self) {
        let Some(token) = self.any_token() else {
            return;
        };
        let expected = match self.holds(&token) {
            true if self.tasks[&token.id].cancel_requested => Renewal::CancelRequested,
            true => Renewal::Held,
            false => Renewal::Lost,
        };
        let answers = self.queue.renew(&[token], HOUR).await.unwrap();
        assert_eq!(answers, [expected]);
    }

    async fn purge(&mut self) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let ended = |known: &Known| known.state.is_terminal();
        let expected = self.tasks.values().filter(|known| ended(known)).count();
        let purged = self.queue.purge(Duration::ZERO, 1000).await.unwrap();
        assert_eq!(purged, expected);
        self.tasks.retain(|_, known| !ended(known));
    }

    /// Holds the queue's view of one task against the model's, and learns its due time.
    async fn compare(&mut self, id: &Name) {
        let found = self.queue.get(id).await.unwrap();
        let Some(known) = self.tasks.get_mut(id) else {
            return assert_eq!(found, None);
        };
        let found = found.unwrap_or_else(|| panic!("{id} is gone; {known:?}"));
        same(&found, known);
        assert_eq!(found.payload, known.payload);
        assert_eq!(found.error, known.error);
        if let State::Completed { result, .. } = &found.state {
            assert_eq!(result[..], known.result);
            assert_eq!(found.executed_by, Some(ran()));
        }
        if let State::Running {
            cancel_requested, ..
        } = found.state
        {
            assert_eq!(cancel_requested, known.cancel_requested);
        }
        if let Some(due) = due_at(&found) {
            known.due = due.0;
        }
    }

    async fn compare_lists(&mut self) {
        let filter = Filter {
            state: self
                .random
                .choice(StateKind::ALL)
                .filter(|_| fastrand::bool()),
            task_type: self
                .random
                .choice(TYPES)
                .filter(|_| fastrand::bool())
                .map(name),
        };
        let size = self.random.usize(1..20);
        let listed = list_all(self.queue, &filter, size).await;
        let mut expected: Vec<&Known> = self
            .tasks
            .values()
            .filter(|known| filter.state.is_none_or(|state| state == known.state))
            .filter(|known| match &filter.task_type {
                Some(task_type) => task_type.as_str() == known.task_type,
                None => true,
            })
            .collect();
        expected.sort_by_key(|known| std::cmp::Reverse(known.number));
        assert_eq!(listed.len(), expected.len(), "{filter:?}");
        for (found, known) in listed.iter().zip(expected) {
            same(found, known);
        }
    }

    async fn compare_counts(&mut self) {
        let mut expected = BTreeMap::new();
        for known in self.tasks.values() {
            *expected
                .entry((name(known.task_type), known.state))
                .or_insert(0) += 1;
        }
        assert_eq!(self.queue.counts().await.unwrap(), expected);
    }
}

fn same(found: &Task, known: &Known) {
    assert_eq!(found.task_type.as_str(), known.task_type);
    assert_eq!(found.state.kind(), known.state, "{found:?} {known:?}");
    assert_eq!(found.attempt, known.attempt, "{found:?} {known:?}");
    assert_eq!(found.finishes, known.finishes, "{found:?} {known:?}");
    assert_eq!(found.losses, known.losses, "{found:?} {known:?}");
}
