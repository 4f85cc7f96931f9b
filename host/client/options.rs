//! How a client reaches a node: whom it trusts, who it is, and what token it shows. Makes the
//! endpoint that connects; sends nothing itself.

use super::trouble::{Trouble, trouble};
use crate::{config::Secret, pem};
use std::{net::IpAddr, path::PathBuf, time::Duration};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Uri},
};

/// Why there is no connection. Nothing was sent to anybody.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{given:?} is no address of a node; http://HOST:PORT or https://HOST:PORT expected")]
    Address { given: String },
    #[error("the {what} {} {problem}", .file.display())]
    File {
        what: &'static str,
        file: PathBuf,
        problem: pem::Error,
    },
    #[error("the {what} {problem}")]
    Pem {
        what: &'static str,
        problem: pem::Error,
    },
    #[error("the client's key{} is not the key of the client's certificate{}", of(.key), of(.cert))]
    OtherKey {
        key: Option<PathBuf>,
        cert: Option<PathBuf>,
    },
    #[error("the token {0}")]
    Token(&'static str),
    #[error(
        "{address} is not encrypted, and whoever listens on the way would learn the token: \
         write https:// there"
    )]
    PlainToken { address: String },
    #[error("{address} is http, where certificates have no use: write https:// there")]
    PlainCertificate { address: String },
    #[error("TLS to {address} cannot be set up: {problem}")]
    Tls {
        address: String,
        problem: tonic::transport::Error,
    },
    #[error("nobody answers at {address}")]
    Unreachable {
        address: String,
        trouble: Option<Trouble>,
        #[source]
        source: tonic::transport::Error,
    },
}

/// Options of a connection. None are needed to reach a node on this machine.
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
    pub fn new() -> Self {
        Self::default()
    }

    /// Who signs the node's certificate (PEM). Without one: whom this machine trusts.
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(Pem::File(file.into()));
        self
    }

    /// The same as text.
    pub fn ca_pem(mut self, text: impl Into<String>) -> Self {
        self.ca = Some(Pem::Text(Secret::new(text)));
        self
    }

    /// The client's own certificate and its key (PEM), for nodes that ask for one.
    pub fn identity_files(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((Pem::File(cert.into()), Pem::File(key.into())));
        self
    }

    /// The same as text.
    pub fn identity_pem(mut self, cert: impl Into<String>, key: impl Into<String>) -> Self {
        let [cert, key] = [Secret::new(cert), Secret::new(key)].map(Pem::Text);
        self.identity = Some((cert, key));
        self
    }

    /// The token to show with every call. It is sent over TLS or within this machine only.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Token::Text(Secret::new(token)));
        self
    }

    /// A file that holds the token and nothing else. Read once, when the client connects.
    pub fn token_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.token = Some(Token::File(file.into()));
        self
    }

    /// The name that the node's certificate has to be for. Without one: the address's host.
    pub fn domain_name(mut self, name: impl Into<String>) -> Self {
        self.domain = Some(name.into());
        self
    }

    /// Whether something is said that only TLS has a use for.
    fn wants_tls(&self) -> bool {
        self.ca.is_some() || self.identity.is_some() || self.domain.is_some()
    }

    /// Reads the files and checks that all of it fits together.
    pub(super) fn resolve(&self, given: &str) -> Result<(Endpoint, Bearer), Error> {
        let address = match given.contains("://") {
            true => given.to_owned(),
            false if self.wants_tls() => format!("https://{given}"),
            false => format!("http://{given}"),
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

    /// Tonic takes PEM as text and passes over what it cannot read, so it is read here first.
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
        // Never shown, whatever is wrong with it.
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

/// A certificate with its own key.
fn pair(cert: &Pem, key: &Pem) -> Result<Identity, Error> {
    const WHAT: &str = "client's certificate";
    let text = cert.checked(WHAT, pem::certificates)?;
    let key_text = key.checked("client's key", pem::key)?;
    match pem::is_pair(&text, &key_text) {
        Ok(true) => Ok(Identity::from_pem(text, key_text)),
        Ok(false) => Err(Error::OtherKey {
            key: key.file().cloned(),
            cert: cert.file().cloned(),
        }),
        Err(problem) => Err(cert.unusable(WHAT, problem)),
    }
}

/// The file, where there is one.
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
        let text = match self {
            Self::Text(text) => Ok(text.reveal().as_bytes().to_vec()),
            Self::File(file) => std::fs::read(file).map_err(pem::Error::from),
        };
        let parsed = text.and_then(|text| parse(&text).map(|_| text));
        parsed.map_err(|problem| self.unusable(what, problem))
    }
}

impl Error {
    pub(super) fn unreachable(address: &str, source: tonic::transport::Error) -> Self {
        Self::Unreachable {
            address: address.to_owned(),
            trouble: trouble(&source),
            source,
        }
    }
}

/// Puts the token into every call.
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

/// Whether what is sent there stays within this machine.
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

    fn told(address: &str, options: &ClientOptions) -> String {
        let resolved = options.resolve(address);
        resolved.err().expect(address).to_string()
    }

    #[test]
    fn a_token_goes_over_tls_or_stays_on_this_machine() {
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
            let told = told(open, &options);
            assert!(
                told.contains("is not encrypted") && !told.contains("secret"),
                "{told}"
            );
        }
        assert!(!format!("{options:?}").contains("secret"));
        // Without a token there is nothing to learn.
        ClientOptions::new().resolve("http://10.0.0.1:1").unwrap();
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("empty");
        std::fs::write(&file, "\n").unwrap();
        let new = ClientOptions::new;
        for (address, options, expected) in [
            ("a b", new(), "\"a b\" is no address"),
            ("ftp://a:1", new(), "is no address"),
            (
                "a:1",
                new().ca_file("/no/such"),
                "the CA file /no/such cannot be read",
            ),
            ("a:1", new().ca_file(&file), "holds no certificate"),
            ("a:1", new().ca_pem("x"), "the CA file holds no certificate"),
            (
                "http://a:1",
                new().ca_file(&file),
                "certificates have no use",
            ),
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
            let told = told(address, &options);
            assert!(told.contains(expected), "{expected}: {told}");
            assert!(!told.contains("hostel_a"), "{told}");
        }
    }
}
