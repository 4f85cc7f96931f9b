//! Failures of SQLite and of stored data, classified by what can be done about them. All texts for
//! rusqlite errors are made here.

use super::{database::Database, error::Error};
use rusqlite::ErrorCode;

/// Why a statement or a transaction failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// SQLite refused a statement.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// Stored data is invalid.
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

    /// Whether the file system has no space left.
    pub fn is_disk_full(&self) -> bool {
        self.code() == Some(ErrorCode::DiskFull)
    }

    /// Returns whether stored data is damaged in one place: an invalid value, a wrong type, a page.
    pub fn is_damage(&self) -> bool {
        use rusqlite::Error as E;
        match self {
            Fault::Corrupt(_) => true,
            Fault::Sqlite(
                E::FromSqlConversionFailure(..)
                | E::IntegralValueOutOfRange(..)
                | E::InvalidColumnType(..)
                | E::Utf8Error(..),
            ) => true,
            Fault::Sqlite(_) => self.code() == Some(ErrorCode::DatabaseCorrupt),
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
    Fault(Fault),
}

impl<E, F: Into<Fault>> From<F> for OperationError<E> {
    fn from(fault: F) -> Self {
        Self::Fault(fault.into())
    }
}

impl Database {
    /// Describes a fault for the operator.
    pub fn reason(&self, fault: &Fault) -> String {
        let path = self.path.display();
        match fault.code() {
            Some(ErrorCode::DiskFull) => format!(
                "the disk that holds {path} is full; free some space, and the {} continues by itself",
                self.what
            ),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                format!("another program holds a lock on {path}: {fault}")
            }
            _ => format!("{path}: {fault}"),
        }
    }

    /// Converts the fault of one operation that was rolled back.
    pub fn error(&self, fault: &Fault) -> Error {
        let reason = self.reason(fault);
        let is_not_a_database = fault.code() == Some(ErrorCode::NotADatabase);
        if fault.is_damage() || is_not_a_database {
            Error::Corrupt(reason)
        } else {
            Error::unavailable(reason)
        }
    }

    /// Converts a fault that keeps the database from being opened.
    pub fn opening_error(&self, fault: &Fault) -> Error {
        match fault.code() {
            Some(ErrorCode::NotADatabase) => Error::Misconfigured(format!(
                "{} is not a SQLite database; set {} path to another file",
                self.path.display(),
                self.section
            )),
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Error::Misconfigured(self.reason(fault))
            }
            _ => self.error(fault),
        }
    }
}
