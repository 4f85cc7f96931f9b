//! The queue of one machine: a SQLite file, one thread that writes, two that read. This page wires
//! them and keeps the contract's signatures; what a verb does is in `book`, `ending`
//! and `control`.

mod batch;
mod board;
mod book;
mod clock;
mod control;
mod damage;
mod ending;
mod fault;
mod fresh;
mod handed;
mod look;
mod operation;
mod overview;
mod row;
mod schema;
mod statements;
#[cfg(test)]
mod tests;
mod writer;

use self::{
    clock::Clock,
    damage::Damage,
    operation::{Demand, Safety},
    overview::Overview,
    writer::Writer,
};
use super::{
    Cancel, Counts, Durability, Error, Expired, Filter, Finish, Finished, LeaseToken, Leased,
    Listing, Page, Publisher, Renewal, Requeue, Submitted, TaskQueue, Want, Watch, recent::Recent,
};
use async_trait::async_trait;
use hostel_runtime::health::{Health, Part};
use hostel_sqlite::Reader;
use hostel_task::{Name, Outcome, Submission, Task, TaskId, UnixMs};
use std::{
    convert::identity,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How many tasks one transaction forgets, so that a purge holds up no submit.
const PURGE_STEP: usize = 256;

pub struct SqliteQueue {
    writer: Writer,
    // Two, so that a long list delays no status call.
    tasks: Reader,
    lists: Reader,
    overview: Arc<Overview>,
    recent: Arc<Recent>,
    clock: Arc<Clock>,
    /// `None` once closed.
    publisher: Mutex<Option<Publisher>>,
    stale: Arc<AtomicU64>,
}

impl SqliteQueue {
    /// Opens the file, makes it when there is none, and claims it for this process. Tasks that ran
    /// when it was last used have lost their lease. `Misconfigured` when another process has it,
    /// or when it is not ours to use. What is wrong with it later is reported to `health`.
    pub async fn open(settings: &hostel_config::Sqlite, health: &Health) -> Result<Self, Error> {
        Self::open_by(settings, health, clock::system_wall()).await
    }

    /// The same by another clock on the wall.
    async fn open_by(
        settings: &hostel_config::Sqlite,
        health: &Health,
        wall: clock::Wall,
    ) -> Result<Self, Error> {
        let database = schema::database(&settings.path);
        let claiming = database.clone();
        let claimed = tokio::task::spawn_blocking(move || claiming.claim()).await;
        let lock = claimed.map_err(|error| fault::unavailable(error.to_string()))??;
        let overview = Arc::new(Overview::default());
        let recent = Arc::new(Recent::default());
        let publisher = Publisher::new();
        let tasks = Reader::start(health, Part::Queue, "queue-reader", &database)?;
        let lists = Reader::start(health, Part::Queue, "queue-lists", &database)?;
        let shared = writer::Shared {
            overview: Arc::clone(&overview),
            recent: Arc::clone(&recent),
            publisher: publisher.clone(),
            health: health.clone(),
            wall,
        };
        let (writer, clock) = Writer::start(database, settings.clone(), lock, shared).await?;
        Ok(Self {
            writer,
            tasks,
            lists,
            overview,
            recent,
            clock,
            publisher: Mutex::new(Some(publisher)),
            stale: Arc::default(),
        })
    }

    /// How many finishes came with a token that no longer held its task.
    pub fn stale_finishes(&self) -> u64 {
        self.stale.load(Ordering::Relaxed)
    }

    fn publisher(&self) -> Option<Publisher> {
        let publisher = self.publisher.lock();
        publisher.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn mark(&self, damaged: Vec<Damage>) -> Result<(), Error> {
        let run = move |book: &mut book::Book<'_>| book.mark(&damaged);
        self.writer.ask(Safety::Power, run, identity).await
    }

    fn still_open(&self) -> Result<(), Error> {
        self.publisher().map(drop).ok_or_else(fault::closed)
    }
}

#[async_trait]
impl TaskQueue for SqliteQueue {
    async fn submit(&self, tasks: Vec<Submission>) -> Result<Vec<Submitted>, Error> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let demand = Demand {
            safety: Safety::Power,
            bytes: tasks.iter().map(|task| task.payload().len() as u64).sum(),
            submits: true,
        };
        let run = move |book: &mut book::Book<'_>| book.submit(&tasks);
        let submitted = self.writer.ask(demand, run, identity).await?;
        submitted.map_err(|reason| Error::Full {
            reason: reason.to_string(),
        })
    }

    async fn lease(&self, want: &Want) -> Result<Vec<Leased>, Error> {
        if want.max == 0 || want.types.is_empty() {
            return Ok(Vec::new());
        }
        let want = want.clone();
        let run = move |book: &mut book::Book<'_>| book.lease(&want);
        let sender = self.writer.sender();
        let seal = move |leased| handed::Handed::new(leased, sender);
        let handed = self.writer.ask(Safety::Process, run, seal).await?;
        Ok(handed.take())
    }

    async fn renew(&self, held: &[LeaseToken], ttl: Duration) -> Result<Vec<Renewal>, Error> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let held = held.to_vec();
        let run = move |book: &mut book::Book<'_>| book.renew(&held, ttl);
        self.writer.ask(Safety::Process, run, identity).await
    }

    async fn finish(&self, ended: Vec<Finish>) -> Result<Vec<Finished>, Error> {
        if ended.is_empty() {
            return Ok(Vec::new());
        }
        let demand = Demand {
            bytes: ended.iter().map(result_bytes).sum(),
            ..Safety::Power.into()
        };
        let run = move |book: &mut book::Book<'_>| book.finish(&ended);
        let stale = Arc::clone(&self.stale);
        // Counted once committed, whether or not the caller still waits.
        let seal = move |answers: Vec<Finished>| {
            let refused = answers.iter().filter(|&&a| a == Finished::Stale).count();
            if refused > 0 {
                tracing::debug!(refused, "finishes came with tokens that hold no task");
                stale.fetch_add(refused as u64, Ordering::Relaxed);
            }
            answers
        };
        self.writer.ask(demand, run, seal).await
    }

    /// Nobody shares it: who holds a lease is this process, or is gone.
    async fn expired(
        &self,
        _: Duration,
        except: &[Name],
        max: usize,
    ) -> Result<Vec<Expired>, Error> {
        let except = except.to_vec();
        let run = move |book: &mut book::Book<'_>| book.expired(&except, max);
        self.writer.ask(Safety::Looks, run, identity).await
    }

    async fn cancel(&self, id: &TaskId) -> Result<Cancel, Error> {
        let id = id.clone();
        let run = move |book: &mut book::Book<'_>| book.cancel(&id);
        self.writer.ask(Safety::Power, run, identity).await
    }

    async fn requeue(&self, id: &TaskId) -> Result<Requeue, Error> {
        let id = id.clone();
        let run = move |book: &mut book::Book<'_>| book.requeue(&id);
        self.writer.ask(Safety::Power, run, identity).await
    }

    async fn get(&self, id: &TaskId) -> Result<Option<Task>, Error> {
        if let Some(task) = self.recent.get(id) {
            return Ok(Some(Arc::unwrap_or_clone(task)));
        }
        // Twice: what is damaged is marked as such, and can be read then.
        for _ in 0..2 {
            let (id, clock) = (id.clone(), Arc::clone(&self.clock));
            let look = move |conn: &_| look::get(conn, &id, &clock);
            match self.tasks.ask::<_, Error>(look).await?.transpose() {
                Ok(task) => return Ok(task),
                Err(damage) => self.mark(vec![damage]).await?,
            }
        }
        Err(Error::Corrupt(format!("task {id} cannot be read")))
    }

    async fn list(&self, filter: &Filter, page: &Page) -> Result<Listing, Error> {
        let before = look::parse_token(page.after.as_deref())?;
        let size = page.size;
        for _ in 0..2 {
            let (filter, clock) = (filter.clone(), Arc::clone(&self.clock));
            let look = move |conn: &_| look::list(conn, &clock, &filter, size, before);
            let (listing, damaged) = self.lists.ask::<_, Error>(look).await?;
            if damaged.is_empty() {
                return Ok(listing);
            }
            self.mark(damaged).await?;
        }
        Err(Error::Corrupt("a page of tasks cannot be read".into()))
    }

    async fn counts(&self) -> Result<Counts, Error> {
        self.still_open()?;
        Ok(self.overview.counts())
    }

    async fn next_due(&self, want: &Want) -> Result<Option<Duration>, Error> {
        self.still_open()?;
        let due = self.overview.next_due(want);
        let wait = |due: i64| due.saturating_sub(self.clock.now());
        Ok(due.map(|due| Duration::from_millis(u64::try_from(wait(due)).unwrap_or(0))))
    }

    async fn passed_by(&self, want: &Want) -> Result<Option<Name>, Error> {
        self.still_open()?;
        Ok(self.overview.passed_by(want, self.clock.now()))
    }

    async fn purge(&self, age: Duration, max: usize) -> Result<usize, Error> {
        let until = self.clock.now().saturating_sub(book::millis(age));
        let mut gone = 0;
        while gone < max {
            let step = PURGE_STEP.min(max - gone);
            let run = move |book: &mut book::Book<'_>| book.purge(until, step);
            let purged = self.writer.ask(Safety::Power, run, identity).await?;
            gone += purged;
            if purged < step {
                break;
            }
        }
        Ok(gone)
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn now(&self) -> UnixMs {
        self.clock.shown(self.clock.now())
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }

    fn watch(&self) -> Watch {
        // A closed queue has nothing to tell: this watch ends at once.
        self.publisher().unwrap_or_default().watch()
    }

    async fn close(&self) {
        let publisher = self.publisher.lock();
        drop(publisher.unwrap_or_else(PoisonError::into_inner).take());
        self.tasks.close().await;
        self.lists.close().await;
        self.writer.close().await;
        // From here on only the closed reader is asked.
        self.recent.clear();
    }
}

fn result_bytes(finish: &Finish) -> u64 {
    match &finish.outcome {
        Outcome::Completed { result } => result.len() as u64,
        _ => 0,
    }
}
