//! Reading beside the writer: a thread with a connection of its own, which sees every acknowledged
//! change, because that is committed. A read that takes too long is interrupted. Changes nothing.

use super::{
    database::Database, error::Error, pragma::MAX_READ, statement_error::StatementError,
    thread::Thread,
};
use hostel_runtime::health::{Health, Part};
use hostel_runtime::log_limit::LogLimit;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

const BACKLOG: usize = 1024;
/// How many queries share one transaction.
const MAX_BATCH: usize = 128;
/// After this time the next query has a transaction of its own, so that it has most of the time above.
const SHARED_TRANSACTION: Duration = Duration::from_millis(100);
/// How many instructions of SQLite run between two looks at the clock.
const STEPS: i32 = 10_000;

/// Runs one query and sends its result. Returns false if the connection should be replaced.
type Query = Box<dyn FnOnce(&Connection) -> bool + Send>;

/// Sends queries to a reader's thread.
pub struct Reader {
    database: Database,
    sender: Mutex<Option<mpsc::Sender<Query>>>,
    /// For queries that fail: clients can repeat them at will.
    log_limit: Arc<LogLimit>,
    thread: Thread,
}

impl Reader {
    /// Starts a thread with a connection for reading.
    pub fn start(
        health: &Health,
        part: Part,
        name: &'static str,
        database: &Database,
    ) -> Result<Self, Error> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let of_thread = database.clone();
        let log_limit = Arc::new(LogLimit::new(3, Duration::from_secs(10)));
        let limit = log_limit.clone();
        Ok(Self {
            database: database.clone(),
            sender: Mutex::new(Some(sender)),
            log_limit,
            thread: Thread::start(health, part, name, move || {
                serve(&of_thread, receiver, &limit)
            })?,
        })
    }

    /// Runs a query on the thread, in a transaction, and returns its result.
    pub async fn query<A: Send + 'static, E: From<Error>>(
        &self,
        query: impl FnOnce(&Connection) -> Result<A, StatementError> + Send + 'static,
    ) -> Result<A, E> {
        let (reply, answer) = oneshot::channel();
        let (what, limit) = (self.database.what, self.log_limit.clone());
        let query: Query = Box::new(move |conn| {
            let found = query(conn);
            let sound = found.is_ok();
            if let Err(error) = &found
                && let Some(left_out) = limit.permit()
            {
                tracing::warn!(%error, left_out, "the {what} cannot be read");
            }
            let _ = reply.send(found);
            sound
        });
        let sender = self.sender.lock().clone().ok_or_else(Error::closed)?;
        sender.send(query).await.map_err(|_| Error::closed())?;
        drop(sender);
        match answer.await {
            Ok(found) => found.map_err(|error| self.database.error(&error).into()),
            Err(_) => {
                let reason = "the database cannot be read; the log of the node says why";
                Err(Error::unavailable(reason).into())
            }
        }
    }

    /// Ends the thread after the queries that wait, and waits for its end.
    pub async fn close(&self) {
        self.sender.lock().take();
        self.thread.join().await;
    }
}

fn serve(database: &Database, mut receiver: mpsc::Receiver<Query>, limit: &LogLimit) {
    let mut conn = None;
    let mut queries = Vec::with_capacity(MAX_BATCH);
    while receiver.blocking_recv_many(&mut queries, MAX_BATCH) > 0 {
        if conn.is_none() {
            conn = TimedConnection::open(database)
                .inspect_err(|error| {
                    if let Some(left_out) = limit.permit() {
                        tracing::warn!(%error, left_out, "the {} cannot be read", database.what);
                    }
                })
                .ok();
        }
        // Dropping a query answers it with an error.
        let Some(open) = &conn else {
            queries.clear();
            continue;
        };
        if !open.run(&mut queries) {
            queries.clear();
            conn = None;
        }
    }
}

/// A connection whose transactions end in time.
struct TimedConnection {
    conn: Connection,
    /// When the running transaction is interrupted.
    deadline: Arc<Mutex<Instant>>,
}

impl TimedConnection {
    fn open(database: &Database) -> Result<Self, StatementError> {
        let mut conn = database.open_reader()?;
        let deadline = Arc::new(Mutex::new(Instant::now()));
        let until = Arc::clone(&deadline);
        conn.progress_handler(STEPS, Some(move || Instant::now() >= *until.lock()))?;
        Ok(Self { conn, deadline })
    }

    /// Runs queries, and returns false if the connection should be replaced.
    fn run(&self, queries: &mut Vec<Query>) -> bool {
        // One transaction for all, since taking and releasing locks costs more than a query; and for a
        // lone query too, so that its statements see the same state.
        let Ok(mut begun) = self.begin() else {
            return false;
        };
        let mut sound = true;
        for query in queries.drain(..) {
            if begun.elapsed() >= SHARED_TRANSACTION {
                let next = self
                    .conn
                    .execute_batch("COMMIT")
                    .and_then(|()| self.begin());
                let Ok(next) = next else {
                    return false;
                };
                begun = next;
            }
            // A panic costs the query's own answer and the connection.
            let ran = catch_unwind(AssertUnwindSafe(|| query(&self.conn)));
            sound &= ran.unwrap_or(false);
        }
        sound & self.conn.execute_batch("COMMIT").is_ok()
    }

    /// Begins a transaction, and returns when that was.
    fn begin(&self) -> rusqlite::Result<Instant> {
        let begun = Instant::now();
        *self.deadline.lock() = begun + MAX_READ;
        self.conn.execute_batch("BEGIN")?;
        Ok(begun)
    }
}
