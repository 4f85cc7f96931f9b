//! The TLS configuration of the server, read from the files that `[tls]` names.

use super::{
    certificate_expiry::CertificateExpiry,
    reloadable::{FileError, ReloadSource},
};
use crate::{config, pem};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use tokio_rustls::rustls::{self, InconsistentKeys, ServerConfig, server::WebPkiClientVerifier};

/// HTTP/2, the only protocol of gRPC.
const ALPN: &[u8] = b"h2";

/// Why TLS cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Pem(#[from] pem::FileError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("tls.key_file: {} is not the key of the certificate in {}", .key.display(), .cert.display())]
    KeyMismatch { key: PathBuf, cert: PathBuf },
    #[error("tls.cert_file: {} with its key cannot be used: {problem}", .cert.display())]
    Pair {
        cert: PathBuf,
        problem: rustls::Error,
    },
}

/// The content of the files.
pub struct Certificates {
    pub config: Arc<ServerConfig>,
    expiry: CertificateExpiry,
}

impl ReloadSource for config::Tls {
    type Value = Certificates;
    type Error = Error;
    const WHAT: &str = "the certificates";

    fn files(&self) -> Vec<&Path> {
        let files = [&self.cert_file, &self.key_file];
        let files = files.into_iter().chain(&self.client_ca_file);
        files.map(PathBuf::as_path).collect()
    }

    fn check(value: &Certificates) {
        value.expiry.check(SystemTime::now());
    }

    fn read(&self) -> Result<Certificates, Error> {
        let (_, certificates) = pem::read("tls.cert_file", &self.cert_file, pem::certificates)?;
        let (_, key) = pem::read("tls.key_file", &self.key_file, pem::key)?;
        let builder = ServerConfig::builder_with_provider(pem::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| pair(self, error))?;
        let builder = match &self.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let setting = "tls.client_ca_file";
                let (_, roots) = pem::read(setting, file, pem::roots)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), pem::provider());
                let verifier = verifier
                    .build()
                    .map_err(|error| FileError::new(setting, file, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let expiry = CertificateExpiry::of("tls.cert_file", &self.cert_file, &certificates);
        let mut config = builder
            .with_single_cert(certificates, key)
            .map_err(|error| pair(self, error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Certificates {
            config: Arc::new(config),
            expiry,
        })
    }
}

fn pair(files: &config::Tls, error: rustls::Error) -> Error {
    let cert = files.cert_file.clone();
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Error::KeyMismatch {
            key: files.key_file.clone(),
            cert,
        },
        problem => Error::Pair { cert, problem },
    }
}
