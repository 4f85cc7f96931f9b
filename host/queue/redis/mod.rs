//! The queue that many nodes share: tasks in Redis, every change one script over a batch
//! (`script/*.lua`, where the keys are told too). This page wires the parts and keeps the contract's
//! signatures.

mod bulk;
mod core;
mod ending;
mod events;
mod faults;
mod leases;
mod look;
mod memory;
mod pace;
mod pieces;
mod row;
mod script;
mod store;
mod submits;
mod upkeep;
mod wants;

use self::{
    bulk::Bulk,
    core::{Core, FORMAT, Opened, ms},
    events::Reader,
    pace::Pace,
    pieces::{gathered, pieces},
    submits::Sender,
    upkeep::Found,
};
use super::{
    Cancel, Change, Counts, Durability, Error, Expired, Filter, Finish, Finished, LeaseRequest,
    LeaseToken, Leased, Listing, Page, Renewal, Requeue, Submitted, TaskQueue, Watch,
};
use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use hostel_runtime::health::{Background, Health, Part};
use hostel_task::{Name, Route, StateKind, Submission, Task, TaskId, UnixMs};
use redis::Script;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::TaskTracker;

/// How long Redis may be away when a node starts.
const FIRST: Duration = Duration::from_secs(10);

/// How long the readers of events may keep an opening queue waiting.
const EVENTS: Duration = Duration::from_secs(2);

/// How many tasks one script forgets.
const PURGE_STEP: usize = 256;

pub struct RedisQueue {
    core: Arc<Core>,
    found: Arc<Found>,
    leases: Arc<Pace>,
    endings: Pace,
    /// Where the next lease begins, so that no shard comes last for ever.
    turn: AtomicUsize,
    /// Leases on their way, and those on their way back.
    tracker: TaskTracker,
    /// `None` once closed.
    open: Mutex<Option<Open>>,
}

/// What ends when the queue is closed.
struct Open {
    submits: Vec<Sender>,
    /// Ends when `submits` is gone.
    serving: Vec<Background>,
    _looking: Vec<Background>,
}

impl RedisQueue {
    /// Waits for Redis, though not for long. `Misconfigured` when the server may throw tasks away, or
    /// when what it holds was written by another version or for another number of shards.
    pub async fn open(settings: &hostel_config::RedisQueue) -> Result<Self, Error> {
        Self::open_reporting(settings, Health::default()).await
    }

