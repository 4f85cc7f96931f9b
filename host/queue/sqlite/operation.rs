//! One caller's question to the writer: what to do, how safely it must be written, and where the
//! answer goes. It may be run more than once, and is answered once.

use super::book::Book;
use crate::Error;
use hostel_sqlite::Fault;
use tokio::sync::oneshot;

/// How safely an operation must be on disk before it is answered. A batch takes the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Safety {
    /// Changes nothing.
    Looks,
    /// Has to survive the end of the process: a lease, its renewal.
    Process,
    /// Has to survive the loss of power: anything that a caller was promised.
    Power,
}

/// What an operation asks of the writer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub safety: Safety,
    /// Payloads or results that it brings.
    pub bytes: u64,
    /// Brings new tasks, which may be refused for want of space.
    pub submits: bool,
}

impl From<Safety> for Demand {
    fn from(safety: Safety) -> Self {
        Self {
            safety,
            bytes: 0,
            submits: false,
        }
    }
}

pub(super) trait Operation: Send {
    fn demand(&self) -> Demand;
    /// Does the work within the running transaction and keeps the answer.
    fn run(&mut self, book: &mut Book<'_>) -> Result<(), Fault>;
    /// Sends the kept answer when the work is committed, the error otherwise.
    fn settle(self: Box<Self>, verdict: Result<(), Error>);
}

/// `run` makes an answer, and `seal`, called once that is committed, makes of it what is sent.
pub(super) struct Asked<R, S, A, B> {
    pub demand: Demand,
    pub run: R,
    pub seal: S,
    pub answer: Option<A>,
    pub reply: oneshot::Sender<Result<B, Error>>,
}

impl<R, S, A, B> Operation for Asked<R, S, A, B>
where
    R: FnMut(&mut Book<'_>) -> Result<A, Fault> + Send,
    S: FnOnce(A) -> B + Send,
    A: Send,
    B: Send,
{
    fn demand(&self) -> Demand {
        self.demand
    }

    fn run(&mut self, book: &mut Book<'_>) -> Result<(), Fault> {
        self.answer = Some((self.run)(book)?);
        Ok(())
    }

    fn settle(self: Box<Self>, verdict: Result<(), Error>) {
        let Self {
            seal,
            answer,
            reply,
            ..
        } = *self;
        let answer = match (verdict, answer) {
            (Ok(()), Some(answer)) => Ok(seal(answer)),
            (Ok(()), None) => Err(super::fault::unavailable("the writer skipped a step")),
            (Err(error), _) => Err(error),
        };
        // Nobody may be waiting any more; what is committed stays.
        let _ = reply.send(answer);
    }
}
