//! `[discovery]`, `[broker]`, and the settings of the servers that the nodes of a cluster share.

use super::super::{
    group::{self, kinds, settings},
    secret::{Secret, SecretUrl},
    setting::{HOUR, SECOND, flag, millis, name, path, text, texts},
};
use hostel_task::Name;
use std::{path::PathBuf, time::Duration};

kinds! {
    /// How nodes and services find each other: "local" is this node alone, "etcd" all nodes with the
    /// same etcd and prefix.
    enum Discovery {
        /// This node alone.
        Local = "local";
        /// All nodes with the same etcd and prefix.
        Etcd(Etcd) = "etcd";
    }
}

kinds! {
    /// How messages are delivered: "local" within this node, "redis" between all nodes with the same
    /// Redis and prefix.
    enum Broker {
        /// Within this node.
        Local = "local";
        /// Between all nodes with the same Redis and prefix.
        Redis(Redis) = "redis";
    }
}

settings! {
    /// Settings of an etcd cluster.
    struct Etcd {
        /// Addresses of etcd, each `http://HOST:PORT` or `https://HOST:PORT`. Any of them may answer.
        endpoints: Vec<String> = texts(parse_endpoint).default(vec![Etcd::ENDPOINT.to_owned()]);

        /// Prefix of all keys of this cluster of nodes. A `/` at its end is dropped.
        prefix: String = text(parse_prefix).default(Etcd::PREFIX.to_owned());

        /// How long this node counts as alive after the last renewal of its registration. It renews
        /// three times as often.
        ttl: Duration = millis(2 * SECOND..=HOUR).default(Etcd::TTL);

        /// User name, if etcd requires authentication.
        user: Option<String> = text(not_empty).example("hostel");

        /// Password of the user.
        password: Option<Secret> = text(|given| not_empty(given).map(Secret::new)).example("secret");

        /// For `https://`: certificates of the CAs that may sign etcd's certificate (PEM). By default
        /// those that this machine trusts.
        ca_file: Option<PathBuf> = path().example("ca.pem");

        /// For `https://`: this node's own certificate (PEM), if etcd asks for one.
        cert_file: Option<PathBuf> = path().example("node.pem");

        /// The certificate's key (PEM).
        key_file: Option<PathBuf> = path().example("node.key");
    }
}

settings! {
    /// Settings of a Redis server or cluster.
    struct Redis {
        /// Address of Redis, `redis://USER:PASSWORD@HOST:PORT`, or `rediss://` for TLS. For a Redis
        /// Cluster, one address or several, separated by commas.
        url: SecretUrl = text(parse_url).default(SecretUrl::new(Redis::URL));

        /// Whether it is a Redis Cluster.
        cluster: bool = flag().default(false);

        /// Prefix of all keys and channels of this cluster of nodes.
        prefix: Name = name("prefix").default_with(|_| Redis::default_prefix()).example(Redis::PREFIX);

        /// For `rediss://`: certificates of the CAs that may sign the server's certificate (PEM). By
        /// default those that this machine trusts.
        ca_file: Option<PathBuf> = path().example("ca.pem");

        /// For `rediss://`: this node's own certificate (PEM), if Redis asks for one.
        cert_file: Option<PathBuf> = path().example("node.pem");

        /// The certificate's key (PEM).
        key_file: Option<PathBuf> = path().example("node.key");
    }
}

impl Etcd {
    /// The default of `endpoints`.
    pub const ENDPOINT: &str = "http://127.0.0.1:2379";
    /// The default of `prefix`.
    pub const PREFIX: &str = "/hostel";
    /// The default of `ttl_ms`.
    pub const TTL: Duration = Duration::from_secs(10);

    /// Returns the settings for these addresses and this prefix, with defaults for the rest.
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
    /// The default of `url`.
    pub const URL: &str = "redis://127.0.0.1:6379";
    /// The default of `prefix`.
    pub const PREFIX: &str = "hostel";

    /// Returns the settings for this address and prefix, with defaults for the rest; `None` if the
    /// prefix is no valid name.
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

    fn default_prefix() -> Name {
        match Name::parse("prefix", Self::PREFIX) {
            Ok(name) => name,
            Err(error) => unreachable!("the default is a name: {error}"),
        }
    }
}

fn parse_endpoint(given: &str) -> Result<String, String> {
    let address = given
        .strip_prefix("http://")
        .or(given.strip_prefix("https://"));
    if address.is_some_and(|address| !address.is_empty() && !address.contains('@')) {
        Ok(given.to_owned())
    } else {
        Err(format!(
            "expected http://HOST:PORT or https://HOST:PORT, found {given:?}"
        ))
    }
}

fn parse_prefix(given: &str) -> Result<String, String> {
    let trimmed = given.trim_end_matches('/');
    if trimmed.is_empty() || trimmed.contains('\0') {
        return Err(format!(
            "expected a prefix such as \"/hostel\", found {given:?}"
        ));
    }
    Ok(trimmed.to_owned())
}

/// Does not repeat a value that is wrong: it may contain a password.
fn parse_url(given: &str) -> Result<SecretUrl, String> {
    if ["redis://", "rediss://"]
        .iter()
        .any(|scheme| given.starts_with(scheme))
    {
        Ok(SecretUrl::new(given))
    } else {
        Err("expected redis://… or rediss://…".into())
    }
}

fn not_empty(given: &str) -> Result<String, String> {
    if given.is_empty() {
        return Err("is empty".into());
    }
    Ok(given.to_owned())
}
