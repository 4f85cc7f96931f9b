//! The writer's thread: commits what waits, answers it, and maintains the files. When a commit fails, it
//! refuses operations until a new connection has committed something. On a full disk it refuses only
//! what adds data; the reserve keeps room for the rest.

use super::{
    batch::{self, Errors, Failure},
    database::Database,
    disk_space::DiskSpace,
    error::Error,
    maintenance::Maintenance,
    operation::{Operation, SyncLevel},
    pragma,
    receive::{Received, receive},
    statement_error::{OperationError, StatementError},
    store::{Session, Store},
};
use hostel_backoff::Backoff;
use hostel_runtime::health::Health;
use hostel_runtime::log_limit::LogLimit;
use rusqlite::Connection;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// Bytes of payload that share a commit, except for those of the last operation.
const MAX_BATCH_BYTES: u64 = 16 << 20;

/// The first and the longest delay before a failed database is opened again, less jitter.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How often the disk is checked and `Store::tick` is called.
const TICK: Duration = Duration::from_secs(1);

pub(super) enum Message<S: Store> {
    Run(Box<dyn Operation<S>>),
    Close,
}

/// The state of the writer's thread.
pub(super) struct WriterThread<S: Store> {
    database: Database,
    max_batch: usize,
    receiver: mpsc::Receiver<Message<S>>,
    space: DiskSpace,
    maintenance: Maintenance,
    /// Received, but in no batch yet.
    waiting: VecDeque<Box<dyn Operation<S>>>,
    /// Not answered yet.
    batch: Vec<Box<dyn Operation<S>>>,
    backoff: Backoff,
    /// The reserve was just released, so there is room to try again.
    retry_at_once: bool,
    last_tick: Instant,
    /// The latest commit failed for this reason.
    disk_is_full: bool,
    closing: bool,
    logs: Logs,
}

/// Bounds for what failures write to the log.
struct Logs {
    operations: LogLimit,
    commits: LogLimit,
    recoveries: LogLimit,
    maintenance: LogLimit,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            operations: LogLimit::new(3, Duration::from_secs(10)),
            commits: LogLimit::of_retries(),
            recoveries: LogLimit::of_retries(),
            maintenance: LogLimit::new(1, Duration::from_secs(60)),
        }
    }
}

pub(super) type Ready<S> = oneshot::Sender<Result<<S as Store>::Handle, Error>>;

impl<S: Store> WriterThread<S> {
    /// `max_batch` operations may share a commit, and `reserve_bytes` of the disk are kept free.
    pub fn new(
        database: Database,
        max_batch: usize,
        reserve_bytes: u64,
        health: &Health,
        receiver: mpsc::Receiver<Message<S>>,
    ) -> Self {
        Self {
            maintenance: Maintenance::new(&database, S::PART, health),
            space: DiskSpace::new(&database, reserve_bytes, S::PART, health),
            database,
            max_batch: max_batch.max(1),
            receiver,
            waiting: VecDeque::new(),
            batch: Vec::new(),
            backoff: Backoff::new(RETRY_DELAY.0, RETRY_DELAY.1),
            retry_at_once: false,
            last_tick: Instant::now(),
            disk_is_full: false,
            closing: false,
            logs: Logs::default(),
        }
    }

