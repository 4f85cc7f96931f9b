//! Failures of SQLite and of stored data, classified by what can be done about them. All texts for
//! rusqlite errors are made here.

use super::{database::Database, error::Error, pragma::MAX_READ};
use rusqlite::ErrorCode;

/// Why a statement or a transaction failed.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// SQLite refused a statement.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// Stored data is invalid.
    #[error("{0}")]
    Corrupt(String),
}

impl StatementError {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            StatementError::Sqlite(error) => error.sqlite_error_code(),
            StatementError::Corrupt(_) => None,
        }
    }

    /// Whether the file system has no space left.
    pub fn is_disk_full(&self) -> bool {
        self.code() == Some(ErrorCode::DiskFull)
    }

    /// Returns whether stored data is damaged in one place: an invalid value, a wrong type, a page.
    pub fn is_damage(&self) -> bool {
        use rusqlite::Error as E;
        match self {
            StatementError::Corrupt(_) => true,
            StatementError::Sqlite(
                E::FromSqlConversionFailure(..)
                | E::IntegralValueOutOfRange(..)
                | E::InvalidColumnType(..)
                | E::Utf8Error(..),
            ) => true,
            StatementError::Sqlite(_) => self.code() == Some(ErrorCode::DatabaseCorrupt),
        }
    }

    /// Returns whether the machine is at fault and not one statement, so that the other operations of a
    /// batch would fail, too.
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
}

/// Why one operation was rolled back.
#[derive(Debug)]
pub enum OperationError<E> {
    /// The operation refused its own work, for a reason that the caller can mend.
    Rejected(E),
    /// The whole transaction failed.
    Failed(StatementError),
}

impl<E, F: Into<StatementError>> From<F> for OperationError<E> {
    fn from(error: F) -> Self {
        Self::Failed(error.into())
    }
}

impl Database {
    /// Describes an error for the operator.
    pub fn reason(&self, error: &StatementError) -> String {
        let path = self.path.display();
        match error.code() {
            Some(ErrorCode::DiskFull) => format!(
                "the disk that holds {path} is full; free some space, and the {} continues by itself",
                self.what
            ),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                format!("another program holds a lock on {path}: {error}")
            }
            Some(ErrorCode::OperationInterrupted) => {
                format!("a read of {path} took longer than {MAX_READ:?} and was ended")
            }
            _ => format!("{path}: {error}"),
        }
    }

    /// Converts the error of one operation that was rolled back.
    pub fn error(&self, error: &StatementError) -> Error {
        let reason = self.reason(error);
        let is_not_a_database = error.code() == Some(ErrorCode::NotADatabase);
        if error.is_damage() || is_not_a_database {
            Error::Corrupt(reason)
        } else {
            Error::unavailable(reason)
        }
    }

    /// Converts an error that keeps the database from being opened.
    pub fn opening_error(&self, error: &StatementError) -> Error {
        match error.code() {
            Some(ErrorCode::NotADatabase) => Error::Misconfigured(format!(
                "{} is not a SQLite database; set {} path to another file",
                self.path.display(),
                self.section
            )),
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Error::Misconfigured(self.reason(error))
            }
            _ => self.error(error),
        }
    }
}
