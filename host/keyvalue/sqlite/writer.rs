//! The one thread that changes the database. It turns whatever waits into one transaction and one
//! commit, and then answers everybody. When the machine is at fault it tries again, on a new
//! connection, with whatever comes next. Knows no verb but by name.

use super::book::{self, Stop};
use crate::{
    config::KeyValueLimits,
    keyvalue::{Bucket, Change, Error},
    sqlite::{self, Database, Fault, Lock, Thread},
};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

/// How many operations may wait for the writer, each with its values; further callers wait to be
/// let in. What waits shares one commit.
const BACKLOG: usize = 256;

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
        limits: KeyValueLimits,
        lock: Lock,
    ) -> Result<Self, Error> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let (ready, opened) = oneshot::channel();
        let thread = Thread::start("keyvalue-writer", move || {
            let conn = match database.open_writer() {
                Ok(conn) => conn,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            let work = Work { database, limits };
            work.run(conn, receiver);
            drop(lock);
        })?;
        let opened = opened.await;
        if let Err(error) = opened.unwrap_or_else(|_| Err(sqlite::Error::closed())) {
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
        sent.map_err(|_| sqlite::Error::closed())?;
        answer
            .await
            .unwrap_or_else(|_| Err(sqlite::Error::closed().into()))
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
    fn run(&self, conn: Connection, mut receiver: mpsc::Receiver<Message>) {
        let mut conn = Some(conn);
        let mut messages = Vec::with_capacity(BACKLOG);
        let mut batch = Vec::with_capacity(BACKLOG);
        let mut sound = true;
        while receiver.blocking_recv_many(&mut messages, BACKLOG) > 0 {
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
        let closing = conn.map(|conn| conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
        if let Some(Err(error)) = closing {
            tracing::warn!(%error, "the key-value store was closed without a checkpoint");
        }
    }

    fn commit(
        &self,
        conn: &mut Option<Connection>,
        batch: &[Operation],
    ) -> Result<Vec<Answer>, Error> {
        let open = match conn.take() {
            Some(open) => open,
            None => self.reopen()?,
        };
        match self.transact(&open, batch) {
            Ok(answers) => {
                *conn = Some(open);
                Ok(answers)
            }
            Err(Failure {
                fault,
                outcome_unknown,
            }) => match self.database.error(&fault) {
                sqlite::Error::Unavailable(reason) => Err(Error::Unavailable {
                    reason,
                    outcome_unknown,
                }),
                error => Err(error.into()),
            },
        }
    }

    fn reopen(&self) -> Result<Connection, Error> {
        let conn = self.database.open_writer()?;
        // What a failed sync left behind is written once more, to the database itself.
        conn.execute_batch("PRAGMA wal_checkpoint(PASSIVE)")
            .map_err(|error| self.database.error(&error.into()))?;
        Ok(conn)
    }

    /// Does everything in one transaction, in which what fails is taken back alone.
    fn transact(&self, conn: &Connection, batch: &[Operation]) -> Result<Vec<Answer>, Failure> {
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut answers = Vec::with_capacity(batch.len());
        for operation in batch {
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
