//! The options of a connection: trusted authorities, the client's certificate and its token. They are checked
//! before anything is sent.

use super::tls_error::TlsError;
use crate::{pem, secret::Secret};
use std::{net::IpAddr, path::PathBuf, time::Duration};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri},
};

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is invalid.
    #[error(
        "{given:?} is not the address of a node; http://HOST:PORT or https://HOST:PORT expected"
    )]
    Address {
        /// The address as given.
        given: String,
    },
    /// A file of the options cannot be used.
    #[error("the {what} {} {problem}", .file.display())]
    File {
        /// The purpose of the file.
        what: &'static str,
        /// Its path.
        file: PathBuf,
        /// Why it cannot be used.
        problem: pem::Error,
    },
    /// A PEM text of the options cannot be used.
    #[error("the {what} {problem}")]
    Pem {
        /// The purpose of the text.
        what: &'static str,
        /// Why it cannot be used.
        problem: pem::Error,
    },
    /// The key does not belong to the certificate.
    #[error("the client's key{} is not the key of the client's certificate{}", of(.key), of(.cert))]
    KeyMismatch {
        /// The file of the key, if it is in one.
        key: Option<PathBuf>,
        /// The file of the certificate, if it is in one.
        cert: Option<PathBuf>,
    },
    /// The token cannot be used.
    #[error("the token {0}")]
    Token(&'static str),
    /// The token would be sent over an unencrypted network connection.
    #[error("{address} is not encrypted, so the token could be read on the network; use https://")]
    PlainToken {
        /// The address of the node.
        address: String,
    },
    /// There are TLS options, but the address is http.
    #[error("{address} is http, but certificates need TLS; use https://")]
    PlainCertificate {
        /// The address of the node.
        address: String,
    },
    /// TLS cannot be set up with these options.
    #[error("TLS to {address} cannot be set up: {problem}")]
    Tls {
        /// The address of the node.
        address: String,
        /// Why it cannot be set up.
        problem: tonic::transport::Error,
    },
    /// No connection could be made.
    #[error("no node answers at {address}")]
    Unreachable {
        /// The address of the node.
        address: String,
        /// The cause, if TLS is.
        tls: Option<TlsError>,
        /// The error of the transport.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Options of a connection. A node on the same machine needs none.
///
/// ```no_run
/// # async fn example() -> anyhow::Result<()> {
/// use hostel::{ClientOptions, DistributedClient};
///
/// let options = ClientOptions::new()
///     .ca_file("ca.pem")
///     .token_file("token");
/// let client = DistributedClient::connect_with("https://node-1:50051", options).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    ca: Option<Pem>,
    identity: Option<(Pem, Pem)>,
    token: Option<Token>,
    domain: Option<String>,
}

#[derive(Debug, Clone)]
enum Pem {
    File(PathBuf),
    Text(Secret),
}

#[derive(Debug, Clone)]
enum Token {
    File(PathBuf),
    Text(Secret),
}

impl ClientOptions {
    /// No options.
    pub fn new() -> Self {
        Self::default()
    }

    /// A file with the authorities that may sign the node's certificate (PEM). The default is those that this
    /// machine trusts.
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(Pem::File(file.into()));
        self
    }

    /// The authorities that may sign the node's certificate (PEM).
    pub fn ca_pem(mut self, text: impl Into<String>) -> Self {
        self.ca = Some(Pem::Text(Secret::new(text)));
        self
    }

    /// Files with the client's certificate and its key (PEM), for nodes that require one.
    pub fn identity_files(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((Pem::File(cert.into()), Pem::File(key.into())));
        self
    }

    /// The client's certificate and its key (PEM).
    pub fn identity_pem(mut self, cert: impl Into<String>, key: impl Into<String>) -> Self {
        let [cert, key] = [Secret::new(cert), Secret::new(key)].map(Pem::Text);
        self.identity = Some((cert, key));
        self
    }

    /// The token to send with every call. It is sent only over TLS or to this machine.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Token::Text(Secret::new(token)));
        self
    }

    /// A file with the token and nothing else. It is read once, when the client connects.
    pub fn token_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.token = Some(Token::File(file.into()));
        self
    }

    /// The name in the node's certificate. The default is the host of the address.
    pub fn domain_name(mut self, name: impl Into<String>) -> Self {
        self.domain = Some(name.into());
        self
    }

    /// Whether an option requires TLS.
    fn wants_tls(&self) -> bool {
        self.ca.is_some() || self.identity.is_some() || self.domain.is_some()
    }

    /// Reads the files and checks that the options are consistent.
    pub(super) fn resolve(&self, given: &str) -> Result<(Endpoint, Bearer), Error> {
        let address = if given.contains("://") {
            given.to_owned()
        } else if self.wants_tls() {
            format!("https://{given}")
        } else {
            format!("http://{given}")
        };
        let wrong = || Error::Address {
            given: given.to_owned(),
        };
        let uri: Uri = address.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?;
        let encrypted = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        if !encrypted && self.wants_tls() {
            return Err(Error::PlainCertificate { address });
        }
        if !encrypted && self.token.is_some() && !is_loopback(host) {
            return Err(Error::PlainToken { address });
        }
        let mut endpoint = Endpoint::from(uri)
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        if encrypted {
            endpoint = endpoint
                .tls_config(self.tls()?)
                .map_err(|problem| Error::Tls { address, problem })?;
        }
        Ok((endpoint, self.bearer()?))
    }

    /// Tonic ignores invalid PEM, so it is parsed here first.
    fn tls(&self) -> Result<ClientTlsConfig, Error> {
        let mut tls = ClientTlsConfig::new().timeout(Duration::from_secs(10));
        tls = match &self.ca {
            None => tls.with_native_roots(),
            Some(ca) => {
                tls.ca_certificate(Certificate::from_pem(ca.checked("CA file", pem::roots)?))
            }
        };
        if let Some((cert, key)) = &self.identity {
            tls = tls.identity(pair(cert, key)?);
        }
        Ok(match &self.domain {
            Some(name) => tls.domain_name(name),
            None => tls,
        })
    }

    fn bearer(&self) -> Result<Bearer, Error> {
        let text = match &self.token {
            None => return Ok(Bearer(None)),
            Some(Token::Text(text)) => text.clone(),
            Some(Token::File(file)) => {
                Secret::new(std::fs::read_to_string(file).map_err(|error| Error::File {
                    what: "token file",
                    file: file.clone(),
                    problem: error.into(),
                })?)
            }
        };
        let token = text.reveal().trim();
        // No error contains the token.
        if token.is_empty() {
            return Err(Error::Token("is empty"));
        }
        if !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Error::Token(
                "has spaces, line breaks or other characters that cannot be part of one",
            ));
        }
        let value = format!("Bearer {token}").parse();
        let mut value: MetadataValue<Ascii> =
            value.map_err(|_| Error::Token("cannot be sent as metadata"))?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }
}

