//! The database's errors as the queue's. What they mean is said in `hostel_sqlite`.

use crate::Error;
use hostel_sqlite as sqlite;

impl From<sqlite::Error> for Error {
    fn from(error: sqlite::Error) -> Self {
        match error {
            sqlite::Error::Unavailable(reason) => unavailable(reason),
            sqlite::Error::Corrupt(what) => Error::Corrupt(what),
            sqlite::Error::Misconfigured(what) => Error::Misconfigured(what),
        }
    }
}

/// Nothing was changed; the same call may succeed later.
pub(super) fn unavailable(reason: impl Into<String>) -> Error {
    Error::Unavailable {
        reason: reason.into(),
        outcome_unknown: false,
    }
}

pub(super) fn closed() -> Error {
    sqlite::Error::closed().into()
}
