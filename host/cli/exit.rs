//! How a command fails: what is said, and the exit code that scripts see.

use std::process::ExitCode;
use tonic::{Code, Status};

/// A command that did not do what it was asked. The codes are part of the interface.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    /// Empty when everything has been said already.
    message: String,
}

impl Failure {
    /// The task ended badly, or a check found faults.
    pub fn found(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }

    /// The node itself could not do its work.
    pub fn node(error: anyhow::Error) -> Self {
        Self::found(format!("{error:#}"))
    }

    /// What was looked at could not be read or run.
    pub fn found_in(error: impl std::fmt::Display) -> Self {
        Self::found(error.to_string())
    }

    /// The arguments or the configuration are wrong.
    pub fn usage(error: impl std::fmt::Display) -> Self {
        Self {
            code: 2,
            message: error.to_string(),
        }
    }

    /// Nobody answers.
    pub fn unreachable(server: &str, error: &anyhow::Error) -> Self {
        let why = error.root_cause();
        Self {
            code: 3,
            message: format!(
                "no node answers at {server} ({why}); start one with `hostel serve`, \
                 or name another with --server or HOSTEL_SERVER"
            ),
        }
    }

    pub fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("hostel: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::Unavailable => 3,
            Code::Internal | Code::Unknown => 1,
            _ => 4,
        };
        Self {
            code,
            message: format!("{} ({:?})", status.message(), status.code()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::node(error)
    }
}