    /// The same, and reports its faults to `health`.
    pub async fn open_reporting(
        settings: &hostel_config::RedisQueue,
        health: Health,
    ) -> Result<Self, Error> {
        let since = Instant::now();
        let (core, found) = loop {
            match Self::begin(settings, &health).await {
                Ok(begun) => break begun,
                Err(error @ Error::Unavailable { .. }) if since.elapsed() < FIRST => {
                    tracing::debug!("waiting for Redis: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => return Err(error),
            }
        };
        let (mut submits, mut beginning, mut serving) = (Vec::new(), Vec::new(), Vec::new());
        let (keeping, kept) = (core.clone(), found.clone());
        let upkeep = move || upkeep::run(keeping.clone(), kept.clone());
        let mut looking = vec![health.restarting(Part::Queue, "redis-upkeep", upkeep)];
        for shard in core.shards() {
            let bulk = Bulk::connect(&core.server).await;
            let bulk = Arc::new(bulk.map_err(|error| core.explain(&error))?);
            let (sender, receiver) = submits::channel();
            let its = core.clone();
            let serve = move || submits::serve(its.clone(), shard, bulk.clone(), receiver.clone());
            serving.push(health.restarting(Part::Queue, "redis-submitter", serve));
            submits.push(sender);
            let (begun, beginning_of_it) = oneshot::channel();
            beginning.push(beginning_of_it);
            let (its, mut begun) = (core.clone(), Some(begun));
            let read = move || Reader::new(its.clone(), shard, begun.take()).run();
            looking.push(health.restarting(Part::Queue, "redis-event-reader", read));
        }
        // Who watches from the start on shall miss nothing; but the queue serves without it, too.
        let _ = tokio::time::timeout(EVENTS, join_all(beginning)).await;
        Ok(Self {
            core,
            found,
            leases: Arc::default(),
            endings: Pace::default(),
            turn: AtomicUsize::new(0),
            tracker: TaskTracker::new(),
            open: Mutex::new(Some(Open {
                submits,
                serving,
                _looking: looking,
            })),
        })
    }

    async fn begin(
        settings: &hostel_config::RedisQueue,
        health: &Health,
    ) -> Result<(Arc<Core>, Arc<Found>), Error> {
        let core = Core::connect(settings, health.clone()).await?;
        let found = Found::default();
        upkeep::look(&core, &found).await?;
        for shard in core.shards() {
            let Opened {
                format,
                shards: kept,
                store,
            } = core.open(shard).await?;
            let shards = core.tags.len();
            if format != FORMAT {
                return Err(Error::Misconfigured(format!(
                    "the tasks in Redis have format {format}, and this version of Hostel knows \
                     {FORMAT}; use the version that wrote them, or another queue.prefix"
                )));
            }
            if kept != shards {
                return Err(Error::Misconfigured(format!(
                    "the tasks in Redis are divided into {kept} shards, and queue.shards is {shards}; \
                     all nodes need the same number"
                )));
            }
            core.stores.found(shard, store);
        }
        Ok((Arc::new(core), Arc::new(found)))
    }

    /// Every change under this lock is one assignment, so a panic elsewhere does not spoil it.
    fn opened(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn core(&self) -> Result<&Arc<Core>, Error> {
        match self.opened().is_some() {
            true => Ok(&self.core),
            false => Err(closed()),
        }
    }

    /// Runs a script that concerns one task, and returns the state that it was in; `None` when there
    /// is no such task.
    async fn steer(&self, script: &Script, id: &TaskId) -> Result<Option<(String, Route)>, Error> {
        let core = self.core()?;
        let answer: Vec<String> = core
            .call(core.shard_of(id), script, |call| {
                call.arg(id.as_str());
            })
            .await
            .inspect_err(|_| core.publisher.publish_missed())?;
        let [state, lane] = <[String; 2]>::try_from(answer).unwrap_or_default();
        if state.is_empty() {
            return Ok(None);
        }
        let lane = Route::parse(&lane).ok_or_else(|| row::corrupt(id.as_str(), "its lane"))?;
        Ok(Some((state, lane)))
    }

    fn tell(&self, id: &TaskId, lane: Route, state: StateKind, cancel_requested: bool) {
        let change = Change::new(id.clone(), lane.task_type, state);
        self.core.publisher.publish(vec![Change {
            cancel_requested,
            ..change
        }]);
    }
}

fn closed() -> Error {
    Error::Unavailable {
        reason: "the task queue is closed".into(),
        outcome_unknown: false,
    }
}

fn known_state(id: &TaskId, letter: &str) -> Result<StateKind, Error> {
    row::state(letter).ok_or_else(|| row::corrupt(id.as_str(), "its state"))
}

#[async_trait]
impl TaskQueue for RedisQueue {
    async fn submit(&self, tasks: Vec<Submission>) -> Result<Vec<Submitted>, Error> {
        let core = self.core()?;
        let senders = match &*self.opened() {
            Some(open) => open.submits.clone(),
            None => return Err(closed()),
        };
        // Most calls bring one task.
        if tasks.len() == 1 {
            let shard = core.shard_of(tasks[0].id());
            return submits::submit(&senders[shard], tasks).await;
        }
        let submit = pieces(core, &tasks, Submission::id, submits::size).into_iter();
        let submit = submit.map(|(shard, places)| {
            // Content is shared, so that a copy costs little.
            let piece = places.iter().map(|&place| tasks[place].clone()).collect();
            let sender = &senders[shard];
            async move {
                let answers = submits::submit(sender, piece).await?;
                Ok::<Vec<_>, Error>(places.into_iter().zip(answers).collect())
            }
        });
        gathered(tasks.len(), try_join_all(submit).await?)
    }

    async fn lease(&self, want: &LeaseRequest) -> Result<Vec<Leased>, Error> {
        let core = self.core()?.clone();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // On its own, so that a caller who goes away leaves no lease behind.
        let (tracker, want, pace) = (self.tracker.clone(), want.clone(), self.leases.clone());
        let lease = async move {
            pace.rest().await;
            let begun = Instant::now();
            let handed = leases::lease(core, tracker, want, turn).await?;
            pace.carried(begun, handed.len());
            Ok::<_, Error>(handed)
        };
        let handed = self.tracker.spawn(lease).await;
        Ok(handed.map_err(|_| closed())??.take())
    }

    async fn renew(&self, held: &[LeaseToken], ttl: Duration) -> Result<Vec<Renewal>, Error> {
        ending::renew(self.core()?, held, ttl).await
    }

    async fn finish(&self, ended: Vec<Finish>) -> Result<Vec<Finished>, Error> {
        let begun = Instant::now();
        let finished = ending::finish(self.core()?, &ended).await?;
        // Whoever waits for an end has been told of it; this holds up only the next call.
        self.endings.carried(begun, ended.len());
        self.endings.rest().await;
        Ok(finished)
    }

    async fn expired(
        &self,
        ttl: Duration,
        except: &[Name],
        max: usize,
    ) -> Result<Vec<Expired>, Error> {
        look::expired(self.core()?, ttl, except, max).await
    }

    async fn cancel(&self, id: &TaskId) -> Result<Cancel, Error> {
        let Some((letter, lane)) = self.steer(&self.core.scripts.cancel, id).await? else {
            return Ok(Cancel::Unknown);
        };
        if letter == "k" {
            return Ok(Cancel::Requested);
        }
        Ok(match known_state(id, &letter)? {
            StateKind::Pending => {
                self.tell(id, lane, StateKind::Cancelled, false);
                Cancel::Cancelled
            }
            StateKind::Running => {
                self.tell(id, lane, StateKind::Running, true);
                Cancel::Requested
            }
            ended => Cancel::Ended(ended),
        })
    }

    async fn requeue(&self, id: &TaskId) -> Result<Requeue, Error> {
        let Some((letter, lane)) = self.steer(&self.core.scripts.requeue, id).await? else {
            return Ok(Requeue::Unknown);
        };
        // What a damaged record does not say cannot be run.
        if letter == "d" {
            return Ok(Requeue::Refused(StateKind::Failed));
        }
        Ok(match known_state(id, &letter)? {
            StateKind::Failed | StateKind::Cancelled => {
                self.tell(id, lane, StateKind::Pending, false);
                Requeue::Requeued
            }
            other => Requeue::Refused(other),
        })
    }

    async fn get(&self, id: &TaskId) -> Result<Option<Task>, Error> {
        look::get(self.core()?, id).await
    }

    async fn list(&self, filter: &Filter, page: &Page) -> Result<Listing, Error> {
        let after = look::parse_token(page.after.as_deref())?;
        look::list(self.core()?, filter, page, after).await
    }

    async fn counts(&self) -> Result<Counts, Error> {
        look::counts(self.core()?).await
    }

    async fn next_due(&self, want: &LeaseRequest) -> Result<Option<Duration>, Error> {
        look::next_due(self.core()?, want).await
    }

    async fn oldest_blocked(&self, want: &LeaseRequest) -> Result<Option<Name>, Error> {
        look::oldest_blocked(self.core()?, want).await
    }

    async fn purge(&self, age: Duration, max: usize) -> Result<usize, Error> {
        let core = self.core()?;
        let age = ms(age);
        core.kept.store(age, Ordering::Relaxed);
        let (mut gone, mut answers) = (0, Vec::new());
        for shard in core.shards() {
            loop {
                let step = PURGE_STEP.min(max - gone);
                let purge = core.call(shard, &core.scripts.purge, |call| {
                    call.arg(age).arg(step);
                });
                let purged: Result<usize, Error> = if step == 0 { Ok(0) } else { purge.await };
                let count = *purged.as_ref().unwrap_or(&0);
                answers.push((shard, purged));
                gone += count;
                if count > 0 {
                    core.recent.clear();
                }
                if count == 0 || count < step {
                    break;
                }
            }
        }
        core.working("forget old tasks", answers)?;
        Ok(gone)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn now(&self) -> UnixMs {
        self.core.now()
    }

    fn durability(&self) -> Durability {
        self.found.get()
    }

    fn watch(&self) -> Watch {
        // A closed queue has nothing to tell: this watch ends at once.
        match self.core() {
            Ok(core) => core.publisher.watch(),
            Err(_) => super::Publisher::new().watch(),
        }
    }

    /// What was submitted before is answered; what was leased and not taken goes back.
    async fn close(&self) {
        let Some(open) = self.opened().take() else {
            return;
        };
        open.serving.iter().for_each(Background::expect_end);
        drop(open.submits);
        for mut serving in open.serving {
            serving.ended().await;
        }
        self.tracker.close();
        self.tracker.wait().await;
    }
}
