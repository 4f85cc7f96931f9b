//! `[node] advertise`: the address that a node gives out as its own. Looks up nothing.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

/// The longest name that DNS has.
const MAX_NAME: usize = 253;

/// A host name or an IP address, and a port unless it is the one that the node listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    host: String,
    port: Option<u16>,
}

impl Advertise {
    /// `Err` says what was expected.
    pub fn parse(given: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "{given:?} is no host name or IP address, with a port or without, such as \
                 10.0.0.7:50051 or node-1.example"
            )
        };
        if let Some((host, port)) = ip(given) {
            if host.is_unspecified() {
                return Err(format!("{given:?} leads nobody anywhere"));
            }
            let port = port.map(real).transpose()?;
            return Ok(Self::new(&host.to_string(), port));
        }
        let (host, port) = match given.split_once(':') {
            None => (given, None),
            Some((host, port)) => (host, Some(port.parse().map_err(|_| expected())?)),
        };
        let port = port.map(real).transpose()?;
        match is_name(host) {
            true => Ok(Self::new(host, port)),
            false => Err(expected()),
        }
    }

    fn new(host: &str, port: Option<u16>) -> Self {
        let host = host.to_owned();
        Self { host, port }
    }

    /// As others connect to it.
    pub fn with_port(&self, bound: u16) -> String {
        let port = Some(self.port.unwrap_or(bound));
        Self::new(&self.host, port).to_string()
    }
}

/// As it was given.
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

fn real(port: u16) -> Result<u16, String> {
    match port {
        0 => Err(
            "nobody can connect to port 0; without a port, the one that the node listens on \
                  is given out"
                .into(),
        ),
        port => Ok(port),
    }
}

fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(known)
    };
    // Names do not end in a number; what does is an IP address with a fault.
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    host.len() <= MAX_NAME && host.split('.').all(is_label) && !numeric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_get_the_port_that_is_bound() {
        for (given, announced) in [
            ("10.0.0.7", "10.0.0.7:5"),
            ("10.0.0.7:9", "10.0.0.7:9"),
            ("node-1.example", "node-1.example:5"),
            ("node_1:9", "node_1:9"),
            ("::1", "[::1]:5"),
            ("[::1]", "[::1]:5"),
            ("[2001:db8::1]:9", "[2001:db8::1]:9"),
        ] {
            let parsed = Advertise::parse(given).unwrap();
            assert_eq!(parsed.with_port(5), announced);
            assert_eq!(Advertise::parse(&parsed.to_string()).unwrap(), parsed);
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for (given, told) in [
            ("0.0.0.0", "leads nobody anywhere"),
            ("0.0.0.0:9", "leads nobody anywhere"),
            ("[::]:9", "leads nobody anywhere"),
            ("10.0.0.7:0", "port 0"),
            ("node:0", "port 0"),
            ("", "is no host name"),
            (":9", "is no host name"),
            ("10.0.0", "is no host name"),
            ("10.0.0.256:9", "is no host name"),
            ("node:http", "is no host name"),
            ("node:70000", "is no host name"),
            ("http://node:9", "is no host name"),
            ("a node", "is no host name"),
            ("node..example", "is no host name"),
            ("[node]:9", "is no host name"),
        ] {
            let why = Advertise::parse(given).unwrap_err();
            assert!(why.contains(told), "{given}: {why}");
        }
    }
}
