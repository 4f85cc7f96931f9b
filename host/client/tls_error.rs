//! `TlsError`: why TLS between client and node failed. The errors that reach the client say little by
//! themselves; the cause is in their sources, and a person can act on it.

use std::{error::Error, io};
use tokio_rustls::rustls::{self, CertificateError};

/// A cause of failed TLS that a person can do something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsError {
    /// The node's certificate is signed by no authority that the client trusts.
    Untrusted,
    /// The node presents a CA certificate as its own, as is common for self-signed ones.
    CaCertificate,
    /// The node's certificate is for another name or address.
    WrongName,
    /// The node's certificate has expired or is not valid yet.
    Expired,
    /// The node requires a client certificate, and the client sent none.
    CertificateRequired,
    /// The node rejects the client's certificate.
    CertificateRejected,
    /// The server does not speak TLS.
    NotTls,
    /// The server appears to expect TLS, and the client did not use it.
    TlsRequired,
}

/// The meaning of a TLS alert from the node. After the handshake only its text arrives, within the
/// text of another error.
const ALERTS: [(&str, TlsError); 7] = [
    ("CertificateRequired", TlsError::CertificateRequired),
    ("UnknownCA", TlsError::CertificateRejected),
    ("BadCertificate", TlsError::CertificateRejected),
    ("UnsupportedCertificate", TlsError::CertificateRejected),
    ("CertificateExpired", TlsError::CertificateRejected),
    ("CertificateUnknown", TlsError::CertificateRejected),
    ("DecryptError", TlsError::CertificateRejected),
];

/// The name of webpki's error for a CA certificate that a server presents as its own.
const CA_AS_END_ENTITY: &str = "CaUsedAsEndEntity";

/// The HTTP/2 error for a TLS alert: its first bytes read as the length of an enormous frame.
const ALERT_AS_FRAME: &str = "frame with invalid size";

impl TlsError {
    /// Searches `error` and its sources.
    pub fn find_in(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref().and_then(of_rustls) {
                return Some(found);
            }
            // `source()` of an I/O error skips the error that it wraps.
            let inner = error.downcast_ref().and_then(io::Error::get_ref);
            if let Some(found) = inner.and_then(|inner| Self::find_in(inner)) {
                return Some(found);
            }
            let text = error.to_string();
            if let Some(found) = of_alert(&text) {
                return Some(found);
            }
            if text.contains(ALERT_AS_FRAME) {
                return Some(Self::TlsRequired);
            }
            next = error.source();
        }
        None
    }
}

fn of_rustls(error: &rustls::Error) -> Option<TlsError> {
    match error {
        rustls::Error::InvalidCertificate(problem) => Some(match problem {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsError::WrongName
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => TlsError::Expired,
            // rustls hides webpki's error type; only its name can be compared.
            CertificateError::Other(other) if format!("{other:?}").contains(CA_AS_END_ENTITY) => {
                TlsError::CaCertificate
            }
            _ => TlsError::Untrusted,
        }),
        rustls::Error::InvalidMessage(_) => Some(TlsError::NotTls),
        _ => None,
    }
}

fn of_alert(text: &str) -> Option<TlsError> {
    let (_, alert) = text.split_once("received fatal alert: ")?;
    let known = ALERTS.iter().find(|(name, _)| alert.starts_with(name));
    known.map(|(_, error)| *error)
}
