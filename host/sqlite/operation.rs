//! One caller's request to the writer: what to do, how durable it must be, and where the answer goes.
//! It may run more than once and is answered once.

use super::{error::Error, statement_error::OperationError, store::Store};
use tokio::sync::oneshot;

/// How durable an operation must be before it is answered. A batch takes the highest level of its
/// operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyncLevel {
    /// Changes nothing.
    ReadOnly,
    /// Survives the end of the process (`PRAGMA synchronous = NORMAL`).
    Normal,
    /// Survives the loss of power (`PRAGMA synchronous = FULL`).
    Full,
}

/// What an operation requires of the writer.
#[derive(Debug, Clone, Copy)]
pub struct WriteCost {
    /// How far the operation has to be stored before it is answered.
    pub sync_level: SyncLevel,
    /// Bytes of payload that it writes.
    pub bytes: u64,
    /// Adds data, so it is refused while the disk has no room.
    pub adds: bool,
}

impl From<SyncLevel> for WriteCost {
    fn from(sync_level: SyncLevel) -> Self {
        Self {
            sync_level,
            bytes: 0,
            adds: false,
        }
    }
}

pub(super) trait Operation<S: Store>: Send {
    fn cost(&self) -> WriteCost;

    /// Does the work within the running transaction and keeps the answer.
    fn run(&mut self, session: &mut S::Session<'_>) -> Result<(), OperationError<S::Error>>;

    /// Sends the kept answer once it is committed, or the error.
    fn reply(self: Box<Self>, result: Result<(), S::Error>);
}

/// An operation made of two functions: `run` computes an answer, and `on_commit`, called once that is
/// committed, turns it into the reply.
pub(super) struct WriteRequest<R, C, A, B, E> {
    pub cost: WriteCost,
    pub run: R,
    pub on_commit: C,
    pub answer: Option<A>,
    pub reply: oneshot::Sender<Result<B, E>>,
}

impl<S, R, C, A, B> Operation<S> for WriteRequest<R, C, A, B, S::Error>
where
    S: Store,
    R: FnMut(&mut S::Session<'_>) -> Result<A, S::Failure> + Send,
    C: FnOnce(A) -> B + Send,
    A: Send,
    B: Send,
{
    fn cost(&self) -> WriteCost {
        self.cost
    }

    fn run(&mut self, session: &mut S::Session<'_>) -> Result<(), OperationError<S::Error>> {
        self.answer = Some((self.run)(session).map_err(Into::into)?);
        Ok(())
    }

    fn reply(self: Box<Self>, result: Result<(), S::Error>) {
        let Self {
            on_commit,
            answer,
            reply,
            ..
        } = *self;
        let answer = match (result, answer) {
            (Ok(()), Some(answer)) => Ok(on_commit(answer)),
            (Ok(()), None) => {
                Err(Error::unavailable("the writer did not run the operation").into())
            }
            (Err(error), _) => Err(error),
        };
        // The caller may have stopped waiting; what is committed stays.
        let _ = reply.send(answer);
    }
}
