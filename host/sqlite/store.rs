//! What one kind of database adds to the group-commit writer: the state that its operations work on,
//! and what follows a commit or a failure.

use super::{
    error::Error,
    statement_error::{OperationError, StatementError},
};
use hostel_runtime::health::Part;
use rusqlite::Connection;
use std::sync::Arc;

/// A database, as its writer thread uses it.
pub trait Store: Send + Sized + 'static {
    /// The state of one connection. Operations run on it.
    type Session<'c>: Session<'c>;
    /// What callers of the writer receive.
    type Error: From<Error> + Send;
    /// What an operation fails with.
    type Failure: Into<OperationError<Self::Error>>;
    /// What `Writer::start` returns beside the writer.
    type Handle: Send;

    /// The part of the node that faults are reported for.
    const PART: Part;
    /// The name of the writer's thread.
    const THREAD: &'static str;

    /// Returns what callers share with the writer's thread.
    fn handle(&self) -> Self::Handle;

    /// Prepares a connection for operations.
    fn session<'c>(&mut self, conn: &'c Connection) -> Result<Self::Session<'c>, StatementError>;

    /// Called after each commit, before the operations are answered, and once for a new session.
    fn committed(&mut self, _: &mut Self::Session<'_>) {}

    /// Called when a commit has failed: what the database holds is not known.
    fn failed(&mut self) {}

    /// Called about once a second between transactions.
    fn tick(&mut self, _: &Connection) -> rusqlite::Result<()> {
        Ok(())
    }

    /// Called before the database is closed.
    fn closing(&mut self, _: &Connection) -> rusqlite::Result<()> {
        Ok(())
    }
}

/// The state of one connection, which follows the transactions that the writer begins and ends.
pub trait Session<'c> {
    /// The connection of the transaction.
    fn connection(&self) -> &'c Connection;

    /// Sets why operations that add data are refused, or `None` when there is room for them.
    fn set_refusal(&mut self, refusal: Option<Arc<str>>);

    /// Called when a batch begins.
    fn begin(&mut self) {}

    /// Called after a savepoint was set, before the next operation.
    fn savepoint(&mut self) {}

    /// Called after the database was rolled back to the latest savepoint.
    fn rollback_to_savepoint(&mut self) -> Result<(), StatementError> {
        Ok(())
    }

    /// Called after the whole transaction was rolled back.
    fn rollback(&mut self) -> Result<(), StatementError> {
        Ok(())
    }

    /// Called before the transaction is committed.
    fn before_commit(&mut self) -> Result<(), StatementError> {
        Ok(())
    }
}
