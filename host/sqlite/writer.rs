//! Group commit: one thread changes a database. It turns whatever waits into one transaction with one
//! sync and answers each operation after the commit. Knows no table.

use super::{
    database::Database,
    error::Error,
    file::Lock,
    operation::{WriteCost, WriteRequest},
    store::Store,
    thread::Thread,
    writer_thread::{Message, WriterThread},
};
use hostel_runtime::health::Health;
use rusqlite::Connection;
use std::convert::identity;
use tokio::sync::{mpsc, oneshot};

/// The bounds of a writer.
#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// Operations that may wait for the writer; further callers wait to be admitted.
    pub backlog: usize,
    /// Operations that share a commit.
    pub max_batch: usize,
    /// Bytes of the disk that are kept free for operations that add nothing.
    pub reserve_bytes: u64,
}

/// Sends operations to the writer's thread.
pub struct Writer<S: Store> {
    sender: mpsc::Sender<Message<S>>,
    thread: Thread,
}

/// Sends operations without waiting, and does not keep the writer running.
pub struct WeakWriter<S: Store>(mpsc::WeakSender<Message<S>>);

impl<S: Store> Writer<S> {
    /// Starts the writer's thread, which opens the database, and returns once that is ready. `open`
    /// makes the store from the first connection, and may be called again on a full disk. The thread
    /// holds `lock` until it ends.
    pub async fn start(
        database: Database,
        lock: Lock,
        options: WriterOptions,
        health: &Health,
        open: impl FnMut(&Connection) -> rusqlite::Result<S> + Send + 'static,
    ) -> Result<(Self, S::Handle), Error> {
        let (sender, receiver) = mpsc::channel(options.backlog);
        let (ready, opened) = oneshot::channel();
        let reports = health.clone();
        let thread = Thread::start(health, S::PART, S::THREAD, move || {
            let WriterOptions {
                max_batch,
                reserve_bytes,
                ..
            } = options;
            let work = WriterThread::new(database, max_batch, reserve_bytes, &reports, receiver);
            work.run(open, ready);
            drop(lock);
        })?;
        match opened.await.unwrap_or_else(|_| Err(Error::closed())) {
            Ok(handle) => Ok((Self { sender, thread }, handle)),
            Err(error) => {
                // The caller may open the file again at once, so the lock has to be released.
                thread.join().await;
                Err(error)
            }
        }
    }

    /// Runs `run` within a transaction, and returns what `on_commit` makes of its answer once that is
    /// committed.
    pub async fn execute<A, B>(
        &self,
        cost: impl Into<WriteCost>,
        run: impl FnMut(&mut S::Session<'_>) -> Result<A, S::Failure> + Send + 'static,
        on_commit: impl FnOnce(A) -> B + Send + 'static,
    ) -> Result<B, S::Error>
    where
        A: Send + 'static,
        B: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let request = Box::new(WriteRequest {
            cost: cost.into(),
            run,
            on_commit,
            answer: None,
            reply,
        });
        let sent = self.sender.send(Message::Run(request)).await;
        sent.map_err(|_| Error::closed())?;
        answer.await.unwrap_or_else(|_| Err(Error::closed().into()))
    }

    /// Returns a handle that does not keep the writer's thread running.
    pub fn downgrade(&self) -> WeakWriter<S> {
        WeakWriter(self.sender.downgrade())
    }

    /// Finishes the operations sent before, and waits for the thread to end.
    pub async fn close(&self) {
        let _ = self.sender.send(Message::Close).await;
        self.thread.join().await;
    }
}

impl<S: Store> WeakWriter<S> {
    /// Sends an operation whose answer is not needed. It is dropped when the writer's backlog is full
    /// or the writer has ended.
    pub fn try_execute(
        &self,
        cost: impl Into<WriteCost>,
        run: impl FnMut(&mut S::Session<'_>) -> Result<(), S::Failure> + Send + 'static,
    ) {
        let (reply, _) = oneshot::channel::<Result<(), S::Error>>();
        let request = Box::new(WriteRequest {
            cost: cost.into(),
            run,
            on_commit: identity::<()>,
            answer: None,
            reply,
        });
        if let Some(sender) = self.0.upgrade() {
            let _ = sender.try_send(Message::Run(request));
        }
    }
}
