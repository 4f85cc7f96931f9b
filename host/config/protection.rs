//! The rule on which addresses a node may listen.

use std::net::SocketAddr;

/// What protects a port.
#[derive(Debug, Clone, Copy)]
pub struct Protection {
    /// `[tls]` names a certificate.
    pub tls: bool,
    /// `[auth]` names a token or a file of tokens.
    pub auth: bool,
    /// `node.insecure`: the operator allows an unprotected port.
    pub insecure: bool,
}

impl Protection {
    /// Checks whether a node may listen on `listen`. The error says what is missing.
    pub fn allows(self, listen: SocketAddr) -> Result<(), String> {
        let missing = match (self.tls, self.auth) {
            (true, true) => return Ok(()),
            (false, true) => "[tls]",
            (true, false) => "[auth]",
            (false, false) => "[tls] and [auth]",
        };
        if self.insecure || listen.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(format!(
            "{listen} can be reached from other machines, which needs {missing} as well; configure \
             that, listen on 127.0.0.1, or set insecure = true if everyone who reaches the port may \
             use the node"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_needs_no_protection() {
        for (tls, auth, insecure, allowed) in [
            (false, false, false, false),
            (true, false, false, false),
            (false, true, false, false),
            (true, true, false, true),
            (false, false, true, true),
        ] {
            let protection = Protection {
                tls,
                auth,
                insecure,
            };
            for open in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
                let allows = protection.allows(open.parse().unwrap());
                assert_eq!(allows.is_ok(), allowed, "{open} {protection:?}");
            }
            for own in [
                "127.0.0.1:1",
                "127.9.9.9:1",
                "[::1]:1",
                "[::ffff:127.0.0.1]:1",
            ] {
                protection.allows(own.parse().unwrap()).unwrap();
            }
        }
    }
}
