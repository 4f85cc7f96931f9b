//! Reading beside the writer: a thread with a connection of its own. What is acknowledged is
//! committed, and what is committed is seen here. Changes nothing.

use super::{Database, Error, Fault, Thread};
use hostel_runtime::health::{Health, Part};
use hostel_runtime::log_limit::LogLimit;
use rusqlite::Connection;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

const BACKLOG: usize = 1024;
/// How many questions share one look at the database.
const MAX_BATCH: usize = 128;

/// Asks one question and answers it; false when the connection should be replaced.
type Question = Box<dyn FnOnce(&Connection) -> bool + Send>;

/// One reading thread as others see it.
pub struct Reader {
    database: Database,
    sender: Mutex<Option<mpsc::Sender<Question>>>,
    /// Of looks that fail: clients may repeat their questions at will.
    log_limit: Arc<LogLimit>,
    thread: Thread,
}

impl Reader {
    pub fn start(
        health: &Health,
        part: Part,
        name: &'static str,
        database: &Database,
    ) -> Result<Self, Error> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let its = database.clone();
        let log_limit = Arc::new(LogLimit::new(3, Duration::from_secs(10)));
        let limit = log_limit.clone();
        Ok(Self {
            database: database.clone(),
            sender: Mutex::new(Some(sender)),
            log_limit,
            thread: Thread::start(health, part, name, move || serve(&its, receiver, &limit))?,
        })
    }

    pub async fn ask<A: Send + 'static, E: From<Error>>(
        &self,
        look: impl FnOnce(&Connection) -> Result<A, Fault> + Send + 'static,
    ) -> Result<A, E> {
        let (reply, answer) = oneshot::channel();
        let (what, limit) = (self.database.what, self.log_limit.clone());
        let question: Question = Box::new(move |conn| {
            let found = look(conn);
            let sound = found.is_ok();
            if let Err(fault) = &found
                && let Some(left_out) = limit.permit()
            {
                tracing::warn!(%fault, left_out, "the {what} cannot be read");
            }
            let _ = reply.send(found);
            sound
        });
        let sender = held(&self.sender).clone().ok_or_else(Error::closed)?;
        sender.send(question).await.map_err(|_| Error::closed())?;
        drop(sender);
        match answer.await {
            Ok(found) => found.map_err(|fault| self.database.error(&fault).into()),
            Err(_) => {
                let reason = "the database could not be read; the log says why";
                Err(Error::Unavailable(reason.into()).into())
            }
        }
    }

    pub async fn close(&self) {
        held(&self.sender).take();
        self.thread.join().await;
    }
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(database: &Database, mut receiver: mpsc::Receiver<Question>, limit: &LogLimit) {
    let mut conn = None;
    let mut questions = Vec::with_capacity(MAX_BATCH);
    while receiver.blocking_recv_many(&mut questions, MAX_BATCH) > 0 {
        if conn.is_none() {
            conn = database
                .open_reader()
                .inspect_err(|error| {
                    if let Some(left_out) = limit.permit() {
                        tracing::warn!(%error, left_out, "the {} cannot be read", database.what);
                    }
                })
                .ok();
        }
        // Dropping a question answers it.
        let Some(open) = &conn else {
            questions.clear();
            continue;
        };
        // One transaction for all: taking and dropping locks costs more than the look itself.
        let begun = questions.len() > 1 && open.execute_batch("BEGIN").is_ok();
        let mut sound = true;
        for question in questions.drain(..) {
            // One that panics costs its own answer and the connection, and nobody else anything.
            let asked = catch_unwind(AssertUnwindSafe(|| question(open)));
            sound &= asked.unwrap_or(false);
        }
        if begun {
            sound &= open.execute_batch("COMMIT").is_ok();
        }
        if !sound {
            conn = None;
        }
    }
}
