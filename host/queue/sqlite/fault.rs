//! What can go wrong beneath the queue, classed by what the caller can do about it. Every rusqlite
//! error becomes a `queue::Error` here and nowhere else.

use crate::queue::Error;
use rusqlite::ErrorCode;
use std::path::Path;

/// Why a statement or a transaction did not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// What is stored breaks a rule of ours.
    #[error("{0}")]
    Corrupt(String),
}

impl Fault {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Fault::Sqlite(error) => error.sqlite_error_code(),
            Fault::Corrupt(_) => None,
        }
    }

    pub fn is_disk_full(&self) -> bool {
        self.code() == Some(ErrorCode::DiskFull)
    }

    /// Whether the fault lies with the machine and not with one statement: then the other
    /// operations of the batch would meet it too.
    pub fn is_environmental(&self) -> bool {
        use ErrorCode as Code;
        matches!(
            self.code(),
            Some(
                Code::DiskFull
                    | Code::SystemIoFailure
                    | Code::CannotOpen
                    | Code::OutOfMemory
                    | Code::ReadOnly
                    | Code::PermissionDenied
                    | Code::DatabaseBusy
                    | Code::DatabaseLocked
                    | Code::FileLockingProtocolFailed
            )
        )
    }

    /// The fault in words for the caller, who cannot see `path` but whose operator can.
    pub fn reason(&self, path: &Path) -> String {
        let path = path.display();
        match self.code() {
            Some(ErrorCode::DiskFull) => format!(
                "the disk that holds {path} is full; free some space and the queue goes on by itself"
            ),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                format!("another program holds a lock on {path}: {self}")
            }
            _ => format!("{path}: {self}"),
        }
    }

    /// For one operation whose changes were taken back.
    pub fn into_error(self, path: &Path) -> Error {
        match &self {
            Fault::Corrupt(what) => Error::Corrupt(format!("{}: {what}", path.display())),
            Fault::Sqlite(_) => match self.code() {
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    Error::Corrupt(self.reason(path))
                }
                _ => unavailable(self.reason(path)),
            },
        }
    }

    /// For the operator who starts the node.
    pub fn into_opening_error(self, path: &Path) -> Error {
        match self.code() {
            Some(ErrorCode::NotADatabase) => Error::Misconfigured(format!(
                "{} is not a SQLite database; point [queue] path elsewhere",
                path.display()
            )),
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Error::Misconfigured(self.reason(path))
            }
            _ => self.into_error(path),
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
    unavailable("it has been closed")
}
