//! What a node has to know of the servers that a cluster shares, and how secrets are kept out of
//! sight. Connects to nothing.

use hostel_task::Name;
use std::{fmt, path::PathBuf, time::Duration};

/// `kind = "etcd"`
#[derive(Debug, Clone, PartialEq)]
pub struct Etcd {
    /// `http://host:port` or `https://host:port`; which of them answers does not matter.
    pub endpoints: Vec<String>,
    /// Before every key, without a `/` at its end.
    pub prefix: String,
    /// How long this node's record outlives its last renewal.
    pub ttl: Duration,
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// PEM files: who may sign the servers' certificates, and this node's own certificate and key.
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// `kind = "redis"`
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// `redis://user:password@host:port/database`, or `rediss://` for TLS. Of a cluster, one node or
    /// more, with commas between them.
    pub url: SecretUrl,
    /// It is a Redis Cluster.
    pub cluster: bool,
    /// Before every key and channel.
    pub prefix: Name,
    /// PEM files: who may sign the server's certificate, and this node's own certificate and key.
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

impl Etcd {
    /// What is in force where nothing is said. Other kinds of the section have no such settings, so
    /// these are not in default.toml but as examples; a test holds them to be the same.
    pub const ENDPOINT: &str = "http://127.0.0.1:2379";
    pub const PREFIX: &str = "/hostel";
    pub const TTL: Duration = Duration::from_secs(10);

    /// With nothing but the address and the prefix given.
    pub fn at(endpoints: &[&str], prefix: &str) -> Self {
        Self {
            endpoints: endpoints.iter().map(|&one| one.to_owned()).collect(),
            prefix: prefix.trim_end_matches('/').to_owned(),
            ttl: Self::TTL,
            user: None,
            password: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}

impl Redis {
    pub const URL: &str = "redis://127.0.0.1:6379";
    pub const PREFIX: &str = "hostel";

    /// With nothing but the address given. `None` where the prefix is no name.
    pub fn at(url: &str, prefix: &str) -> Option<Self> {
        Some(Self {
            url: SecretUrl::new(url),
            cluster: false,
            prefix: Name::parse("prefix", prefix).ok()?,
            ca_file: None,
            cert_file: None,
            key_file: None,
        })
    }
}

/// Text that is printed nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A URL, or several with commas between them, that may hold passwords, which are printed nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut urls: Vec<String> = Vec::new();
        for part in self.0.split(',') {
            match urls.last_mut() {
                // A comma that somebody wrote into a password without escaping it.
                Some(url) if !part.contains("://") => *url += &format!(",{part}"),
                _ => urls.push(part.to_owned()),
            }
        }
        let masked: Vec<String> = urls.iter().map(|url| masked(url)).collect();
        f.write_str(&masked.join(","))
    }
}

fn masked(url: &str) -> String {
    let scheme = url.find("://").map_or(0, |at| at + "://".len());
    let (scheme, rest) = url.split_at(scheme);
    // The last `@`, in case somebody wrote one into the password without escaping it.
    let hidden = rest.rsplit_once('@').and_then(|(user, host)| {
        let (user, _password) = user.split_once(':')?;
        Some(format!("{scheme}{user}:***@{host}"))
    });
    hidden.unwrap_or_else(|| url.to_owned())
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_printed_nowhere() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://:hush@host:1/2", "redis://:***@host:1/2"),
            ("rediss://me:hu@/sh@host", "rediss://me:***@host"),
            ("redis://me@host", "redis://me@host"),
            ("me:hush@host", "me:***@host"),
            ("redis://me:hu,sh@host", "redis://me:***@host"),
            (
                "redis://me:hush@one:1,redis://me:hush@two:2",
                "redis://me:***@one:1,redis://me:***@two:2",
            ),
        ] {
            let url = SecretUrl::new(url);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
        assert!(!format!("{:?}", Secret::new("hush")).contains("hush"));
    }
}
