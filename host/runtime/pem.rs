//! Certificates and keys out of PEM, and the cryptography that both ends of TLS use. Opens no files
//! and no connections.

use std::{sync::Arc, time::SystemTime};
use tokio_rustls::rustls::{
    self, InconsistentKeys, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};
use x509_cert::der::Decode;

/// What a file was found to be instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    #[error(
        "holds no key in PEM that can be read without a passphrase (-----BEGIN PRIVATE KEY-----)"
    )]
    NoKey,
    #[error("is not the PEM that it seems to be: {0}")]
    Malformed(pem::Error),
    #[error("holds something that is no certificate: {0}")]
    Certificate(tokio_rustls::rustls::Error),
}

/// All certificates, in their order; at least one.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let all = all.map_err(Error::Malformed)?;
    match all.is_empty() {
        true => Err(Error::NoCertificate),
        false => Ok(all),
    }
}

/// The first private key.
pub fn key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => Error::NoKey,
        error => Error::Malformed(error),
    })
}

/// Those who are trusted to sign certificates.
pub fn roots(text: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text)? {
        roots.add(certificate).map_err(Error::Certificate)?;
    }
    Ok(roots)
}

/// Whether the key in `key` is that of the first certificate in `cert`. Fails where either holds none.
pub fn is_pair(cert: &[u8], key: &[u8]) -> Result<bool, Error> {
    let (certificates, key) = (certificates(cert)?, self::key(key)?);
    match CertifiedKey::from_der(certificates, key, &provider()) {
        Ok(_) => Ok(true),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Ok(false),
        Err(error) => Err(Error::Certificate(error)),
    }
}

/// Whether `section`'s certificate and key, which a node shows to a server, belong together; if not, what
/// is wrong with which setting.
pub fn check_pair(section: &str, cert: &[u8], key: &[u8]) -> Result<(), String> {
    match is_pair(cert, key) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!(
            "the key that {section}.key_file names is not the key of the certificate that \
             {section}.cert_file names"
        )),
        Err(error @ Error::NoKey) => Err(format!("the file that {section}.key_file names {error}")),
        Err(error) => Err(format!("the file that {section}.cert_file names {error}")),
    }
}

/// When the certificate ends; `None` where that cannot be read, since others have to say so.
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    Some(validity.not_after.to_system_time())
}

/// Named, never the process's default: what an embedding program installs must not decide here.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pem_is_told() {
        for (text, told) in [
            ("", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nMIIB", "not the PEM"),
            (
                "-----BEGIN CERTIFICATE-----\n?!\n-----END CERTIFICATE-----",
                "not the PEM",
            ),
        ] {
            let error = certificates(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----";
        let error = key(encrypted.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("without a passphrase"), "{error}");
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
        let error = roots(nonsense.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("no certificate"), "{error}");
    }
}
