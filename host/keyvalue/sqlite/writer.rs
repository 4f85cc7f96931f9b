//! What the key-value store adds to the group-commit writer.

use super::transaction::Transaction;
use crate::key_value::Error;
use hostel_config::KeyValueLimits;
use hostel_runtime::health::Part;
use hostel_sqlite::{
    Error as DatabaseError, OperationError, Session, StatementError, Store, Writer as GroupWriter,
};
use rusqlite::Connection;
use std::sync::Arc;

pub(super) type Writer = GroupWriter<EntryStore>;

pub(super) struct EntryStore {
    pub limits: KeyValueLimits,
}

impl Store for EntryStore {
    type Session<'c> = Transaction<'c>;
    type Error = Error;
    type Failure = OperationError<Error>;
    type Handle = ();

    const PART: Part = Part::KeyValue;
    const THREAD: &'static str = "keyvalue-writer";

    fn handle(&self) {}

    fn session<'c>(&mut self, conn: &'c Connection) -> Result<Transaction<'c>, StatementError> {
        Ok(Transaction {
            conn,
            limits: self.limits.clone(),
            refusal: None,
        })
    }
}

impl<'c> Session<'c> for Transaction<'c> {
    fn connection(&self) -> &'c Connection {
        self.conn
    }

    fn set_refusal(&mut self, refusal: Option<Arc<str>>) {
        self.refusal = refusal;
    }
}

impl From<DatabaseError> for Error {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Unavailable {
                reason,
                outcome_unknown,
            } => Error::Unavailable {
                reason,
                outcome_unknown,
            },
            DatabaseError::Full(reason) => Error::Unavailable {
                reason,
                outcome_unknown: false,
            },
            DatabaseError::Corrupt(what) => Error::Corrupt(what),
            DatabaseError::Misconfigured(what) => Error::Misconfigured(what),
        }
    }
}
