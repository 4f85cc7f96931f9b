//! The one thread that changes the database. It turns whatever waits into one transaction and one
//! commit, then answers everybody and tells the watchers. When a commit fails it refuses work until
//! a new connection has committed something; a full disk costs submissions alone, for the rest there
//! is a reserve. Between transactions it keeps the files small. Knows no verb.

use super::{
    batch::{self, Failure},
    book::Book,
    clock::{Clock, Wall},
    fault::closed,
    operation::{Asked, Demand, Operation, Safety},
    overview::Overview,
};
use crate::{Error, Publisher, recent::Recent};
use hostel_runtime::health::{Health, Part};
use hostel_runtime::log_limit::LogLimit;
use hostel_sqlite::{Database, Fault, Lock, Received, Space, Thread, Upkeep};
use rusqlite::Connection;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// How many operations may wait for the writer; further callers wait to be let in.
const BACKLOG: usize = 1024;
/// How many bytes of payloads and results share a commit, but for the last operation's.
const MAX_BATCH_BYTES: u64 = 16 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the writer looks at clock and disk when nothing else wakes it.
const LOOK: Duration = Duration::from_secs(1);
/// How often it notes how far the time has come.
const KEEP_TIME: Duration = Duration::from_secs(60);

static TROUBLE: LogLimit = LogLimit::new(1, Duration::from_secs(60));

pub(super) enum Message {
    Do(Box<dyn Operation>),
    Close,
}

/// The writer as others see it.
pub(super) struct Writer {
    sender: mpsc::Sender<Message>,
    thread: Thread,
}

/// What the writer shares with others.
pub(super) struct Shared {
    pub overview: Arc<Overview>,
    pub recent: Arc<Recent>,
    pub publisher: Publisher,
    pub health: Health,
    pub wall: Wall,
}

impl Writer {
    /// Opens the database on a thread of its own and returns once it is ready, with the queue's
    /// clock. The thread keeps `lock` until it has ended.
    pub async fn start(
        database: Database,
        settings: hostel_config::Sqlite,
        lock: Lock,
        shared: Shared,
    ) -> Result<(Self, Arc<Clock>), Error> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let (ready, opened) = oneshot::channel();
        let health = shared.health.clone();
        let thread = Thread::start(&health, Part::Queue, "queue-writer", move || {
            let (part, health) = (Part::Queue, &shared.health);
            let work = Work {
                upkeep: Upkeep::new(&database, part, health),
                space: Space::new(&database, settings.reserve_bytes, part, health),
                database,
                settings,
                receiver,
                shared,
                waiting: VecDeque::new(),
                batch: Vec::new(),
                pause: FIRST_PAUSE,
                looked: Instant::now(),
                kept: Instant::now(),
                disk_is_full: false,
                closing: false,
            };
            work.run(ready);
            drop(lock);
        })?;
        match opened.await.unwrap_or_else(|_| Err(closed())) {
            Ok(clock) => Ok((Self { sender, thread }, clock)),
            Err(error) => {
                // Whoever hears of the failure may open the file again: the lock is given up by then.
                thread.join().await;
                Err(error)
            }
        }
    }

    /// Has `run` done within a transaction, and returns what `seal` makes of its answer once that
    /// is committed.
    pub async fn ask<A, B>(
        &self,
        demand: impl Into<Demand>,
        run: impl FnMut(&mut Book<'_>) -> Result<A, Fault> + Send + 'static,
        seal: impl FnOnce(A) -> B + Send + 'static,
    ) -> Result<B, Error>
    where
        A: Send + 'static,
        B: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let asked = Box::new(Asked {
            demand: demand.into(),
            run,
            seal,
            answer: None,
            reply,
        });
        let sent = self.sender.send(Message::Do(asked)).await;
        sent.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// A way to ask without waiting, for those who cannot.
    pub fn sender(&self) -> mpsc::WeakSender<Message> {
        self.sender.downgrade()
    }

    /// Lets what was sent before be done, and waits for the thread's end.
    pub async fn close(&self) {
        let _ = self.sender.send(Message::Close).await;
        self.thread.join().await;
    }
}

/// The thread's own.
struct Work {
    database: Database,
    settings: hostel_config::Sqlite,
    receiver: mpsc::Receiver<Message>,
    shared: Shared,
    space: Space,
    upkeep: Upkeep,
    /// What was received and is in no batch yet.
    waiting: VecDeque<Box<dyn Operation>>,
    /// What is not answered yet.
    batch: Vec<Box<dyn Operation>>,
    pause: Duration,
    /// When the writer last looked at clock and disk, and when it noted the time.
    looked: Instant,
    kept: Instant,
    /// It is why the writer cannot write.
    disk_is_full: bool,
    closing: bool,
}

