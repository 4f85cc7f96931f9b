//! What can go wrong beneath a database, classed by what can be done about it. Every rusqlite error
//! becomes a sentence here and nowhere else.

use super::{Database, Error};
use rusqlite::ErrorCode;

/// Why a statement or a transaction did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
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

    /// Whether what is stored is at fault, in one place: a rule of ours, a type, a page.
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

    /// Whether the fault lies with the machine and not with one statement: then the other
    /// operations of a batch would meet it too.
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

impl Database {
    /// A fault in words for the caller, who cannot see the path but whose operator can.
    pub fn reason(&self, fault: &Fault) -> String {
        let path = self.path.display();
        match fault.code() {
            Some(ErrorCode::DiskFull) => format!(
                "the disk that holds {path} is full; free some space and the {} goes on by itself",
                self.what
            ),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                format!("another program holds a lock on {path}: {fault}")
            }
            _ => format!("{path}: {fault}"),
        }
    }

    /// For one operation whose changes were taken back.
    pub fn error(&self, fault: &Fault) -> Error {
        let reason = self.reason(fault);
        let is_no_database = fault.code() == Some(ErrorCode::NotADatabase);
        match fault.is_damage() || is_no_database {
            true => Error::Corrupt(reason),
            false => Error::Unavailable(reason),
        }
    }

    /// For the operator who starts the node.
    pub fn opening_error(&self, fault: &Fault) -> Error {
        match fault.code() {
            Some(ErrorCode::NotADatabase) => Error::Misconfigured(format!(
                "{} is not a SQLite database; point {} path elsewhere",
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
