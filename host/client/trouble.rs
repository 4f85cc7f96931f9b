//! What went wrong between the two ends of TLS, found in an error's sources: the errors that arrive
//! say little, and what to do is a person's matter to be told.

use std::{error::Error, io};
use tokio_rustls::rustls::{self, CertificateError};

/// What a person can do something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The node's certificate is signed by nobody whom the client trusts.
    Untrusted,
    /// The node shows the certificate of a CA for its own, as one that signed itself often is.
    Authority,
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
    /// What answers seems to speak TLS, and was not asked to.
    WantsTls,
}

/// What an alert of the other end says. Beyond the handshake only its text arrives, in the middle of
/// others.
const ALERTS: [(&str, Trouble); 7] = [
    ("CertificateRequired", Trouble::CertificateWanted),
    ("UnknownCA", Trouble::CertificateRefused),
    ("BadCertificate", Trouble::CertificateRefused),
    ("UnsupportedCertificate", Trouble::CertificateRefused),
    ("CertificateExpired", Trouble::CertificateRefused),
    ("CertificateUnknown", Trouble::CertificateRefused),
    ("DecryptError", Trouble::CertificateRefused),
];

/// In webpki's words.
const CA_ITSELF: &str = "CaUsedAsEndEntity";

/// What HTTP/2 makes of TLS telling that it does not understand: the first bytes of an alert would be
/// the length of an enormous frame.
const ALERT_AS_FRAME: &str = "frame with invalid size";

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
        let text = error.to_string();
        if let Some(trouble) = of_alert(&text) {
            return Some(trouble);
        }
        if text.contains(ALERT_AS_FRAME) {
            return Some(Trouble::WantsTls);
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
            // Another crate's error, whose name alone gets here.
            CertificateError::Other(other) if format!("{other:?}").contains(CA_ITSELF) => {
                Trouble::Authority
            }
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
