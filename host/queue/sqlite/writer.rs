//! What the queue adds to the group-commit writer: its clock, and what readers of memory, watchers and
//! the task cache learn of each commit.

use super::{
    clock::{Clock, WallClock},
    offers::Offers,
    schedule_schema,
    stats::Stats,
    transaction::Transaction,
};
use crate::{
    change_log::ChangeLog,
    error::Error,
    task_cache::TaskCache,
    watch::{Change, Publisher},
};
use hostel_runtime::health::Part;
use hostel_sqlite::{Session, StatementError, Store, Writer as GroupWriter};
use rusqlite::Connection;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How often the queue's time is stored.
const STORE_TIME: Duration = Duration::from_secs(60);

pub(super) type Writer = GroupWriter<QueueStore>;

/// What the writer shares with the queue's readers.
#[derive(Clone)]
pub(super) struct Shared {
    pub stats: Arc<Stats>,
    pub task_cache: Arc<TaskCache>,
    pub publisher: Publisher,
    pub change_log: Arc<ChangeLog>,
    pub max_open: usize,
    pub offers: Arc<Offers>,
}

pub(super) struct QueueStore {
    shared: Shared,
    clock: Arc<Clock>,
    time_stored: Instant,
}

impl QueueStore {
    /// Takes over a database from a process that has ended: its leases have expired.
    pub fn open(conn: &Connection, shared: Shared, wall: WallClock) -> rusqlite::Result<Self> {
        conn.execute_batch(schedule_schema::CREATE)?;
        let clock = Clock::resume(conn, wall)?;
        let expire = "UPDATE task SET at = min(at, ?1 - 1) WHERE state = 1";
        conn.execute(expire, [clock.now()])?;
        Ok(Self {
            shared,
            clock: Arc::new(clock),
            time_stored: Instant::now(),
        })
    }
}

impl Store for QueueStore {
    type Session<'c> = Transaction<'c>;
    type Error = Error;
    type Failure = StatementError;
    type Handle = Arc<Clock>;

    const PART: Part = Part::Queue;
    const THREAD: &'static str = "queue-writer";

    fn handle(&self) -> Arc<Clock> {
        Arc::clone(&self.clock)
    }

    fn session<'c>(&mut self, conn: &'c Connection) -> Result<Transaction<'c>, StatementError> {
        let cache = Arc::clone(&self.shared.task_cache);
        let offers = Arc::clone(&self.shared.offers);
        Transaction::open(
            conn,
            self.shared.max_open,
            cache,
            Arc::clone(&self.clock),
            offers,
        )
    }

    /// Publishes before the operations are answered, so that a watcher that begins at the answer
    /// sees no earlier change.
    fn committed(&mut self, tx: &mut Transaction<'_>) {
        self.shared.stats.update(&mut tx.index);
        self.shared.task_cache.update(&mut tx.snapshots);
        let changes = Arc::<[Change]>::from(std::mem::take(&mut tx.changes));
        let clock = &self.clock;
        let now = || clock.to_wall(clock.now());
        self.shared.change_log.append(now, &changes);
        self.shared.publisher.publish_shared(changes);
        if let Some(handed_off) = tx.handed_off.take() {
            handed_off.receiver.deliver(handed_off.leased);
        }
    }

    fn failed(&mut self) {
        self.shared.task_cache.clear();
    }

    fn tick(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if self.clock.follow_wall(conn)? {
            self.shared.task_cache.clear();
        }
        if self.time_stored.elapsed() >= STORE_TIME {
            self.time_stored = Instant::now();
            self.clock.store(conn)?;
        }
        Ok(())
    }

    fn closing(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.clock.store(conn)
    }
}

impl<'c> Session<'c> for Transaction<'c> {
    fn connection(&self) -> &'c Connection {
        self.conn
    }

    fn set_refusal(&mut self, refusal: Option<Arc<str>>) {
        self.refusal = refusal;
    }

    fn begin(&mut self) {
        self.forget_changes();
    }

    fn savepoint(&mut self) {
        self.savepoint = (self.changes.len(), self.snapshots.len());
    }

    fn rollback_to_savepoint(&mut self) -> Result<(), StatementError> {
        self.changes.truncate(self.savepoint.0);
        self.snapshots.truncate(self.savepoint.1);
        self.reload()
    }

    fn rollback(&mut self) -> Result<(), StatementError> {
        self.forget_changes();
        self.reload()
    }

    fn before_commit(&mut self) -> Result<(), StatementError> {
        if self.has_pending && !self.must_reload {
            self.hand_off()?;
        }
        if self.must_reload {
            self.reload()?;
        }
        Ok(())
    }
}
