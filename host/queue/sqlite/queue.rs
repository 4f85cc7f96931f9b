//! The `TaskQueue` of one machine: hands each call to the writer, a reader or the memory of both.

use super::{
    clock::{self, Clock, WallClock},
    damage::Damage,
    details,
    lease_guard::{HandOffCall, LeaseGuard},
    offers::{Offer, Offers},
    queries, schema,
    stats::Stats,
    transaction::Transaction,
    writer::{QueueStore, Shared, Writer},
};
use crate::{
    change_log::{ChangeLog, ChangesRead},
    details::{Place, ReadLimits, TaskDetails},
    error::Error,
    lease_request::LeaseRequest,
    status_read::StatusRead,
    task_cache::TaskCache,
    task_queue::{
        Counts, Durability, Expired, Filter, Finish, Finished, Leased, Listing, Page, Renew,
        Renewal, Submitted, TaskQueue,
    },
    usage::{Usage, UsageScope},
    watch::{Publisher, Watch},
};
use async_trait::async_trait;
use hostel_config as config;
use hostel_runtime::health::{Health, Part};
use hostel_sqlite::{Error as DatabaseError, Reader, SyncLevel, WriteCost, WriterOptions};
use hostel_task::{
    Acted, Action, Name, PausedTypes, Retention, Submission, Task, TaskId, TypePause, UnixMs,
};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::{
    convert::identity,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// Operations that may wait for the writer.
const BACKLOG: usize = 1024;

/// How many tasks one transaction purges or expires, so that this does not delay submissions.
const PURGE_STEP: usize = 256;

/// A queue in a SQLite file, for one node.
pub struct SqliteQueue {
    pub(super) writer: Writer,
    // Two readers, so that a long list delays no status call.
    pub(super) tasks: Reader,
    lists: Reader,
    stats: Arc<Stats>,
    task_cache: Arc<TaskCache>,
    change_log: Arc<ChangeLog>,
    offers: Arc<Offers>,
    pub(super) clock: Arc<Clock>,
    /// `None` once closed.
    publisher: Mutex<Option<Publisher>>,
    stale: Arc<AtomicU64>,
}

impl SqliteQueue {
    /// Opens the file, creates it if it is missing, and claims it for this process. The leases of an
    /// earlier process have expired. Fails with `Misconfigured` if another process uses the file or
    /// this one may not. Later faults are reported to `health`.
    pub async fn open(settings: &config::Sqlite, health: &Health) -> Result<Self, Error> {
        Self::open_with_clock(settings, health, clock::system_clock()).await
    }

    /// Opens the file with another wall clock.
    pub(super) async fn open_with_clock(
        settings: &config::Sqlite,
        health: &Health,
        wall: WallClock,
    ) -> Result<Self, Error> {
        let database = schema::database(&settings.path);
        let lock = database.claim().await?;
        let stats = Arc::new(Stats::default());
        let task_cache = Arc::new(TaskCache::default());
        let offers = Arc::new(Offers::default());
        let publisher = Publisher::new();
        let change_log = Arc::new(ChangeLog::default());
        let tasks = Reader::start(health, Part::Queue, "queue-reader", &database)?;
        let lists = Reader::start(health, Part::Queue, "queue-lists", &database)?;
        let shared = Shared {
            stats: Arc::clone(&stats),
            task_cache: Arc::clone(&task_cache),
            publisher: publisher.clone(),
            change_log: Arc::clone(&change_log),
            max_open: settings.max_open_tasks,
            offers: Arc::clone(&offers),
        };
        let options = WriterOptions {
            backlog: BACKLOG,
            max_batch: settings.max_batch,
            reserve_bytes: settings.reserve_bytes,
        };
        let open = move |conn: &_| QueueStore::open(conn, shared.clone(), wall.clone());
        let (writer, clock) = Writer::start(database, lock, options, health, open).await?;
        Ok(Self {
            writer,
            tasks,
            lists,
            stats,
            task_cache,
            change_log,
            offers,
            clock,
            publisher: Mutex::new(Some(publisher)),
            stale: Arc::default(),
        })
    }

    /// The number of finishes whose token no longer held its task.
    pub fn stale_finishes(&self) -> u64 {
        self.stale.load(Ordering::Relaxed)
    }

    fn publisher(&self) -> Option<Publisher> {
        self.publisher.lock().clone()
    }

    /// Reads one task, with `query` in the reading thread. A damaged record is marked, and read again.
    async fn read<T: Send + 'static>(
        &self,
        id: &TaskId,
        query: impl Fn(&Connection, &TaskId, &Clock) -> queries::Read<T> + Clone + Send + 'static,
    ) -> Result<Option<T>, Error> {
        for _ in 0..2 {
            let (its, clock, query) = (id.clone(), Arc::clone(&self.clock), query.clone());
            let query = move |conn: &_| query(conn, &its, &clock);
            match self.tasks.query::<_, Error>(query).await?.transpose() {
                Ok(task) => return Ok(task),
                Err(damage) => self.mark(vec![damage]).await?,
            }
        }
        Err(Error::Corrupt(format!("task {id} cannot be read")))
    }

    async fn mark(&self, damaged: Vec<Damage>) -> Result<(), Error> {
        let run = move |tx: &mut Transaction<'_>| tx.mark(&damaged);
        self.writer.execute(SyncLevel::Full, run, identity).await
    }

    fn still_open(&self) -> Result<(), Error> {
        let publisher = self.publisher();
        publisher
            .map(drop)
            .ok_or_else(|| DatabaseError::closed().into())
    }
}