/// A certificate with its key.
fn pair(cert: &Pem, key: &Pem) -> Result<Identity, Error> {
    const WHAT: &str = "client's certificate";
    let text = cert.checked(WHAT, pem::certificates)?;
    let key_text = key.checked("client's key", pem::key)?;
    match pem::is_pair(&text, &key_text) {
        Ok(true) => Ok(Identity::from_pem(text, key_text)),
        Ok(false) => Err(Error::KeyMismatch {
            key: key.file().cloned(),
            cert: cert.file().cloned(),
        }),
        Err(problem) => Err(cert.unusable(WHAT, problem)),
    }
}

/// The path of a file with a space before it, if there is a file.
fn of(file: &Option<PathBuf>) -> String {
    let file = file.as_ref();
    file.map_or_else(String::new, |file| format!(" {}", file.display()))
}

impl Pem {
    fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File(file) => Some(file),
            Self::Text(_) => None,
        }
    }

    fn unusable(&self, what: &'static str, problem: pem::Error) -> Error {
        match self.file().cloned() {
            Some(file) => Error::File {
                what,
                file,
                problem,
            },
            None => Error::Pem { what, problem },
        }
    }

    fn checked<T>(
        &self,
        what: &'static str,
        parse: impl FnOnce(&[u8]) -> Result<T, pem::Error>,
    ) -> Result<Vec<u8>, Error> {
        let checked = match self {
            Self::Text(text) => {
                let text = text.reveal().as_bytes();
                parse(text).map(|_| text.to_vec())
            }
            Self::File(file) => match pem::read(what, file, parse) {
                Ok((text, _)) => Ok(text),
                Err(error) => Err(error.problem),
            },
        };
        checked.map_err(|problem| self.unusable(what, problem))
    }
}

impl Error {
    pub(super) fn unreachable(address: &str, source: tonic::transport::Error) -> Self {
        Self::Unreachable {
            address: address.to_owned(),
            tls: TlsError::find_in(&source),
            source,
        }
    }
}

/// The connection that all services share, with the token that is sent with every call.
pub(super) type AuthChannel = InterceptedService<Channel, Bearer>;

/// Adds the token to every call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// Whether `host` is this machine.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address: Result<IpAddr, _> = bare.parse();
    match address {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(address: &str, options: &ClientOptions) -> String {
        let resolved = options.resolve(address);
        resolved.err().expect(address).to_string()
    }

    #[test]
    fn a_token_is_sent_over_tls_or_to_this_machine_only() {
        let options = ClientOptions::new().token("hostel_secret");
        for own in [
            "http://127.0.0.1:1",
            "localhost:1",
            "[::1]:1",
            "127.8.0.1:1",
        ] {
            options.resolve(own).unwrap();
        }
        for open in [
            "http://10.0.0.1:1",
            "node-1:1",
            "http://localhost.example:1",
            "[2001:db8::1]:1",
        ] {
            let error = error(open, &options);
            assert!(
                error.contains("is not encrypted") && !error.contains("secret"),
                "{error}"
            );
        }
        assert!(!format!("{options:?}").contains("secret"));
        // Without a token, plain HTTP is allowed.
        ClientOptions::new().resolve("http://10.0.0.1:1").unwrap();
    }

    #[test]
    fn errors_name_the_file_and_the_problem() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("empty");
        std::fs::write(&file, "\n").unwrap();
        let new = ClientOptions::new;
        for (address, options, expected) in [
            ("a b", new(), "\"a b\" is not the address"),
            ("ftp://a:1", new(), "is not the address"),
            (
                "a:1",
                new().ca_file("/no/such"),
                "the CA file /no/such cannot be read",
            ),
            ("a:1", new().ca_file(&file), "holds no certificate"),
            ("a:1", new().ca_pem("x"), "the CA file holds no certificate"),
            ("http://a:1", new().ca_file(&file), "certificates need TLS"),
            (
                "127.0.0.1:1",
                new().token_file("/no/such"),
                "the token file /no/such cannot",
            ),
            ("127.0.0.1:1", new().token_file(&file), "the token is empty"),
            (
                "127.0.0.1:1",
                new().token("hostel_a b"),
                "the token has spaces",
            ),
        ] {
            let error = error(address, &options);
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(!error.contains("hostel_a"), "{error}");
        }
    }
}
