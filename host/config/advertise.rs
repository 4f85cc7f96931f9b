//! `node.advertise`: the address that a node publishes as its own. Resolves no names.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

/// The maximum length of a DNS name.
const MAX_NAME: usize = 253;

/// A host name or an IP address, and a port unless it is the one that the node listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    host: String,
    port: Option<u16>,
}

impl Advertise {
    /// Parses an address. The error says what was expected.
    pub fn parse(given: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "expected a host name or an IP address, with or without a port, such as \
                 10.0.0.7:50051 or node-1.example, found {given:?}"
            )
        };
        if let Some((host, port)) = ip(given) {
            if host.is_unspecified() {
                return Err(format!(
                    "{given:?} is no address that others can connect to"
                ));
            }
            let port = port.map(check_port).transpose()?;
            return Ok(Self::new(&host.to_string(), port));
        }
        let (host, port) = match given.split_once(':') {
            None => (given, None),
            Some((host, port)) => (host, Some(port.parse().map_err(|_| expected())?)),
        };
        let port = port.map(check_port).transpose()?;
        if is_name(host) {
            Ok(Self::new(host, port))
        } else {
            Err(expected())
        }
    }

    fn new(host: &str, port: Option<u16>) -> Self {
        let host = host.to_owned();
        Self { host, port }
    }

    /// Returns the address with its port, or with `bound` if it has none.
    pub fn with_port(&self, bound: u16) -> String {
        let port = Some(self.port.unwrap_or(bound));
        Self::new(&self.host, port).to_string()
    }
}

/// The address as it was given.
impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (_, None) => f.write_str(&self.host),
        }
    }
}

fn ip(given: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = given.parse::<SocketAddr>() {
        return Some((address.ip(), Some(address.port())));
    }
    let bare = given.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    if let Some(bare) = bare {
        let host: Ipv6Addr = bare.parse().ok()?;
        return Some((host.into(), None));
    }
    Some((given.parse().ok()?, None))
}

fn check_port(port: u16) -> Result<u16, String> {
    if port == 0 {
        return Err(
            "port 0 cannot be connected to; leave the port out to advertise the one that the node \
             listens on"
                .into(),
        );
    }
    Ok(port)
}

fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(known)
    };
    // A name does not end in a number; such a text is an invalid IP address.
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    host.len() <= MAX_NAME && host.split('.').all(is_label) && !numeric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_a_port_get_the_bound_port() {
        for (given, advertised) in [
            ("10.0.0.7", "10.0.0.7:5"),
            ("10.0.0.7:9", "10.0.0.7:9"),
            ("node-1.example", "node-1.example:5"),
            ("node_1:9", "node_1:9"),
            ("::1", "[::1]:5"),
            ("[::1]", "[::1]:5"),
            ("[2001:db8::1]:9", "[2001:db8::1]:9"),
        ] {
            let parsed = Advertise::parse(given).unwrap();
            assert_eq!(parsed.with_port(5), advertised);
            assert_eq!(Advertise::parse(&parsed.to_string()).unwrap(), parsed);
        }
    }

    #[test]
    fn invalid_addresses_are_refused() {
        for (given, expected) in [
            ("0.0.0.0", "no address that others can connect to"),
            ("0.0.0.0:9", "no address that others can connect to"),
            ("[::]:9", "no address that others can connect to"),
            ("10.0.0.7:0", "port 0"),
            ("node:0", "port 0"),
            ("", "expected a host name"),
            (":9", "expected a host name"),
            ("10.0.0", "expected a host name"),
            ("10.0.0.256:9", "expected a host name"),
            ("node:http", "expected a host name"),
            ("node:70000", "expected a host name"),
            ("http://node:9", "expected a host name"),
            ("a node", "expected a host name"),
            ("node..example", "expected a host name"),
            ("[node]:9", "expected a host name"),
        ] {
            let error = Advertise::parse(given).unwrap_err();
            assert!(error.contains(expected), "{given}: {error}");
        }
    }
}