#[async_trait]
impl TaskQueue for SqliteQueue {
    async fn submit(&self, tasks: Vec<Submission>) -> Result<Vec<Submitted>, Error> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let cost = WriteCost {
            sync_level: SyncLevel::Full,
            bytes: tasks.iter().map(|task| task.bytes() as u64).sum(),
            adds: true,
        };
        let run = move |tx: &mut Transaction<'_>| tx.submit(&tasks);
        let submitted = self.writer.execute(cost, run, identity).await?;
        submitted.map_err(|reason| Error::Full {
            reason: reason.to_string(),
        })
    }

    async fn compare(&self, task: &Submission) -> Result<Option<Submitted>, Error> {
        let task = task.clone();
        let query = move |conn: &_| queries::compare(conn, &task);
        self.tasks.query(query).await
    }

    async fn lease(&self, request: &LeaseRequest) -> Result<Vec<Leased>, Error> {
        if request.max == 0 || request.types.is_empty() {
            return Ok(Vec::new());
        }
        let request = request.clone();
        let run = move |tx: &mut Transaction<'_>| tx.lease(&request);
        let writer = self.writer.downgrade();
        let on_commit = move |leased| LeaseGuard::new(leased, writer);
        let guard = self
            .writer
            .execute(SyncLevel::Normal, run, on_commit)
            .await?;
        Ok(guard.take())
    }

    async fn hand_off(&self, request: &LeaseRequest) -> Result<Vec<Leased>, Error> {
        self.still_open()?;
        let (reply, handed_off) = oneshot::channel();
        let writer = self.writer.downgrade();
        self.offers.put(Offer {
            request: request.clone(),
            receiver: Box::new(HandOffCall { reply, writer }),
        });
        // The offer is dropped if its transaction fails, or if another one takes its place.
        Ok(handed_off.await.map(LeaseGuard::take).unwrap_or_default())
    }

    async fn renew(&self, held: &[Renew], ttl: Duration) -> Result<Vec<Renewal>, Error> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let held = held.to_vec();
        let run = move |tx: &mut Transaction<'_>| tx.renew(&held, ttl);
        self.writer.execute(SyncLevel::Normal, run, identity).await
    }

    async fn finish(&self, ended: Vec<Finish>) -> Result<Vec<Finished>, Error> {
        if ended.is_empty() {
            return Ok(Vec::new());
        }
        let cost = WriteCost {
            bytes: ended.iter().map(|finish| finish.bytes() as u64).sum(),
            ..SyncLevel::Full.into()
        };
        let run = move |tx: &mut Transaction<'_>| tx.finish(&ended);
        let stale = Arc::clone(&self.stale);
        // Counted when committed, even if the caller no longer waits.
        let on_commit = move |answers: Vec<Finished>| {
            let refused = answers.iter().filter(|&&a| a == Finished::Stale).count();
            if refused > 0 {
                tracing::debug!(refused, "finishes had tokens that no longer hold a task");
                stale.fetch_add(refused as u64, Ordering::Relaxed);
            }
            answers
        };
        self.writer.execute(cost, run, on_commit).await
    }

    /// The grace time of `ttl` is not needed: only this process holds leases.
    async fn expired(
        &self,
        _: Duration,
        except: &[Name],
        max: usize,
    ) -> Result<Vec<Expired>, Error> {
        let except = except.to_vec();
        let run = move |tx: &mut Transaction<'_>| tx.expired(&except, max);
        self.writer
            .execute(SyncLevel::ReadOnly, run, identity)
            .await
    }

    async fn expire(&self, max: usize) -> Result<usize, Error> {
        let mut count = 0;
        while count < max {
            let step = PURGE_STEP.min(max - count);
            let run = move |tx: &mut Transaction<'_>| tx.expire(step);
            let expired = self.writer.execute(SyncLevel::Full, run, identity).await?;
            count += expired;
            if expired < step {
                break;
            }
        }
        Ok(count)
    }

    async fn act(&self, action: &Action, ids: &[TaskId]) -> Result<Vec<Acted>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (action, ids) = (action.clone(), ids.to_vec());
        let run = move |tx: &mut Transaction<'_>| tx.act(&action, &ids);
        self.writer.execute(SyncLevel::Full, run, identity).await
    }

    async fn get(&self, id: &TaskId) -> Result<Option<Task>, Error> {
        if let Some(task) = self.task_cache.get(id) {
            return Ok(Some(Arc::unwrap_or_clone(task)));
        }
        self.read(id, queries::get).await
    }

    async fn get_status(
        &self,
        id: &TaskId,
        max_result_bytes: usize,
    ) -> Result<Option<StatusRead>, Error> {
        if let Some(task) = self.task_cache.get(id) {
            let task = Arc::unwrap_or_clone(task);
            return Ok(Some(StatusRead::of(task, max_result_bytes)));
        }
        let query = move |conn: &_, id: &_, clock: &_| {
            queries::get_status(conn, id, max_result_bytes, clock)
        };
        self.read(id, query).await
    }

    async fn get_details(
        &self,
        id: &TaskId,
        limits: ReadLimits,
    ) -> Result<Option<TaskDetails>, Error> {
        let query = move |conn: &_, id: &_, clock: &_| details::get(conn, id, limits, clock);
        self.read(id, query).await
    }

    async fn place(&self, id: &TaskId) -> Result<Option<Place>, Error> {
        let id = id.clone();
        let run = move |tx: &mut Transaction<'_>| tx.place(&id);
        self.writer
            .execute(SyncLevel::ReadOnly, run, identity)
            .await
    }

    async fn usage(&self, scope: &UsageScope) -> Result<Usage, Error> {
        let scope = scope.clone();
        let run = move |tx: &mut Transaction<'_>| Ok(tx.usage(&scope));
        self.writer
            .execute(SyncLevel::ReadOnly, run, identity)
            .await
    }

    async fn read_changes(&self, after: Option<&str>, max: usize) -> Result<ChangesRead, Error> {
        self.still_open()?;
        self.change_log.read(after, max)
    }

    async fn list(&self, filter: &Filter, page: &Page) -> Result<Listing, Error> {
        let before = queries::parse_token(page.after.as_deref())?;
        let size = page.size;
        for _ in 0..2 {
            let (filter, clock) = (filter.clone(), Arc::clone(&self.clock));
            let query = move |conn: &_| queries::list(conn, &clock, &filter, size, before);
            let (listing, damaged) = self.lists.query::<_, Error>(query).await?;
            if damaged.is_empty() {
                return Ok(listing);
            }
            self.mark(damaged).await?;
        }
        Err(Error::Corrupt("a page of tasks cannot be read".into()))
    }

    async fn counts(&self) -> Result<Counts, Error> {
        self.still_open()?;
        Ok(self.stats.counts())
    }

    async fn next_due(&self, request: &LeaseRequest) -> Result<Option<Duration>, Error> {
        self.still_open()?;
        let due = self.stats.next_due(request);
        let wait = |due: i64| due.saturating_sub(self.clock.now());
        Ok(due.map(|due| Duration::from_millis(u64::try_from(wait(due)).unwrap_or(0))))
    }

    async fn oldest_blocked(&self, request: &LeaseRequest) -> Result<Option<Name>, Error> {
        self.still_open()?;
        Ok(self.stats.oldest_blocked(request, self.clock.now()))
    }

    async fn purge(&self, retention: &Retention, max: usize) -> Result<usize, Error> {
        let mut gone = 0;
        while gone < max {
            let step = PURGE_STEP.min(max - gone);
            let retention = retention.clone();
            let run = move |tx: &mut Transaction<'_>| tx.purge(&retention, step);
            let purged = self.writer.execute(SyncLevel::Full, run, identity).await?;
            gone += purged;
            if purged < step {
                break;
            }
        }
        let keys = |tx: &mut Transaction<'_>| tx.purge_keys(PURGE_STEP);
        while self.writer.execute(SyncLevel::Full, keys, identity).await? == PURGE_STEP {}
        Ok(gone)
    }

    async fn pause_type(
        &self,
        task_type: &Name,
        reason: Option<Arc<str>>,
    ) -> Result<Option<TypePause>, Error> {
        let task_type = task_type.clone();
        let run = move |tx: &mut Transaction<'_>| tx.pause_type(&task_type, reason.as_ref());
        self.writer.execute(SyncLevel::Full, run, identity).await
    }

    async fn resume_type(&self, task_type: &Name) -> Result<bool, Error> {
        let task_type = task_type.clone();
        let run = move |tx: &mut Transaction<'_>| tx.resume_type(&task_type);
        self.writer.execute(SyncLevel::Full, run, identity).await
    }

    fn paused_types(&self) -> Arc<PausedTypes> {
        self.stats.paused()
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn now(&self) -> UnixMs {
        self.clock.to_wall(self.clock.now())
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }

    fn watch(&self) -> Watch {
        // The watch of a closed queue ends at once.
        self.publisher().unwrap_or_default().watch()
    }

    async fn close(&self) {
        drop(self.publisher.lock().take());
        self.tasks.close().await;
        self.lists.close().await;
        self.writer.close().await;
        // From here on every call reaches a closed reader or writer.
        self.task_cache.clear();
    }
}
