//! Connections to etcd, their time limits, and what its errors mean to an operator.

use crate::error::Error;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use hostel_backoff::Backoff;
use hostel_runtime::pem;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// How long connecting, or the answer to a request, may take.
pub(super) const ANSWER: Duration = Duration::from_secs(3);
/// How often an HTTP/2 ping checks a connection with open requests, and how long its answer may take.
/// etcd ends a connection that pings more often than every 5 s, or without an open request.
const KEEP_ALIVE: Duration = Duration::from_millis(5500);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_millis(2500);
/// A connection idle for this long is not used again: its loss may have gone unnoticed.
const IDLE: Duration = Duration::from_secs(5);
/// The delay before reconnecting, at first and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A connection that is kept for further requests.
#[derive(Clone)]
pub(super) struct CachedClient {
    pub client: Client,
    pub last_used: Instant,
}

/// An etcd of one or several servers.
pub(super) struct Server {
    endpoints: Vec<String>,
    options: ConnectOptions,
    is_tls: bool,
}

impl Server {
    /// Reads the files that the settings name. Connects to nothing.
    pub fn new(settings: &hostel_config::Etcd) -> Result<Self, Error> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(ANSWER)
            .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE_ANSWER)
            .with_keep_alive_while_idle(false)
            // A server without contact to the others then fails requests and does not serve old data.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
            options = options.with_user(user, password.reveal());
        }
        let tls = tls(settings)?;
        let is_tls = tls.is_some();
        if let Some(tls) = tls {
            options = options.with_tls(tls);
        }
        let endpoints = settings.endpoints.clone();
        Ok(Self {
            endpoints,
            options,
            is_tls,
        })
    }

    /// Returns `cached` unless it was idle for too long, and else a new connection.
    pub async fn reuse_or_connect(&self, cached: Option<CachedClient>) -> Result<Client, Error> {
        match cached.filter(|cached| cached.last_used.elapsed() < IDLE) {
            Some(cached) => Ok(cached.client),
            None => self.connect().await,
        }
    }

    pub async fn connect(&self) -> Result<Client, Error> {
        let client = Client::connect(&self.endpoints, Some(self.options.clone()));
        self.within(client).await
    }

    /// Waits for an answer, up to the time limit.
    pub async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(answer) => answer.map_err(|error| self.explain(&error)),
            Err(_) => Err(self.no_answer()),
        }
    }

    /// The error of a request without an answer in time.
    pub fn no_answer(&self) -> Error {
        let (seconds, endpoints) = (ANSWER.as_secs(), self.endpoints.join(", "));
        Error::Unavailable(format!(
            "etcd at {endpoints} does not answer within {seconds} s (discovery.endpoints)"
        ))
    }

    /// Turns an error of etcd into one that says what to check.
    pub fn explain(&self, error: &etcd_client::Error) -> Error {
        let text = error.to_string();
        let has = |words: &[&str]| words.iter().any(|words| text.contains(words));
        let hint = if has(&[
            "authentication failed",
            "permission denied",
            "user name is empty",
        ]) {
            "; check discovery.user and discovery.password, and that the user's role may read and \
             write the keys under discovery.prefix"
        } else if has(&["certificate", "Certificate"]) {
            "; check discovery.ca_file, which has to have signed etcd's certificate, and \
             discovery.cert_file and key_file where etcd asks for one"
        } else if self.is_tls && has(&["transport::Error"]) && !has(&["ConnectError"]) {
            // With TLS 1.3 a server refuses a client's certificate only after the handshake, and the
            // reason is often lost with the connection.
            "; the connection was lost: where etcd asks for a certificate, check \
             discovery.cert_file and key_file"
        } else {
            ""
        };
        Error::Unavailable(format!("etcd: {text}{hint}"))
    }
}

/// Returns the TLS options, or `None` if all endpoints are http.
fn tls(settings: &hostel_config::Etcd) -> Result<Option<TlsOptions>, Error> {
    let https = |endpoint: &String| endpoint.starts_with("https://");
    let given = [&settings.ca_file, &settings.cert_file, &settings.key_file];
    if !settings.endpoints.iter().any(https) {
        if given.iter().any(|file| file.is_some()) {
            return Err(Error::Misconfigured(
                "discovery names certificates, but discovery.endpoints are http; write https:// there"
                    .into(),
            ));
        }
        return Ok(None);
    }
    let mut tls = TlsOptions::new();
    tls = match &settings.ca_file {
        Some(file) => tls.ca_certificate(Certificate::from_pem(read("ca_file", file, pem::roots)?)),
        None => tls.with_enabled_roots(),
    };
    if let (Some(cert), Some(key)) = (&settings.cert_file, &settings.key_file) {
        let cert = read("cert_file", cert, pem::certificates)?;
        let key = read("key_file", key, pem::key)?;
        pem::check_pair("discovery", &cert, &key).map_err(Error::Misconfigured)?;
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    Ok(Some(tls))
}

fn read<T>(
    key: &str,
    file: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, pem::Error>,
) -> Result<Vec<u8>, Error> {
    match pem::read(format!("discovery.{key}"), file, parse) {
        Ok((text, _)) => Ok(text),
        Err(error) => Err(Error::Misconfigured(error.to_string())),
    }
}

/// The delays between attempts to connect.
pub(super) fn backoff() -> Backoff {
    Backoff::new(RECONNECT.0, RECONNECT.1)
}

/// Converts a time to live to whole seconds, as leases have them, rounded up.
pub(super) fn lease_seconds(ttl: Duration) -> i64 {
    let up = u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(ttl.as_secs() + up).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_a_certificate_is_refused_by_name() {
        let mut settings = hostel_config::Etcd::at(&["https://127.0.0.1:1"], "test");
        settings.ca_file = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        let error = Server::new(&settings).err().unwrap().to_string();
        assert!(error.contains("discovery.ca_file: /"), "{error}");
        assert!(error.contains("Cargo.toml holds no certificate"), "{error}");
    }
}
