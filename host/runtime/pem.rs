//! Reads certificates and keys from PEM, and chooses the cryptography of clients and servers.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use tokio_rustls::rustls::{
    self, InconsistentKeys, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};
use x509_cert::der::Decode;

/// Why a file cannot be used; completes a sentence that begins with the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// There is no certificate.
    #[error("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// There is no unencrypted key.
    #[error(
        "holds no key in PEM that can be read without a passphrase (-----BEGIN PRIVATE KEY-----)"
    )]
    NoKey,
    /// The PEM is invalid.
    #[error("is not valid PEM: {0}")]
    Malformed(pem::Error),
    /// A certificate is invalid.
    #[error("holds an invalid certificate: {0}")]
    Certificate(rustls::Error),
}

/// Why the file that a setting names cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {} {problem}", .file.display())]
pub struct FileError {
    /// The setting, or the purpose of the file.
    pub setting: String,
    /// The path of the file.
    pub file: PathBuf,
    /// Why it cannot be used.
    pub problem: Error,
}

/// Reads the file that a setting names, and returns its text and what `parse` makes of it. Libraries that
/// take the text ignore what they cannot parse, so that a wrong file would show only as a failed connection.
pub fn read<T>(
    setting: impl Into<String>,
    file: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, Error>,
) -> Result<(Vec<u8>, T), FileError> {
    let text = fs::read(file).map_err(Error::from);
    let parsed = text.and_then(|text| parse(&text).map(|parsed| (text, parsed)));
    parsed.map_err(|problem| FileError {
        setting: setting.into(),
        file: file.to_owned(),
        problem,
    })
}

/// All certificates in `text`, at least one, in their order.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let all = all.map_err(Error::Malformed)?;
    if all.is_empty() {
        return Err(Error::NoCertificate);
    }
    Ok(all)
}

/// The first private key in `text`.
pub fn key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => Error::NoKey,
        error => Error::Malformed(error),
    })
}

/// The certificates in `text` as trusted authorities.
pub fn roots(text: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text)? {
        roots.add(certificate).map_err(Error::Certificate)?;
    }
    Ok(roots)
}

/// Whether the key in `key` belongs to the first certificate in `cert`. Fails if either is missing.
pub fn is_pair(cert: &[u8], key: &[u8]) -> Result<bool, Error> {
    let (certificates, key) = (certificates(cert)?, self::key(key)?);
    match CertifiedKey::from_der(certificates, key, &provider()) {
        Ok(_) => Ok(true),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Ok(false),
        Err(error) => Err(Error::Certificate(error)),
    }
}

/// Checks that the client certificate and the key of a configuration section belong together. The error
/// names the setting that is wrong.
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

/// When the certificate expires; `None` if that cannot be read.
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    Some(validity.not_after.to_system_time())
}

/// The cryptography to use. Not the process's default, which an embedding program may have replaced.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_what_the_text_lacks() {
        for (text, expected) in [
            ("", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nMIIB", "not valid PEM"),
            (
                "-----BEGIN CERTIFICATE-----\n?!\n-----END CERTIFICATE-----",
                "not valid PEM",
            ),
        ] {
            let error = certificates(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----";
        let error = key(encrypted.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("without a passphrase"), "{error}");
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
        let error = roots(nonsense.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("invalid certificate"), "{error}");
    }

    #[test]
    fn the_error_of_a_file_names_its_setting_and_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let error = || {
            let read = read("tls.client_ca_file", &file, roots);
            read.map(drop).unwrap_err().to_string()
        };
        let begins = format!("tls.client_ca_file: {} ", file.display());
        assert!(error().starts_with(&format!("{begins}cannot be read: ")));
        fs::write(&file, "no certificate").unwrap();
        assert!(error().starts_with(&format!("{begins}holds no certificate")));
    }
}