type Ready = oneshot::Sender<Result<Arc<Clock>, Error>>;

impl Work {
    fn run(mut self, ready: Ready) {
        let (mut conn, clock) = match self.open() {
            Ok(opened) => opened,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let mut ready = Some(ready);
        while let Err(fault) = self.serve(&conn, &clock, &mut ready) {
            if let Some(ready) = ready.take() {
                let error = self.database.opening_error(&fault);
                return drop(ready.send(Err(error.into())));
            }
            let reason = self.database.reason(&fault);
            tracing::error!(reason, "the task queue cannot write; it will try again");
            drop(conn);
            match self.reopen(&clock, reason) {
                Some(opened) => conn = opened,
                None => return,
            }
        }
        // Leaves one file behind, which can be copied as it is.
        let left = clock.keep(&conn).and_then(|()| hostel_sqlite::fold(&conn));
        if let Err(error) = left {
            tracing::warn!(%error, "the queue was closed without a checkpoint");
        }
    }

    /// Opens the database as it was left by a process that is gone: whatever ran there is lost. If
    /// the disk is too full even for that, the reserve is given up.
    fn open(&mut self) -> Result<(Connection, Arc<Clock>), Error> {
        let open = |database: &Database, space: &Space, wall: Wall| -> Result<_, Error> {
            let conn = database.open_writer()?;
            let clock = Clock::resume(&conn, wall).and_then(|clock| {
                space.bound_log(&conn)?;
                let now = [clock.now()];
                let lost = "UPDATE task SET at = min(at, ?1 - 1) WHERE state = 1";
                conn.execute(lost, now).map(|_| clock)
            });
            let clock = clock.map_err(|error| database.opening_error(&error.into()))?;
            Ok((conn, Arc::new(clock)))
        };
        match open(&self.database, &self.space, self.shared.wall.clone()) {
            Err(Error::Unavailable { .. }) if self.space.is_exhausted() && self.space.give_up() => {
                open(&self.database, &self.space, self.shared.wall.clone())
            }
            opened => opened,
        }
    }

    /// Works until it is told to close, or until something fails that a new connection may mend.
    fn serve(
        &mut self,
        conn: &Connection,
        clock: &Arc<Clock>,
        ready: &mut Option<Ready>,
    ) -> Result<(), Fault> {
        let max_open = self.settings.max_open_tasks;
        let recent = Arc::clone(&self.shared.recent);
        let mut book = Book::open(conn, max_open, recent, Arc::clone(clock))?;
        self.shared.overview.update(&mut book.board);
        if let Some(ready) = ready.take() {
            let _ = ready.send(Ok(Arc::clone(clock)));
        }
        let mut safety = Safety::Power;
        loop {
            let patience = self.upkeep.pause().min(LOOK);
            if self.batch.is_empty() {
                match self.receive(patience) {
                    Received::Some => {}
                    Received::Idle => {
                        self.tidy(conn, clock);
                        continue;
                    }
                    Received::Closed => return Ok(()),
                }
            }
            if let Err(fault) = self.make_room(&mut book) {
                return Err(self.fail(fault.into()));
            }
            match batch::commit(&mut book, &mut self.batch, &mut safety) {
                Ok(verdicts) => {
                    self.pause = FIRST_PAUSE;
                    self.disk_is_full = false;
                    self.shared.overview.update(&mut book.board);
                    self.shared.recent.update(&mut book.snapshots);
                    // Before the answers: who watches from an answer on is told nothing older.
                    let changes = std::mem::take(&mut book.changes);
                    self.shared.publisher.publish(changes);
                    self.settle(verdicts);
                }
                Err(failure) => return Err(self.fail(failure)),
            }
            self.tidy(conn, clock);
        }
    }

    /// Tells the book what new tasks there is room for.
    fn make_room(&mut self, book: &mut Book<'_>) -> Result<(), Fault> {
        let demands = self.batch.iter().map(|operation| operation.demand());
        let submitted = demands.filter(|demand| demand.submits);
        if let Some(bytes) = submitted.map(|demand| demand.bytes).reduce(|a, b| a + b) {
            let room = self.space.room(book.conn, bytes)?;
            let fits = room.takes(bytes);
            book.refusal = (!fits).then(|| self.space.refuse(bytes).into());
        }
        Ok(())
    }

    /// Nothing of the batch was committed. On a full disk the reserve is given up, once; then only
    /// submissions are refused, and the rest is tried again.
    fn fail(&mut self, failure: Failure) -> Fault {
        let Failure {
            fault,
            outcome_unknown,
        } = failure;
        self.shared.recent.clear();
        self.disk_is_full = fault.is_disk_full();
        let reason = self.database.reason(&fault);
        if self.disk_is_full && self.space.give_up() {
            self.pause = Duration::ZERO;
            let (submissions, others) = std::mem::take(&mut self.batch)
                .into_iter()
                .partition(|operation| operation.demand().submits);
            self.batch = submissions;
            self.refuse(&reason, outcome_unknown);
            self.batch = others;
        } else {
            self.refuse(&reason, outcome_unknown);
        }
        fault
    }

    /// What can wait until nobody does: small files, the reserve, the time.
    fn tidy(&mut self, conn: &Connection, clock: &Clock) {
        let tidied = self
            .upkeep
            .step(conn, self.space.is_short())
            .and_then(|()| {
                if self.looked.elapsed() < LOOK {
                    return Ok(());
                }
                self.looked = Instant::now();
                self.space.restore(conn);
                if clock.compare(conn)? {
                    self.shared.recent.clear();
                }
                if self.kept.elapsed() >= KEEP_TIME {
                    self.kept = Instant::now();
                    clock.keep(conn)?;
                }
                Ok(())
            });
        if let Err(error) = tidied {
            let fault = Fault::from(error);
            if fault.is_disk_full() {
                self.space.give_up();
            }
            if let Some(left_out) = TROUBLE.permit() {
                tracing::warn!(%fault, left_out, "the task queue's files cannot be looked after");
            }
        }
    }

    /// Takes what waits, or waits for something, for `patience` at most.
    fn receive(&mut self, patience: Duration) -> Received {
        let max = self.settings.max_batch.max(1);
        let mut messages = Vec::new();
        while self.waiting.is_empty() {
            if self.closing {
                return Received::Closed;
            }
            match hostel_sqlite::receive(&mut self.receiver, &mut messages, max, patience) {
                Received::Some => {}
                ended => return ended,
            }
            for message in messages.drain(..) {
                match message {
                    Message::Do(operation) if !self.closing => self.waiting.push_back(operation),
                    Message::Do(operation) => operation.settle(Err(closed())),
                    Message::Close => self.closing = true,
                }
            }
        }
        let mut bytes = 0;
        while bytes < MAX_BATCH_BYTES
            && let Some(operation) = self.waiting.pop_front()
        {
            bytes += operation.demand().bytes;
            self.batch.push(operation);
        }
        Received::Some
    }

    fn settle(&mut self, faults: Vec<Option<Fault>>) {
        let mut faults = faults.into_iter();
        for operation in self.batch.drain(..) {
            let verdict = match faults.next().flatten() {
                Some(fault) => {
                    tracing::warn!(%fault, "one operation on the task queue failed");
                    Err(self.database.error(&fault).into())
                }
                None => Ok(()),
            };
            operation.settle(verdict);
        }
    }

    fn refuse(&mut self, reason: &str, outcome_unknown: bool) {
        for operation in self.batch.drain(..) {
            let is_full = self.disk_is_full && operation.demand().submits;
            operation.settle(Err(match is_full && !outcome_unknown {
                true => Error::Full {
                    reason: self.space.reason(),
                },
                false => Error::Unavailable {
                    reason: reason.to_owned(),
                    outcome_unknown,
                },
            }));
        }
    }

    /// Refuses what comes in, and from time to time tries to open the database and to commit to it.
    /// `None` when there is nothing more to come.
    fn reopen(&mut self, clock: &Clock, mut reason: String) -> Option<Connection> {
        let mut next_try = Instant::now() + self.pause;
        loop {
            if Instant::now() >= next_try {
                match probe(&self.database, &self.space, clock) {
                    Ok(conn) => {
                        tracing::info!("the task queue can write again");
                        return Some(conn);
                    }
                    Err(Error::Unavailable { reason: again, .. }) => reason = again,
                    Err(error) => reason = error.to_string(),
                }
                self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                next_try = Instant::now() + self.pause;
            }
            self.refuse(&reason, false);
            let patience = next_try.saturating_duration_since(Instant::now());
            if self.receive(patience) == Received::Closed {
                return None;
            }
        }
    }
}

/// A connection that has proved to work.
fn probe(database: &Database, space: &Space, clock: &Clock) -> Result<Connection, Error> {
    let conn = database.open_writer()?;
    // What a failed sync left behind is written once more, to the database itself.
    conn.execute_batch("PRAGMA wal_checkpoint(PASSIVE)")
        .and_then(|()| space.bound_log(&conn))
        .and_then(|()| clock.keep(&conn))
        .map_err(|error| database.error(&error.into()))?;
    Ok(conn)
}