    /// Opens the database, reports to `ready`, and works until the writer is closed.
    pub fn run(mut self, open: impl FnMut(&Connection) -> rusqlite::Result<S>, ready: Ready<S>) {
        let what = self.database.what;
        let (mut conn, mut store) = match self.open(open) {
            Ok(opened) => opened,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let mut ready = Some(ready);
        while let Err(error) = self.serve(&conn, &mut store, &mut ready) {
            if let Some(ready) = ready.take() {
                return drop(ready.send(Err(self.database.opening_error(&error))));
            }
            let reason = self.database.reason(&error);
            if let Some(left_out) = self.logs.commits.permit() {
                tracing::error!(
                    reason,
                    left_out,
                    "the {what} cannot write; it will try again"
                );
            }
            drop(conn);
            match self.reopen(reason) {
                Some(opened) => conn = opened,
                None => return,
            }
        }
        // Leaves one file, which can be copied as it is.
        let closed = store.closing(&conn);
        if let Err(error) = closed.and_then(|()| pragma::checkpoint(&conn)) {
            tracing::warn!(%error, "the {what} was closed without a checkpoint");
        }
    }

    /// Opens the database and makes the store. If the disk is too full even for that, the reserve is
    /// released.
    fn open(
        &mut self,
        mut open: impl FnMut(&Connection) -> rusqlite::Result<S>,
    ) -> Result<(Connection, S), Error> {
        let mut attempt = |database: &Database, space: &DiskSpace| {
            let conn = database.open_writer()?;
            let store = space.bound_log(&conn).and_then(|()| open(&conn));
            let store = store.map_err(|error| database.opening_error(&error.into()))?;
            Ok((conn, store))
        };
        match attempt(&self.database, &self.space) {
            Err(Error::Unavailable { .. })
                if self.space.is_exhausted() && self.space.release_reserve() =>
            {
                attempt(&self.database, &self.space)
            }
            opened => opened,
        }
    }

    /// Runs operations until the writer is closed, or until something fails that a new connection may
    /// mend.
    fn serve(
        &mut self,
        conn: &Connection,
        store: &mut S,
        ready: &mut Option<Ready<S>>,
    ) -> Result<(), StatementError> {
        let mut session = store.session(conn)?;
        store.committed(&mut session);
        if let Some(ready) = ready.take() {
            let _ = ready.send(Ok(store.handle()));
        }
        let mut sync_level = SyncLevel::Full;
        loop {
            if self.batch.is_empty() {
                match self.receive(self.maintenance.pause().min(TICK)) {
                    Received::Some => {}
                    Received::Idle => {
                        self.maintain(conn, store);
                        continue;
                    }
                    Received::Closed => return Ok(()),
                }
            }
            let committed = match self.check_space(&mut session) {
                Ok(()) => batch::commit(&mut session, &mut self.batch, &mut sync_level),
                Err(error) => Err(error.into()),
            };
            match committed {
                Ok(errors) => {
                    self.backoff.reset();
                    self.disk_is_full = false;
                    store.committed(&mut session);
                    self.reply(errors);
                }
                Err(failure) => {
                    store.failed();
                    return Err(self.fail(failure));
                }
            }
            self.maintain(conn, store);
        }
    }

    /// Decides whether the disk has room for what the batch adds.
    fn check_space(&mut self, session: &mut S::Session<'_>) -> rusqlite::Result<()> {
        let costs = self.batch.iter().map(|operation| operation.cost());
        let added = costs.filter(|cost| cost.adds).map(|cost| cost.bytes);
        if let Some(bytes) = added.reduce(|sum, bytes| sum + bytes) {
            let fits = self
                .space
                .free_space(session.connection(), bytes)?
                .fits(bytes);
            session.set_refusal((!fits).then(|| self.space.refuse(bytes).into()));
        }
        Ok(())
    }

    /// Handles a batch of which nothing was committed. On a full disk the reserve is released, once;
    /// then only operations that add data are refused, and the others are tried again.
    fn fail(&mut self, failure: Failure) -> StatementError {
        let Failure {
            error,
            outcome_unknown,
        } = failure;
        self.disk_is_full = error.is_disk_full();
        let reason = self.database.reason(&error);
        let mut kept = Vec::new();
        if self.disk_is_full && self.space.release_reserve() {
            self.retry_at_once = true;
            let adds = |operation: &mut Box<dyn Operation<S>>| operation.cost().adds;
            let adding = self.batch.extract_if(.., adds).collect();
            kept = std::mem::replace(&mut self.batch, adding);
        }
        self.refuse(&reason, outcome_unknown);
        self.batch = kept;
        error
    }

    /// Does what can wait until no operation does.
    fn maintain(&mut self, conn: &Connection, store: &mut S) {
        let is_short = self.space.is_short();
        let maintained = self.maintenance.step(conn, is_short).and_then(|()| {
            if self.last_tick.elapsed() < TICK {
                return Ok(());
            }
            self.last_tick = Instant::now();
            self.space.restore(conn);
            store.tick(conn)
        });
        if let Err(error) = maintained {
            let error = StatementError::from(error);
            if error.is_disk_full() {
                self.space.release_reserve();
            }
            if let Some(left_out) = self.logs.maintenance.permit() {
                let what = self.database.what;
                tracing::warn!(%error, left_out, "the files of the {what} cannot be maintained");
            }
        }
    }

    /// Fills the batch with what waits, or waits for operations for up to `timeout`.
    fn receive(&mut self, timeout: Duration) -> Received {
        let mut messages = Vec::new();
        while self.waiting.is_empty() {
            if self.closing {
                return Received::Closed;
            }
            match receive(&mut self.receiver, &mut messages, self.max_batch, timeout) {
                Received::Some => {}
                ended => return ended,
            }
            for message in messages.drain(..) {
                match message {
                    Message::Run(operation) if !self.closing => self.waiting.push_back(operation),
                    Message::Run(operation) => operation.reply(Err(Error::closed().into())),
                    Message::Close => self.closing = true,
                }
            }
        }
        let mut bytes = 0;
        while bytes < MAX_BATCH_BYTES
            && let Some(operation) = self.waiting.pop_front()
        {
            bytes += operation.cost().bytes;
            self.batch.push(operation);
        }
        Received::Some
    }

    /// Answers a batch that is committed.
    fn reply(&mut self, errors: Errors<S>) {
        let mut errors = errors.into_iter();
        for operation in self.batch.drain(..) {
            operation.reply(match errors.next().flatten() {
                None => Ok(()),
                Some(OperationError::Rejected(error)) => Err(error),
                Some(OperationError::Failed(error)) => {
                    if let Some(left_out) = self.logs.operations.permit() {
                        let what = self.database.what;
                        tracing::warn!(%error, left_out, "an operation on the {what} failed");
                    }
                    Err(self.database.error(&error).into())
                }
            });
        }
    }

    /// Answers a batch of which nothing was committed.
    fn refuse(&mut self, reason: &str, outcome_unknown: bool) {
        for operation in self.batch.drain(..) {
            let is_full = self.disk_is_full && operation.cost().adds && !outcome_unknown;
            let error = if is_full {
                Error::Full(self.space.reason())
            } else {
                Error::Unavailable {
                    reason: reason.to_owned(),
                    outcome_unknown,
                }
            };
            operation.reply(Err(error.into()));
        }
    }

    /// Refuses operations, and from time to time tries to open the database and to commit to it.
    /// Returns `None` once the writer is closed.
    fn reopen(&mut self, mut reason: String) -> Option<Connection> {
        let mut next_try = Instant::now();
        if !std::mem::take(&mut self.retry_at_once) {
            next_try += self.backoff.next_delay();
        }
        loop {
            if Instant::now() >= next_try {
                match self.probe() {
                    Ok(conn) => {
                        if let Some(left_out) = self.logs.recoveries.permit() {
                            let what = self.database.what;
                            tracing::info!(left_out, "the {what} can write again");
                        }
                        return Some(conn);
                    }
                    Err(error) => reason = error.to_string(),
                }
                next_try = Instant::now() + self.backoff.next_delay();
            }
            self.refuse(&reason, false);
            let timeout = next_try.saturating_duration_since(Instant::now());
            if self.receive(timeout) == Received::Closed {
                return None;
            }
        }
    }

    /// Returns a connection that has committed something.
    fn probe(&self) -> Result<Connection, Error> {
        let conn = self.database.open_writer()?;
        let version = self.database.version;
        // What a failed sync left behind is written once more, to the database itself.
        conn.execute_batch("PRAGMA wal_checkpoint(PASSIVE)")
            .and_then(|()| self.space.bound_log(&conn))
            .and_then(|()| conn.execute_batch(&format!("PRAGMA user_version = {version}")))
            .map_err(|error| self.database.error(&error.into()))?;
        Ok(conn)
    }
}
