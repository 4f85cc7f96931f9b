//! How etcd is reached: connecting, how long anything may take, and what its errors mean to people.

use super::super::Error;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use hostel_runtime::pem;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// How long one request may take.
pub(super) const ANSWER: Duration = Duration::from_secs(3);
/// A connection that nothing comes through is asked so often whether it still is one. etcd ends one that
/// is asked more often than every 5 s, or while nothing is asked on it at all.
const KEEP_ALIVE: Duration = Duration::from_millis(5500);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_millis(2500);
/// For how long a connection that nothing is asked on counts as one: it may have been lost unheard.
const REST: Duration = Duration::from_secs(5);
/// How long to wait before connecting again: at first, and at most.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// A connection, and when it was used last.
#[derive(Clone)]
pub(super) struct Kept {
    pub client: Client,
    pub used: Instant,
}

/// An etcd, one or several servers.
pub(super) struct Server {
    endpoints: Vec<String>,
    options: ConnectOptions,
    is_tls: bool,
}

impl Server {
    /// Reads the files that the settings name; connects to nothing.
    pub fn new(settings: &hostel_config::Etcd) -> Result<Self, Error> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(ANSWER)
            .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE_ANSWER)
            .with_keep_alive_while_idle(false)
            // A server that has lost the others says so, and does not go on with what it knows.
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

    /// A connection for single requests: the one that was kept, unless it has rested.
    pub async fn connect_again(&self, kept: Option<Kept>) -> Result<Client, Error> {
        match kept.filter(|kept| kept.used.elapsed() < REST) {
            Some(kept) => Ok(kept.client),
            None => self.connect().await,
        }
    }

    pub async fn connect(&self) -> Result<Client, Error> {
        let client = Client::connect(&self.endpoints, Some(self.options.clone()));
        self.within(client).await
    }

    /// The answer, or the error that there is none in time.
    pub async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(answer) => answer.map_err(|error| self.explain(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    pub fn silent(&self) -> Error {
        let (seconds, endpoints) = (ANSWER.as_secs(), self.endpoints.join(", "));
        Error::Unavailable(format!(
            "etcd at {endpoints} does not answer within {seconds} s (discovery.endpoints)"
        ))
    }

    pub fn explain(&self, error: &etcd_client::Error) -> Error {
        let said = error.to_string();
        let has = |words: &[&str]| words.iter().any(|words| said.contains(words));
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
            // With TLS 1.3 a server turns clients away only once they have begun to ask, and the
            // reason is often lost together with the connection.
            "; the connection was lost: where etcd asks for a certificate, check \
             discovery.cert_file and key_file"
        } else {
            ""
        };
        Error::Unavailable(format!("etcd: {said}{hint}"))
    }
}

/// What to do with https; `None` where all endpoints are http.
fn tls(settings: &hostel_config::Etcd) -> Result<Option<TlsOptions>, Error> {
    let https = |endpoint: &String| endpoint.starts_with("https://");
    let given = [&settings.ca_file, &settings.cert_file, &settings.key_file];
    if !settings.endpoints.iter().any(https) {
        return match given.iter().any(|file| file.is_some()) {
            true => Err(Error::Misconfigured(
                "discovery names certificates, but its endpoints are http; write https:// there"
                    .into(),
            )),
            false => Ok(None),
        };
    }
    let mut tls = TlsOptions::new();
    tls = match &settings.ca_file {
        Some(file) => tls.ca_certificate(Certificate::from_pem(read("ca_file", file)?)),
        None => tls.with_enabled_roots(),
    };
    if let (Some(cert), Some(key)) = (&settings.cert_file, &settings.key_file) {
        let (cert, key) = (read("cert_file", cert)?, read("key_file", key)?);
        pem::check_pair("discovery", &cert, &key).map_err(Error::Misconfigured)?;
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    Ok(Some(tls))
}

fn read(setting: &str, file: &PathBuf) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| {
        let file = file.display();
        Error::Misconfigured(format!(
            "discovery.{setting}: {file} cannot be read: {error}"
        ))
    })
}

/// How long to wait between attempts, longer each time, and never the same on two nodes.
pub(super) struct Pause(Duration);

impl Pause {
    pub fn new() -> Self {
        Self(AGAIN)
    }

    pub async fn wait(&mut self) {
        let pause = self.0.mul_f32(0.5 + fastrand::f32() / 2.0);
        self.0 = (self.0 * 2).min(AGAIN_MAX);
        tokio::time::sleep(pause).await;
    }
}
