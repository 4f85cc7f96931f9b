//! Opens and closes the queue, and implements the queue's contract with its parts.

use super::{
    bulk::BulkConnection,
    changes,
    coalescer::Coalescer,
    control, details,
    entry::Entry,
    errors::closed,
    events::EventReader,
    finish,
    lease_guard::{HandOffCall, LeaseGuard},
    leases, listing,
    maintenance::{self, DetectedDurability},
    offers::Offer,
    pauses::{self, Pauses},
    pending, queries,
    shard_client::{FORMAT, OLD_FORMAT, Opened, ShardClient},
    submit_batcher::{self, Sender},
    unique,
};
use crate::{
    ChangesRead, Counts, Durability, Error, Expired, Filter, Finish, Finished, LeaseRequest,
    Leased, Listing, Page, Place, Publisher, ReadLimits, Renew, Renewal, StatusRead, Submitted,
    TaskDetails, TaskQueue, Usage, UsageScope, Watch,
};
use async_trait::async_trait;
use futures_util::future::join_all;
use hostel_runtime::health::{Background, Health, Part};
use hostel_task::{
    Acted, Action, Name, PausedTypes, Retention, Submission, Task, TaskId, TypePause, UnixMs,
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::TaskTracker;

/// How long `open` waits for Redis, and how long between two attempts.
const OPEN: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(200);

/// How long `open` waits for the event readers.
const EVENTS: Duration = Duration::from_secs(2);

/// A queue in Redis.
pub struct RedisQueue {
    client: Arc<ShardClient>,
    durability: Arc<DetectedDurability>,
    pauses: Arc<Pauses>,
    lease_coalescer: Arc<Coalescer>,
    finish_coalescer: Coalescer,
    /// The shard with which the next lease begins, so that none is always last.
    next_shard: AtomicUsize,
    /// Lease calls, and releases of their tasks.
    tracker: TaskTracker,
    /// `None` once closed.
    open: Mutex<Option<Open>>,
}

/// The parts that end when the queue is closed.
struct Open {
    senders: Vec<Sender>,
    /// End once `senders` are dropped.
    submitters: Vec<Background>,
    /// Maintenance and event readers.
    _background: Vec<Background>,
}

impl RedisQueue {
    /// Opens the queue, and waits up to 10 s for Redis. `Misconfigured` if the server may evict tasks, or
    /// if its data has another format or another number of shards.
    pub async fn open(settings: &hostel_config::RedisQueue) -> Result<Self, Error> {
        Self::open_reporting(settings, Health::default()).await
    }

    /// Opens the queue, which then reports its faults to `health`.
    pub async fn open_reporting(
        settings: &hostel_config::RedisQueue,
        health: Health,
    ) -> Result<Self, Error> {
        let since = Instant::now();
        let (client, durability) = loop {
            match Self::connect(settings, &health).await {
                Ok(connected) => break connected,
                Err(error @ Error::Unavailable { .. }) if since.elapsed() < OPEN => {
                    tracing::debug!("waiting for Redis: {error}");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        };
        let (maintained, detected) = (client.clone(), durability.clone());
        let maintain = move || maintenance::run(maintained.clone(), detected.clone());
        let mut background = vec![health.restarting(Part::Queue, "redis-maintenance", maintain)];
        let pauses = Arc::new(Pauses::default());
        match pauses.refresh(&client).await {
            // What another program has damaged pauses nothing.
            Err(Error::Corrupt(why)) => tracing::warn!("cannot read the paused task types: {why}"),
            read => read?,
        }
        let (following, followed) = (client.clone(), pauses.clone());
        let follow = move || pauses::follow(following.clone(), followed.clone());
        background.push(health.restarting(Part::Queue, "redis-pauses", follow));
        let (mut senders, mut submitters, mut started) = (Vec::new(), Vec::new(), Vec::new());
        for shard in client.shards() {
            let reserve_percent = settings.reserve_percent;
            let bulk = BulkConnection::connect(&client.server, reserve_percent).await?;
            let bulk = Arc::new(bulk);
            let (sender, receiver) = submit_batcher::channel();
            let submitting = client.clone();
            let submit = move || {
                submit_batcher::serve(submitting.clone(), shard, bulk.clone(), receiver.clone())
            };
            submitters.push(health.restarting(Part::Queue, "redis-submitter", submit));
            senders.push(sender);
            let (signal, signalled) = oneshot::channel();
            started.push(signalled);
            let (reading, mut signal) = (client.clone(), Some(signal));
            let read = move || EventReader::new(reading.clone(), shard, signal.take()).run();
            background.push(health.restarting(Part::Queue, "redis-event-reader", read));
        }
        // A watch that begins now should miss nothing, but the queue also works without it.
        let _ = tokio::time::timeout(EVENTS, join_all(started)).await;
        Ok(Self {
            client,
            durability,
            pauses,
            lease_coalescer: Arc::default(),
            finish_coalescer: Coalescer::default(),
            next_shard: AtomicUsize::new(0),
            tracker: TaskTracker::new(),
            open: Mutex::new(Some(Open {
                senders,
                submitters,
                _background: background,
            })),
        })
    }

    /// Connects, and checks the settings of the server and of each shard.
    async fn connect(
        settings: &hostel_config::RedisQueue,
        health: &Health,
    ) -> Result<(Arc<ShardClient>, Arc<DetectedDurability>), Error> {
        let client = ShardClient::connect(settings, health.clone()).await?;
        let durability = DetectedDurability::default();
        maintenance::check_settings(&client, &durability).await?;
        let configured = client.tags.len();
        for shard in client.shards() {
            let Opened {
                format,
                shards,
                store,
            } = client.open(shard).await?;
            if format != FORMAT && format != OLD_FORMAT {
                return Err(Error::Misconfigured(format!(
                    "the tasks in Redis have format {format}, and this version of Hostel knows \
                     {FORMAT}; use the version that wrote them, or another queue.prefix"
                )));
            }
            if shards != configured {
                return Err(Error::Misconfigured(format!(
                    "the tasks in Redis are divided into {shards} shards, and queue.shards is \
                     {configured}; all nodes need the same number"
                )));
            }
            if format == OLD_FORMAT {
                client.migrate(shard).await?;
            }
            client.stores.record(shard, store);
        }
        Ok((Arc::new(client), Arc::new(durability)))
    }

    async fn store(
        &self,
        senders: &[Sender],
        tasks: Vec<Submission>,
    ) -> Result<Vec<Submitted>, Error> {
        if tasks.iter().any(unique::has_key) {
            return unique::submit(&self.client, senders, tasks).await;
        }
        let entries = tasks.into_iter().map(Entry::from).collect();
        submit_batcher::submit_to_shards(&self.client, senders, entries).await
    }

    pub(super) fn client(&self) -> Result<&Arc<ShardClient>, Error> {
        if self.open.lock().is_none() {
            return Err(closed());
        }
        Ok(&self.client)
    }
}

#[async_trait]
impl TaskQueue for RedisQueue {
    async fn submit(&self, tasks: Vec<Submission>) -> Result<Vec<Submitted>, Error> {
        let senders = match &*self.open.lock() {
            Some(open) => open.senders.clone(),
            None => return Err(closed()),
        };
        if !tasks.iter().any(pending::is_limited) {
            return self.store(&senders, tasks).await;
        }
        let mut answers = pending::answers(&self.client, &tasks).await?;
        let admitted = tasks.into_iter().zip(&answers);
        let admitted = admitted.filter_map(|(task, answer)| answer.is_none().then_some(task));
        let admitted: Vec<Submission> = admitted.collect();
        let mut stored = Vec::new();
        if !admitted.is_empty() {
            stored = self.store(&senders, admitted).await?;
        }
        let mut stored = stored.into_iter();
        for answer in &mut answers {
            *answer = answer.take().or_else(|| stored.next());
        }
        let missing = || Error::Corrupt("a submission got no answer".into());
        let answers = answers.into_iter().collect::<Option<Vec<_>>>();
        answers.ok_or_else(missing)
    }

    async fn compare(&self, task: &Submission) -> Result<Option<Submitted>, Error> {
        submit_batcher::compare(self.client()?, task).await
    }

    async fn lease(&self, request: &LeaseRequest) -> Result<Vec<Leased>, Error> {
        let client = self.client()?.clone();
        let first = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let request = self.pauses.without_paused(request).into_owned();
        if request.types.is_empty() {
            return Ok(Vec::new());
        }
        let tracker = self.tracker.clone();
        let coalescer = self.lease_coalescer.clone();
        // Spawned, so that a caller that is cancelled leaves no lease behind.
        let lease = self.tracker.spawn(async move {
            coalescer.wait().await;
            let begun = Instant::now();
            let guard = leases::lease(client, tracker, request, first).await?;
            coalescer.record(begun, guard.len());
            Ok::<_, Error>(guard)
        });
        let guard = lease.await.map_err(|_| closed())??;
        Ok(guard.take())
    }

    async fn hand_off(&self, request: &LeaseRequest) -> Result<Vec<Leased>, Error> {
        let client = self.client()?;
        let (reply, handed_off) = oneshot::channel();
        client.offers.put(Offer {
            request: self.pauses.without_paused(request).into_owned(),
            receiver: Box::new(HandOffCall {
                reply,
                client: Arc::downgrade(client),
                tracker: self.tracker.clone(),
            }),
        });
        // The offer is dropped if its script fails, or if another one takes its place.
        Ok(handed_off.await.map(LeaseGuard::take).unwrap_or_default())
    }

    async fn renew(&self, held: &[Renew], ttl: Duration) -> Result<Vec<Renewal>, Error> {
        finish::renew(self.client()?, held, ttl).await
    }

    async fn finish(&self, ended: Vec<Finish>) -> Result<Vec<Finished>, Error> {
        let begun = Instant::now();
        let finished = finish::finish(self.client()?, &ended).await?;
        // The changes are published already, so this delays only the next call.
        self.finish_coalescer.record(begun, ended.len());
        self.finish_coalescer.wait().await;
        Ok(finished)
    }

    async fn expired(
        &self,
        ttl: Duration,
        except: &[Name],
        max: usize,
    ) -> Result<Vec<Expired>, Error> {
        queries::expired(self.client()?, ttl, except, max).await
    }

    async fn act(&self, action: &Action, ids: &[TaskId]) -> Result<Vec<Acted>, Error> {
        control::act(self.client()?, action, ids).await
    }

    async fn expire(&self, max: usize) -> Result<usize, Error> {
        control::expire(self.client()?, max).await
    }

    async fn get(&self, id: &TaskId) -> Result<Option<Task>, Error> {
        queries::get(self.client()?, id).await
    }

    async fn get_status(
        &self,
        id: &TaskId,
        max_result_bytes: usize,
    ) -> Result<Option<StatusRead>, Error> {
        queries::get_status(self.client()?, id, max_result_bytes).await
    }

    async fn get_details(
        &self,
        id: &TaskId,
        limits: ReadLimits,
    ) -> Result<Option<TaskDetails>, Error> {
        details::get(self.client()?, id, limits).await
    }

    async fn place(&self, id: &TaskId) -> Result<Option<Place>, Error> {
        details::place(self.client()?, id).await
    }

    async fn usage(&self, scope: &UsageScope) -> Result<Usage, Error> {
        details::usage(self.client()?, scope).await
    }

    async fn read_changes(&self, after: Option<&str>, max: usize) -> Result<ChangesRead, Error> {
        changes::read(self.client()?, after, max).await
    }

    async fn list(&self, filter: &Filter, page: &Page) -> Result<Listing, Error> {
        let after = listing::parse_token(page.after.as_deref())?;
        listing::list(self.client()?, filter, page, after).await
    }

    async fn counts(&self) -> Result<Counts, Error> {
        queries::counts(self.client()?).await
    }

    async fn next_due(&self, request: &LeaseRequest) -> Result<Option<Duration>, Error> {
        let request = self.pauses.without_paused(request);
        queries::next_due(self.client()?, &request).await
    }

    async fn oldest_blocked(&self, request: &LeaseRequest) -> Result<Option<Name>, Error> {
        let request = self.pauses.without_paused(request);
        queries::oldest_blocked(self.client()?, &request).await
    }

    async fn purge(&self, retention: &Retention, max: usize) -> Result<usize, Error> {
        control::purge(self.client()?, retention, max).await
    }

    async fn pause_type(
        &self,
        task_type: &Name,
        reason: Option<Arc<str>>,
    ) -> Result<Option<TypePause>, Error> {
        self.pauses.pause(self.client()?, task_type, reason).await
    }

    async fn resume_type(&self, task_type: &Name) -> Result<bool, Error> {
        self.pauses.resume(self.client()?, task_type).await
    }

    fn paused_types(&self) -> Arc<PausedTypes> {
        self.pauses.get()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn now(&self) -> UnixMs {
        self.client.now()
    }

    fn durability(&self) -> Durability {
        self.durability.get()
    }

    fn watch(&self) -> Watch {
        match self.client() {
            Ok(client) => client.publisher.watch(),
            // The watch of a publisher that is gone ends at once.
            Err(_) => Publisher::new().watch(),
        }
    }

    /// Answers earlier submissions, and releases leased tasks that no caller has taken.
    async fn close(&self) {
        let Some(open) = self.open.lock().take() else {
            return;
        };
        self.client.offers.clear();
        open.submitters.iter().for_each(Background::expect_end);
        drop(open.senders);
        for mut submitter in open.submitters {
            submitter.ended().await;
        }
        self.tracker.close();
        self.tracker.wait().await;
    }
}
