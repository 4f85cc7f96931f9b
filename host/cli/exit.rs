//! How a command fails: what is said, and the exit code that scripts see.

use super::output::complain;
use crate::client::{Trouble, is_lost, trouble};
use std::{error::Error, process::ExitCode};
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

    /// A part of a running node failed that it cannot go on without; a new start can help.
    pub fn part(why: impl std::fmt::Display) -> Self {
        Self {
            code: 5,
            message: format!("{why}; the node has ended, start it again"),
        }
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

    /// The node did not do it, and will not.
    pub fn refused(message: impl Into<String>) -> Self {
        Self {
            code: 4,
            message: message.into(),
        }
    }

    /// Nobody answers, or nobody who can be trusted.
    pub fn unreachable(server: &str, trouble: Option<Trouble>, error: &dyn Error) -> Self {
        let mut why = error;
        while let Some(source) = why.source() {
            why = source;
        }
        let message = match trouble {
            Some(trouble) => format!("no connection to {server} ({why}): {}", advice(trouble)),
            None => format!(
                "no node answers at {server} ({why}); start one with `hostel serve`, \
                 or name another with --server or HOSTEL_SERVER"
            ),
        };
        Self { code: 3, message }
    }

    /// There can be nobody at what was named.
    pub fn nowhere(error: impl std::fmt::Display) -> Self {
        Self {
            code: 3,
            message: error.to_string(),
        }
    }

    /// A submission failed. Where the node may have the task, it is named.
    pub fn of_task(id: &str, status: Status) -> Self {
        let mut failure = Self::from(status);
        if failure.code == 3 && !failure.message.contains(id) {
            let told = format!("; the task, if the node has it, is {id}");
            failure.message.push_str(&told);
        }
        failure
    }

    /// What is said about it.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            complain(&self.message);
        }
        ExitCode::from(self.code)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let trouble = trouble(&status);
        let code = match status.code() {
            _ if trouble.is_some() || is_lost(&status) => 3,
            Code::Unavailable => 3,
            Code::Internal | Code::Unknown => 1,
            _ => 4,
        };
        let mut message = format!("{} ({:?})", status.message(), status.code());
        if status.code() == Code::Unauthenticated {
            message
                .push_str(": give a token that the node knows with --token-file or HOSTEL_TOKEN");
        } else if let Some(trouble) = trouble {
            message.push_str(&format!(": {}", advice(trouble)));
        } else if is_lost(&status) {
            // With TLS 1.3 a node turns clients away only once they have begun to ask, and the
            // reason is often lost together with the connection.
            message.push_str(
                ": the connection was lost; if the node wants TLS, write https:// and name its CA \
                 with --ca-file, and if it wants a certificate of yours, give one that it trusts \
                 with --cert-file and --key-file",
            );
        }
        Self { code, message }
    }
}

/// What somebody at a command line can do about it.
fn advice(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Untrusted => {
            "the node's certificate is signed by nobody who is trusted here; name the CA that \
             signed it with --ca-file or HOSTEL_CA_FILE"
        }
        Trouble::Authority => {
            "the node shows a CA's certificate for its own; make one for the node that the CA signs, \
             or if it signs itself, one with basicConstraints=CA:FALSE"
        }
        Trouble::OtherName => {
            "the node's certificate is for another name; use an address that it names, or make one \
             that names this address (subjectAltName)"
        }
        Trouble::Expired => {
            "the node's certificate is not valid now; renew it, and look at both clocks"
        }
        Trouble::CertificateWanted => {
            "the node wants a certificate of yours; give one with --cert-file and --key-file, or \
             HOSTEL_CERT_FILE and HOSTEL_KEY_FILE"
        }
        Trouble::CertificateRefused => {
            "the node does not accept your certificate (--cert-file); give one that its \
             tls.client_ca_file has signed and that is valid now"
        }
        Trouble::NoTls => "what answers there does not speak TLS; if it is the node, write http://",
        Trouble::WantsTls => {
            "the node seems to want TLS: write https://, and name its CA with --ca-file"
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::node(error)
    }
}
