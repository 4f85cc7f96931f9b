//! The one thread that changes the database. It turns whatever waits into one transaction and one
//! commit, and then answers everybody. When the machine is at fault it tries again, on a new
//! connection, with whatever comes next; a full disk costs what adds values, for deletions there is
//! a reserve. Between transactions it keeps the files small. Knows no verb but by name.

use super::book::{self, Stop};
use crate::{Bucket, Change, Error};
use hostel_config::KeyValueLimits;
use hostel_runtime::health::{Health, Part};
use hostel_runtime::log_limit::LogLimit;
use hostel_sqlite::{Database, Fault, Lock, Received, Space, Thread, Upkeep};
use rusqlite::Connection;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// How many operations may wait for the writer, each with its values; further callers wait to be
/// let in. What waits shares one commit.
const BACKLOG: usize = 256;
/// How often the writer looks at its disk and files when nothing else wakes it.
const LOOK: Duration = Duration::from_secs(1);

static TROUBLE: LogLimit = LogLimit::new(1, Duration::from_secs(60));

/// What is to be done in one store.
pub(super) enum Verb {
    Apply(Vec<Change>),
    Increment {
        key: String,
        delta: u64,
    },
    /// Any SQL, for what only a test can bring about.
    #[cfg(test)]
    Inject(&'static str),
}

impl Verb {
    /// What it adds to the store, unless it only takes away.
    fn adds(&self) -> Option<u64> {
        match self {
            Verb::Apply(changes) => {
                let sets = changes.iter().filter_map(|change| match change {
                    Change::Set { key, value } => Some((key.len() + value.len()) as u64),
                    Change::Delete { .. } => None,
                });
                sets.reduce(|all, one| all + one)
            }
            Verb::Increment { key, .. } => Some(key.len() as u64),
            #[cfg(test)]
            Verb::Inject(_) => None,
        }
    }
}

/// The sum, of an increment.
type Answer = Result<Option<u64>, Error>;

struct Operation {
    bucket: Bucket,
    verb: Verb,
    reply: oneshot::Sender<Answer>,
}

enum Message {
    Do(Operation),
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
        reserve_bytes: u64,
        limits: KeyValueLimits,
        lock: Lock,
        health: Health,
    ) -> Result<Self, Error> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let (ready, opened) = oneshot::channel();
        let reporting = health.clone();
        let thread = Thread::start(&reporting, Part::KeyValue, "keyvalue-writer", move || {
            let mut work = Work {
                space: Space::new(&database, reserve_bytes, Part::KeyValue, &health),
                upkeep: Upkeep::new(&database, Part::KeyValue, &health),
                looked: Instant::now(),
                database,
                limits,
            };
            let conn = match work.open() {
                Ok(conn) => conn,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            work.run(conn, receiver);
            drop(lock);
        })?;
        let opened = opened.await;
        if let Err(error) = opened.unwrap_or_else(|_| Err(hostel_sqlite::Error::closed())) {
            // Whoever hears of the failure may open the file again: the lock is given up by then.
            thread.join().await;
            return Err(error.into());
        }
        Ok(Self { sender, thread })
    }

    /// Returns once it is committed.
    pub async fn ask(&self, bucket: &Bucket, verb: Verb) -> Answer {
        let (reply, answer) = oneshot::channel();
        let operation = Operation {
            bucket: bucket.clone(),
            verb,
            reply,
        };
        let sent = self.sender.send(Message::Do(operation)).await;
        sent.map_err(|_| hostel_sqlite::Error::closed())?;
        answer
            .await
            .unwrap_or_else(|_| Err(hostel_sqlite::Error::closed().into()))
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
    limits: KeyValueLimits,
    space: Space,
    upkeep: Upkeep,
    /// When the writer last looked at its disk.
    looked: Instant,
}

/// Nothing of the batch was committed, or nobody knows.
struct Failure {
    fault: Fault,
    outcome_unknown: bool,
}

impl<T: Into<Fault>> From<T> for Failure {
    fn from(fault: T) -> Self {
        Self {
            fault: fault.into(),
            outcome_unknown: false,
        }
    }
}

impl Work {
    fn open(&mut self) -> Result<Connection, hostel_sqlite::Error> {
        let opened = match self.database.open_writer() {
            Err(hostel_sqlite::Error::Unavailable(_))
                if self.space.is_exhausted() && self.space.give_up() =>
            {
                self.database.open_writer()
            }
            opened => opened,
        };
        let conn = opened?;
        let bounded = self.space.bound_log(&conn);
        bounded.map_err(|error| self.database.error(&error.into()))?;
        Ok(conn)
    }

    fn run(&mut self, conn: Connection, mut receiver: mpsc::Receiver<Message>) {
        let mut conn = Some(conn);
        let mut messages = Vec::with_capacity(BACKLOG);
        let mut batch = Vec::with_capacity(BACKLOG);
        let mut sound = true;
        loop {
            if let Some(conn) = &conn {
                self.tidy(conn);
            }
            let patience = self.upkeep.pause().min(LOOK);
            match hostel_sqlite::receive(&mut receiver, &mut messages, BACKLOG, patience) {
                Received::Some => {}
                Received::Idle => continue,
                Received::Closed => break,
            }
            for message in messages.drain(..) {
                match message {
                    Message::Do(operation) => batch.push(operation),
                    // What is sent from now on is refused; what waits is still done.
                    Message::Close => receiver.close(),
                }
            }
            if batch.is_empty() {
                continue;
            }
            let committed = self.commit(&mut conn, &batch);
            if committed.is_ok() != sound {
                sound = !sound;
                match &committed {
                    Ok(_) => tracing::info!("the key-value store can write again"),
                    Err(error) => tracing::error!("{error}; it will try again"),
                }
            }
            match committed {
                Ok(answers) => {
                    for (operation, answer) in batch.drain(..).zip(answers) {
                        // Nobody may be waiting any more; what is committed stays.
                        let _ = operation.reply.send(answer);
                    }
                }
                Err(error) => {
                    for operation in batch.drain(..) {
                        let _ = operation.reply.send(Err(error.clone()));
                    }
                }
            }
        }
        // Leaves one file behind, which can be copied as it is.
        let closing = conn.map(|conn| hostel_sqlite::fold(&conn));
        if let Some(Err(error)) = closing {
            tracing::warn!(%error, "the key-value store was closed without a checkpoint");
        }
    }

