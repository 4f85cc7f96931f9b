//! How a command fails: the message, and the exit code that scripts see.

use super::output::print_error;
use crate::client::{TlsError, is_connection_lost};
use std::{error::Error, fmt::Display, process::ExitCode};
use tonic::{Code, Status};

/// The error of a command. The exit codes are part of the interface.
#[derive(Debug)]
pub struct CliError {
    code: u8,
    message: String,
}

impl CliError {
    fn new(code: u8, message: impl Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }

    /// The task failed, a check found errors, or the command itself could not do its work.
    pub fn failed(message: impl Display) -> Self {
        Self::new(1, message)
    }

    /// The arguments or the configuration are invalid.
    pub fn usage(error: impl Display) -> Self {
        Self::new(2, error)
    }

    /// No connection to the node is possible under the given address.
    pub fn bad_address(error: impl Display) -> Self {
        Self::new(3, error)
    }

    /// The node did not do what was requested, and would not if it were requested again.
    pub fn refused(message: impl Display) -> Self {
        Self::new(4, message)
    }

    /// A running node ended because a vital part of it failed; a restart can help.
    pub fn node_ended(reason: impl Display) -> Self {
        Self::new(5, format!("{reason}; the node has ended, start it again"))
    }

    /// No node answers, or none whose certificate is trusted.
    pub fn unreachable(address: &str, tls: Option<TlsError>, error: &dyn Error) -> Self {
        let mut cause = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let message = match tls {
            Some(tls) => format!("no connection to {address} ({cause}): {}", advice(tls)),
            None => format!(
                "no node answers at {address} ({cause}); start one with `hostel serve`, \
                 or name another with --server or HOSTEL_SERVER"
            ),
        };
        Self::new(3, message)
    }

    /// The submission of the task `id` failed. The message names the task if the node may have stored
    /// it.
    pub fn submission(id: &str, status: Status) -> Self {
        let mut error = Self::from(status);
        if error.code != 4 && !error.message.contains(id) {
            error.message += &format!("; the node may have stored the task as {id}");
        }
        error
    }

    /// The same error with more text at its end.
    pub fn with(mut self, text: &str) -> Self {
        self.message += text;
        self
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// Prints the message and returns the exit code.
    pub fn report(self) -> ExitCode {
        print_error(&self.message);
        ExitCode::from(self.code)
    }
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        let tls = TlsError::find_in(&status);
        let code = match status.code() {
            _ if tls.is_some() || is_connection_lost(&status) => 3,
            // Whether the node did what was requested is not known.
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => 3,
            Code::Internal | Code::Unknown => 1,
            _ => 4,
        };
        let mut message = format!("{} ({:?})", status.message(), status.code());
        if status.code() == Code::Unauthenticated {
            message += ": give a token that the node accepts with --token-file or HOSTEL_TOKEN";
        } else if let Some(tls) = tls {
            message += &format!(": {}", advice(tls));
        } else if is_connection_lost(&status) {
            // With TLS 1.3 a node refuses a client only after the client's first request, and the
            // reason is often lost together with the connection.
            message += ": the connection was lost; if the node uses TLS, write https:// and name its CA \
                 with --ca-file, and if it asks for a client certificate, give one that it trusts \
                 with --cert-file and --key-file";
        }
        Self::new(code, message)
    }
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}

/// What a user of the command line can do about a TLS error.
fn advice(tls: TlsError) -> &'static str {
    match tls {
        TlsError::Untrusted => {
            "the node's certificate is not signed by a trusted CA; name the CA that signed it with \
             --ca-file or HOSTEL_CA_FILE"
        }
        TlsError::CaCertificate => {
            "the node uses a CA's certificate as its own; make one for the node that the CA signs, \
             or if it is self-signed, one with basicConstraints=CA:FALSE"
        }
        TlsError::WrongName => {
            "the node's certificate is for another name; use an address that it names, or make one \
             that names this address (subjectAltName)"
        }
        TlsError::Expired => {
            "the node's certificate is not valid at this time; renew it, and check both clocks"
        }
        TlsError::CertificateRequired => {
            "the node asks for a client certificate; give one with --cert-file and --key-file, or \
             HOSTEL_CERT_FILE and HOSTEL_KEY_FILE"
        }
        TlsError::CertificateRejected => {
            "the node does not accept your certificate (--cert-file); give one that its \
             tls.client_ca_file has signed and that is valid at this time"
        }
        TlsError::NotTls => "the server does not use TLS; if it is the node, write http://",
        TlsError::TlsRequired => {
            "the node seems to use TLS: write https://, and name its CA with --ca-file"
        }
    }
}
