//! The database's errors as the queue's.

use crate::error::Error;
use hostel_sqlite::Error as DatabaseError;

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
            DatabaseError::Full(reason) => Error::Full { reason },
            DatabaseError::Corrupt(what) => Error::Corrupt(what),
            DatabaseError::Misconfigured(what) => Error::Misconfigured(what),
        }
    }
}
