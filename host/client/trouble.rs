//! What went wrong between the two ends of TLS, found in an error's sources: the errors that arrive
//! say little, and what to do is a person's matter to be told.

use std::{error::Error, io};
use tokio_rustls::rustls::{self, CertificateError};

/// What a person can do something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The node's certificate is signed by nobody whom the client trusts.
    Untrusted,
    /// The node's certificate is for another name or address.
    OtherName,
    /// The node's certificate is not valid now.
    Expired,
    /// The node wants a certificate of the client, and got none.
    CertificateWanted,
    /// The node does not accept the client's certificate.
    CertificateRefused,
    /// What answers does not speak TLS.
    NoTls,
}

/// What an alert of the other end says. Beyond the handshake only its text arrives, in the middle of
/// others.
const ALERTS: [(&str, Trouble); 6] = [
    ("CertificateRequired", Trouble::CertificateWanted),
    ("UnknownCA", Trouble::CertificateRefused),
    ("BadCertificate", Trouble::CertificateRefused),
    ("CertificateExpired", Trouble::CertificateRefused),
    ("CertificateUnknown", Trouble::CertificateRefused),
    ("DecryptError", Trouble::CertificateRefused),
];

/// Looks through `error` and its sources.
pub fn trouble(error: &(dyn Error + 'static)) -> Option<Trouble> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(trouble) = error.downcast_ref().and_then(of_tls) {
            return Some(trouble);
        }
        // The error in an I/O error is not its source, but its source's source is.
        let inner = error.downcast_ref().and_then(io::Error::get_ref);
        if let Some(trouble) = inner.and_then(|inner| trouble(inner)) {
            return Some(trouble);
        }
        if let Some(trouble) = of_alert(&error.to_string()) {
            return Some(trouble);
        }
        next = error.source();
    }
    None
}

fn of_tls(error: &rustls::Error) -> Option<Trouble> {
    match error {
        rustls::Error::InvalidCertificate(problem) => Some(match problem {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Trouble::OtherName
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Trouble::Expired,
            _ => Trouble::Untrusted,
        }),
        rustls::Error::InvalidMessage(_) => Some(Trouble::NoTls),
        _ => None,
    }
}

fn of_alert(text: &str) -> Option<Trouble> {
    let (_, alert) = text.split_once("received fatal alert: ")?;
    let known = ALERTS.iter().find(|(name, _)| alert.starts_with(name));
    known.map(|(_, trouble)| *trouble)
}
