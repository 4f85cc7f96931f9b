//! The one thread that changes the database. It turns whatever waits into one transaction and one
//! commit, then answers everybody and tells the watchers. When a commit fails it refuses work until
//! a new connection has committed something. Knows no verb.

use super::{
    batch::{self, Failure},
    book::Book,
    fault::closed,
    operation::{Asked, Operation, Safety},
    overview::Overview,
};
use crate::{
    config,
    queue::{Error, Publisher, now, recent::Recent},
    sqlite::{Database, Fault, Lock, Thread},
};
use rusqlite::Connection;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// How many operations may wait for the writer; further callers wait to be let in.
const BACKLOG: usize = 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(super) enum Message {
    Do(Box<dyn Operation>),
    Close,
}

/// The writer as others see it.
pub(super) struct Writer {
    sender: mpsc::Sender<Message>,
    thread: Thread,
}

impl Writer {
    /// Opens the database on a thread of its own and returns once it is ready. The thread keeps
    /// `lock` until it has ended.
    pub async fn start(
        database: Database,
        settings: config::Sqlite,
        lock: Lock,
        overview: Arc<Overview>,
        recent: Arc<Recent>,
        publisher: Publisher,
    ) -> Result<Self, Error> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let (ready, opened) = oneshot::channel();
        let work = Work {
            database,
            settings,
            receiver,
            overview,
            recent,
            publisher,
            batch: Vec::new(),
            pause: FIRST_PAUSE,
            closing: false,
        };
        let thread = Thread::start("queue-writer", move || {
            work.run(ready);
            drop(lock);
        })?;
        if let Err(error) = opened.await.unwrap_or_else(|_| Err(closed())) {
            // Whoever hears of the failure may open the file again: the lock is given up by then.
            thread.join().await;
            return Err(error);
        }
        Ok(Self { sender, thread })
    }

    /// Has `run` done within a transaction, and returns what `seal` makes of its answer once that
    /// is committed.
    pub async fn ask<A, B>(
        &self,
        safety: Safety,
        run: impl FnMut(&mut Book<'_>) -> Result<A, Fault> + Send + 'static,
        seal: impl FnOnce(A) -> B + Send + 'static,
    ) -> Result<B, Error>
    where
        A: Send + 'static,
        B: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let asked = Box::new(Asked {
            safety,
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
    settings: config::Sqlite,
    receiver: mpsc::Receiver<Message>,
    overview: Arc<Overview>,
    recent: Arc<Recent>,
    publisher: Publisher,
    /// What was received and is not answered yet.
    batch: Vec<Box<dyn Operation>>,
    pause: Duration,
    closing: bool,
}

type Ready = oneshot::Sender<Result<(), Error>>;

impl Work {
    fn run(mut self, ready: Ready) {
        let mut conn = match self.open() {
            Ok(conn) => conn,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let mut ready = Some(ready);
        while let Err(fault) = self.serve(&conn, &mut ready) {
            if let Some(ready) = ready.take() {
                let error = self.database.opening_error(&fault);
                return drop(ready.send(Err(error.into())));
            }
            let reason = self.database.reason(&fault);
            tracing::error!(reason, "the task queue cannot write; it will try again");
            drop(conn);
            match self.reopen(reason) {
                Some(opened) => conn = opened,
                None => return,
            }
        }
        // Leaves one file behind, which can be copied as it is.
        if let Err(error) = conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(%error, "the queue was closed without a checkpoint");
        }
    }

    /// Opens the database as it was left by a process that is gone: whatever ran there is lost.
    fn open(&self) -> Result<Connection, Error> {
        let conn = self.database.open_writer()?;
        conn.execute(
            "UPDATE task SET at = min(at, ?1 - 1) WHERE state = 1",
            [super::row::ms(now())],
        )
        .map_err(|error| self.database.opening_error(&error.into()))?;
        Ok(conn)
    }

    /// Works until it is told to close, or until something fails that a new connection may mend.
    fn serve(&mut self, conn: &Connection, ready: &mut Option<Ready>) -> Result<(), Fault> {
        let mut book = Book::open(conn, self.settings.max_open_tasks, Arc::clone(&self.recent))?;
        self.overview.update(&mut book.board);
        if let Some(ready) = ready.take() {
            let _ = ready.send(Ok(()));
        }
        let mut safety = Safety::Power;
        loop {
            if self.batch.is_empty() && !self.receive() {
                return Ok(());
            }
            let verdicts = batch::commit(&mut book, &mut self.batch, &mut safety);
            match verdicts {
                Ok(verdicts) => {
                    self.pause = FIRST_PAUSE;
                    self.overview.update(&mut book.board);
                    self.recent.update(&mut book.snapshots);
                    // Before the answers: who watches from an answer on is told nothing older.
                    self.publisher.publish(std::mem::take(&mut book.changes));
                    self.settle(verdicts);
                }
                Err(Failure {
                    fault,
                    outcome_unknown,
                }) => {
                    self.recent.clear();
                    let reason = self.database.reason(&fault);
                    self.refuse(&reason, outcome_unknown);
                    return Err(fault);
                }
            }
        }
    }

    /// Takes what waits, or waits for something; false when there is nothing more to come.
    fn receive(&mut self) -> bool {
        let mut messages = Vec::new();
        while self.batch.is_empty() {
            let max = self.settings.max_batch.max(1);
            if self.closing || self.receiver.blocking_recv_many(&mut messages, max) == 0 {
                return false;
            }
            for message in messages.drain(..) {
                match message {
                    Message::Do(operation) if !self.closing => self.batch.push(operation),
                    Message::Do(operation) => operation.settle(Err(closed())),
                    Message::Close => self.closing = true,
                }
            }
        }
        true
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
            operation.settle(Err(Error::Unavailable {
                reason: reason.to_owned(),
                outcome_unknown,
            }));
        }
    }

    /// Refuses what comes in, and from time to time tries to open the database and to commit to it.
    /// `None` when there is nothing more to come.
    fn reopen(&mut self, mut reason: String) -> Option<Connection> {
        let mut next_try = Instant::now() + self.pause;
        loop {
            if !self.receive() {
                return None;
            }
            if Instant::now() >= next_try {
                match probe(&self.database) {
                    Ok(conn) => {
                        tracing::info!("the task queue can write again");
                        return Some(conn);
                    }
                    Err(Error::Unavailable { reason: again, .. }) => reason = again,
                    Err(error) => reason = error.to_string(),
                }
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                next_try = Instant::now() + self.pause;
            }
            self.refuse(&reason, false);
        }
    }
}

/// A connection that has proved to work.
fn probe(database: &Database) -> Result<Connection, Error> {
    let conn = database.open_writer()?;
    // What a failed sync left behind is written once more, to the database itself.
    conn.execute_batch("PRAGMA wal_checkpoint(PASSIVE)")
        .and_then(|()| conn.execute("UPDATE meta SET opened_at = ?1", [super::row::ms(now())]))
        .map_err(|error| database.error(&error.into()))?;
    Ok(conn)
}