    fn commit(
        &mut self,
        conn: &mut Option<Connection>,
        batch: &[Operation],
    ) -> Result<Vec<Answer>, Error> {
        let mut open = match conn.take() {
            Some(open) => open,
            None => self.reopen()?,
        };
        let refusal = self.refusal(&open, batch);
        let mut done = refusal.and_then(|refusal| self.transact(&open, batch, refusal.as_deref()));
        let is_full = |failure: &Failure| failure.fault.is_disk_full();
        if done.as_ref().is_err_and(is_full) && self.space.give_up() {
            // Once more without what adds values: for the rest there is room now.
            drop(open);
            open = self.reopen()?;
            let refusal = self.space.refuse(0);
            done = self.transact(&open, batch, Some(&refusal));
        }
        match done {
            Ok(answers) => {
                *conn = Some(open);
                Ok(answers)
            }
            Err(Failure {
                fault,
                outcome_unknown,
            }) => match self.database.error(&fault) {
                hostel_sqlite::Error::Unavailable(reason) => Err(Error::Unavailable {
                    reason,
                    outcome_unknown,
                }),
                error => Err(error.into()),
            },
        }
    }

    /// Why there is no room for what the batch adds, if there is none.
    fn refusal(
        &mut self,
        conn: &Connection,
        batch: &[Operation],
    ) -> Result<Option<String>, Failure> {
        let added = batch.iter().filter_map(|operation| operation.verb.adds());
        let Some(bytes) = added.reduce(|all, one| all + one) else {
            return Ok(None);
        };
        let fits = self.space.room(conn, bytes)?.takes(bytes);
        Ok((!fits).then(|| self.space.refuse(bytes)))
    }

    /// What can wait until nobody does: small files, the reserve.
    fn tidy(&mut self, conn: &Connection) {
        if let Err(error) = self.upkeep.step(conn, self.space.is_short()) {
            let fault = Fault::from(error);
            if fault.is_disk_full() {
                self.space.give_up();
            }
            if let Some(left_out) = TROUBLE.permit() {
                tracing::warn!(%fault, left_out, "the store's files cannot be looked after");
            }
        }
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.space.restore(conn);
        }
    }

    fn reopen(&self) -> Result<Connection, Error> {
        let conn = self.database.open_writer()?;
        // What a failed sync left behind is written once more, to the database itself.
        conn.execute_batch("PRAGMA wal_checkpoint(PASSIVE)")
            .and_then(|()| self.space.bound_log(&conn))
            .map_err(|error| self.database.error(&error.into()))?;
        Ok(conn)
    }

    /// Does everything in one transaction, in which what fails is taken back alone. With a
    /// `refusal`, nothing that adds values is done.
    fn transact(
        &self,
        conn: &Connection,
        batch: &[Operation],
        refusal: Option<&str>,
    ) -> Result<Vec<Answer>, Failure> {
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut answers = Vec::with_capacity(batch.len());
        for operation in batch {
            let refusal = refusal.filter(|_| operation.verb.adds().is_some());
            if let Some(reason) = refusal {
                answers.push(Err(Error::Unavailable {
                    reason: reason.to_owned(),
                    outcome_unknown: false,
                }));
                continue;
            }
            conn.prepare_cached("SAVEPOINT operation")?.execute([])?;
            let answer = match self.run_one(conn, operation) {
                Ok(answer) => Ok(answer),
                Err(stop) => {
                    let error = match stop {
                        Stop::Refused(error) => error,
                        // Some errors make SQLite take the whole transaction back by itself.
                        Stop::Fault(fault) if fault.is_environmental() || conn.is_autocommit() => {
                            return Err(fault.into());
                        }
                        Stop::Fault(fault) => {
                            tracing::warn!(%fault, "one change to the key-value store failed");
                            self.database.error(&fault).into()
                        }
                    };
                    conn.prepare_cached("ROLLBACK TO operation")?.execute([])?;
                    Err(error)
                }
            };
            conn.prepare_cached("RELEASE operation")?.execute([])?;
            answers.push(answer);
        }
        let committed = conn.prepare_cached("COMMIT")?.execute([]);
        committed.map_err(|error| {
            let fault = Fault::from(error);
            // A full disk is met before the commit record is written; any other fault may come
            // after.
            let outcome_unknown = !fault.is_disk_full();
            Failure {
                fault,
                outcome_unknown,
            }
        })?;
        Ok(answers)
    }

    fn run_one(&self, conn: &Connection, operation: &Operation) -> Result<Option<u64>, Stop> {
        let bucket = &operation.bucket;
        match &operation.verb {
            Verb::Apply(changes) => {
                book::apply(conn, bucket, changes, &self.limits)?;
                Ok(None)
            }
            Verb::Increment { key, delta } => {
                book::increment(conn, bucket, key, *delta, &self.limits).map(Some)
            }
            #[cfg(test)]
            Verb::Inject(sql) => {
                conn.execute_batch(sql)?;
                Ok(None)
            }
        }
    }
}
