//! Random operations on a queue, compared with a small model in memory. The seed is printed when they
//! differ; `HOSTEL_TEST_SEED` runs the same operations again.

mod actions;
mod known;
mod limits;
mod order;

use super::helpers::*;
use crate::details::ReadLimits;
use bytes::Bytes;
use hostel_task::is_suspect;
use known::{Known, any_group, any_options, any_progress, any_tag};
use limits::{RandomLimits, Spent};
use order::{Allowance, Order};
use std::collections::BTreeMap;

const STEPS: usize = 800;
const IDS: usize = 40;
const TYPES: [&str; 3] = ["a", "b", "c"];

struct Model<'q> {
    queue: &'q dyn TaskQueue,
    random: fastrand::Rng,
    tasks: BTreeMap<Name, Known>,
    /// The task that has a unique key of a type.
    keys: BTreeMap<(&'static str, Name), Name>,
    order: Order,
    spent: Spent,
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

pub(super) async fn random_operations_match_the_model(queue: &dyn TaskQueue) {
    let given = std::env::var("HOSTEL_TEST_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().unwrap());
    let _seed = Seed(seed);
    let mut model = Model {
        queue,
        random: fastrand::Rng::with_seed(seed),
        tasks: BTreeMap::new(),
        keys: BTreeMap::new(),
        order: Order::default(),
        spent: Spent::default(),
        tokens: Vec::new(),
        submitted: 0,
    };
    for step in 0..STEPS {
        match model.random.u32(..100) {
            0..30 => model.submit().await,
            30..55 => model.lease().await,
            55..78 => model.finish().await,
            78..89 => model.act().await,
            89..92 => model.renew().await,
            92..94 => model.expire().await,
            94..97 => model.purge().await,
            _ => model.compare_lists().await,
        }
        model.update_order();
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
            let mut task_type = TYPES[self.random.usize(..TYPES.len())];
            let mut payload = vec![self.random.u8(..2)];
            let mut options = any_options(&mut self.random);
            let known = self.tasks.get(&id);
            if let Some(known) = known.filter(|_| self.random.bool()) {
                task_type = known.task_type;
                payload.clone_from(&known.payload);
                options.clone_from(&known.options);
            }
            let submission = task(id.as_str(), task_type, &payload);
            batch.push(submission.with(options.clone()));
            expected.push(self.expect_submission(id, task_type, payload, options));
        }
        let ids: Vec<Name> = batch.iter().map(|task| task.id().clone()).collect();
        assert_eq!(self.queue.submit(batch).await.unwrap(), expected);
        for id in ids {
            self.compare(&id).await;
        }
    }

    fn expect_submission(
        &mut self,
        id: Name,
        task_type: &'static str,
        payload: Vec<u8>,
        options: TaskOptions,
    ) -> Submitted {
        let known = Known::new(self.submitted + 1, task_type, payload, options);
        if let Some(stored) = self.tasks.get(&id) {
            let given = (known.task_type, &known.payload, &known.options);
            return if given == (stored.task_type, &stored.payload, &stored.options) {
                Submitted::Existing
            } else {
                Submitted::Conflict
            };
        }
        if let Some(key) = known.key() {
            let holder = self.keys.entry(key).or_insert_with(|| id.clone());
            if *holder != id {
                return Submitted::Duplicate(holder.clone());
            }
        }
        self.submitted += 1;
        self.tasks.insert(id, known);
        Submitted::Created
    }

    /// A task that is due later is not due while the model runs.
    fn due_by(&self) -> u64 {
        self.queue.now().after(HOUR / 2).0
    }

    fn update_order(&mut self) {
        let due_by = self.due_by();
        self.order.update(self.tasks.values(), due_by);
    }

    async fn lease(&mut self) {
        let mut types: Vec<(&'static str, usize)> = Vec::new();
        for task_type in TYPES {
            if self.random.bool() {
                types.push((task_type, self.random.usize(..4)));
            }
        }
        let max = self.random.usize(..6);
        // What is due by the model has been due for some milliseconds.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let mut allowance = Allowance {
            remaining: types.iter().copied().collect(),
            in_groups: BTreeMap::new(),
            suspect: self.random.bool(),
            due_by: self.due_by(),
        };
        let mut request = LeaseRequest {
            allow_suspect: allowance.suspect,
            ..request(&types, max, HOUR)
        };
        let limits = RandomLimits::any(&types, &mut self.random);
        limits.apply(&mut request);
        limits.restrict(&mut allowance, &self.tasks, &self.spent);
        let leased = self.queue.lease(&request).await.unwrap();
        assert!(leased.len() <= max);
        self.order.pass_over(&self.tasks, &allowance);
        for task in &leased {
            self.order.take(&self.tasks, &task.token.id, &mut allowance);
            let known = &self.tasks[&task.token.id];
            limits.spend(known, &mut self.spent);
            self.leased(task);
            self.update_order();
        }
        if leased.len() < max {
            let left: Vec<_> = allowance.candidates(&self.tasks).collect();
            assert!(left.is_empty(), "leasing {max} of {types:?} left {left:?}");
        }
        for task in &leased {
            self.compare(&task.token.id).await;
        }
    }

    fn leased(&mut self, task: &Leased) {
        let known = self.tasks.get_mut(&task.token.id).unwrap();
        known.state = StateKind::Running;
        known.attempt += 1;
        known.fence = Some(task.token.fence);
        known.progress = None;
        assert_eq!(task.attempt, known.attempt);
        assert_eq!(task.suspect, is_suspect(known.losses));
        assert_eq!(task.payload, known.payload);
        assert_eq!(task.task_type.as_str(), known.task_type);
        let options = task.options.as_deref().cloned().unwrap_or_default();
        assert_eq!(options, known.current_options());
        assert!(!self.tokens.contains(&task.token), "a fence was used twice");
        self.tokens.push(task.token.clone());
    }

    /// Gives back the unique key of a task that has ended.
    fn free_key(&mut self, id: &Name) {
        let known = &self.tasks[id];
        let key = known.key().filter(|_| known.frees_key());
        if let Some(key) = key
            && known.state.is_terminal()
            && self.keys.get(&key) == Some(id)
        {
            self.keys.remove(&key);
        }
    }

    fn any_token(&mut self) -> Option<LeaseToken> {
        // The latest ones more often, since they may still hold a task.
        let from = if self.random.bool() {
            self.tokens.len().saturating_sub(8)
        } else {
            0
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
        // A repeat of an applied finish may be answered as applied, too.
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
        known.attempts += 1;
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
        let reason = known.cancel_reason.take();
        if known.state == StateKind::Cancelled && reason.is_some() {
            known.error = reason;
        }
        known.cancel_requested = false;
        self.free_key(&token.id);
        self.compare(&token.id).await;
    }

    async fn renew(&mut self) {
        let Some(token) = self.any_token() else {
            return;
        };
        let expected = if !self.holds(&token) {
            Renewal::Lost
        } else if self.tasks[&token.id].cancel_requested {
            Renewal::CancelRequested
        } else {
            Renewal::Held
        };
        let (id, progress) = (token.id.clone(), any_progress(&mut self.random));
        if expected != Renewal::Lost && progress.is_some() {
            let known = self.tasks.get_mut(&id).unwrap();
            known.progress.clone_from(&progress);
        }
        let answers = self.queue.renew(&[Renew { token, progress }], HOUR).await;
        assert_eq!(answers.unwrap(), [expected]);
        self.compare(&id).await;
    }

    async fn expire(&mut self) {
        let late = self.tasks.iter().filter(|(_, known)| known.expires());
        let late: Vec<Name> = late.map(|(id, _)| id.clone()).collect();
        assert_eq!(self.queue.expire(1000).await.unwrap(), late.len());
        for id in late {
            let known = self.tasks.get_mut(&id).unwrap();
            known.state = StateKind::Failed;
            known.finishes += 1;
            known.error = Some("no attempt had begun by start_by_ms".into());
            known.error_class = Some(ErrorClass::Expired);
            self.free_key(&id);
            self.compare(&id).await;
        }
    }

    async fn purge(&mut self) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let ended = self.tasks.values().filter(|known| known.can_be_purged());
        let expected = ended.count();
        let purged = self
            .queue
            .purge(&Retention::of(Duration::ZERO), 1000)
            .await
            .unwrap();
        assert_eq!(purged, expected);
        self.tasks.retain(|_, known| !known.can_be_purged());
    }

    /// Compares one task of the queue with the model's, and takes over its due time.
    async fn compare(&mut self, id: &Name) {
        let found = self.queue.get(id).await.unwrap();
        let Some(known) = self.tasks.get_mut(id) else {
            return assert_eq!(found, None);
        };
        let found = found.unwrap_or_else(|| panic!("{id} is gone; {known:?}"));
        known.assert_same(&found);
        let details = self.queue.get_details(id, ReadLimits::default()).await;
        let attempts = details.unwrap().unwrap().attempts;
        let ended = attempts.latest().len() + attempts.left_out() as usize;
        assert_eq!(ended, known.attempts, "{attempts:?} {known:?}");
        assert_eq!(found.payload, known.payload);
        assert_eq!(found.error, known.error);
        if let State::Completed { result, .. } = &found.state {
            assert_eq!(result[..], known.result);
            assert_eq!(found.executed_by, Some(executed_by()));
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
        let random = &mut self.random;
        let filter = Filter {
            state: random.bool().then(|| StateKind::ALL[random.usize(..5)]),
            task_type: random.bool().then(|| name(TYPES[random.usize(..3)])),
            group: (random.u8(..4) == 0).then(|| any_group(random)),
            tag: (random.u8(..4) == 0).then(|| any_tag(random)),
            ..Filter::default()
        };
        let size = self.random.usize(1..20);
        let listed = list_all(self.queue, &filter, size).await;
        let mut expected: Vec<&Known> = self
            .tasks
            .values()
            .filter(|known| known.matches(&filter))
            .collect();
        expected.sort_by_key(|known| std::cmp::Reverse(known.number));
        assert_eq!(listed.len(), expected.len(), "{filter:?}");
        for (found, known) in listed.iter().zip(expected) {
            known.assert_same(found);
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
