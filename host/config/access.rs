//! `[tls]` and `[auth]`: who may reach a node and how, and the one rule on where it may listen.
//! Opens no files; `api` does.

use super::reader::Section;
use hostel_task::Name;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

/// `[tls]`: PEM files.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// The node's certificate, and behind it whatever leads to the CA.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Who signs the certificates that clients have to show; without one they need none.
    pub client_ca_file: Option<PathBuf>,
}

/// `[auth]`: the tokens that are let in, from both places together.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    /// A line `NAME SHA256` each.
    pub tokens_file: Option<PathBuf>,
    /// `[auth.token.NAME]`
    pub tokens: BTreeMap<Name, TokenHash>,
}

/// What a node keeps of a token. A plain SHA-256 is enough, with neither salt nor stretching: tokens
/// are 32 random bytes (`hostel token new`), which nobody finds by trying.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

/// Does not repeat what was given: it may be the token itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the SHA-256 of a token in 64 hexadecimal digits expected, as `hostel token new` prints it; \
     never the token itself"
)]
pub struct InvalidHash;

impl TokenHash {
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    pub fn parse(hex: &str) -> Result<Self, InvalidHash> {
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return Err(InvalidHash);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(InvalidHash);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).map_err(|_| InvalidHash)?;
        }
        Ok(Self(hash))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What stands between a port and whoever reaches it.
#[derive(Debug, Clone, Copy)]
pub struct Protection {
    pub tls: bool,
    pub auth: bool,
    /// `node.insecure`: somebody has spelled out that nothing has to.
    pub insecure: bool,
}

impl Protection {
    /// Whether a node may listen there; otherwise what it lacks.
    pub fn allows(self, listen: SocketAddr) -> Result<(), String> {
        let lacks = match (self.tls, self.auth) {
            (true, true) => return Ok(()),
            (false, true) => "[tls]",
            (true, false) => "[auth]",
            (false, false) => "[tls] and [auth]",
        };
        if self.insecure || listen.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(format!(
            "{listen} is open to other machines, which needs {lacks} too; give that, listen on \
             127.0.0.1, or set insecure = true if whoever reaches the port may use the node"
        ))
    }
}

pub(super) fn tls(s: &mut Section<'_>) -> Option<Tls> {
    let keys = ["cert_file", "key_file", "client_ca_file"];
    let [cert, key, ca] = keys.map(|key| s.has(key));
    let given = keys.into_iter().find(|key| s.has(key));
    let files = keys.map(|key| s.maybe_path(key));
    if let Some(given) = given {
        let path = s.path_of(given);
        let whole = cert && key;
        let problem = match ca && !cert && !key {
            true => "client_ca_file needs cert_file and key_file",
            false => "cert_file and key_file go together; only one of them is given",
        };
        s.reader().rule(&[&path], whole, || problem.into());
    }
    let [Some(cert_file), Some(key_file), client_ca_file] = files else {
        return None;
    };
    Some(Tls {
        cert_file,
        key_file,
        client_ca_file,
    })
}

pub(super) fn auth(s: &mut Section<'_>) -> Option<Auth> {
    let tokens_file = s.maybe_path("tokens_file");
    let tokens = s.each("token", "token name", |s| {
        s.text("sha256", TokenHash::of(b""), |given| {
            TokenHash::parse(&given).map_err(|error| error.to_string())
        })
    });
    (tokens_file.is_some() || !tokens.is_empty()).then_some(Auth {
        tokens_file,
        tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn fault(text: &str) -> String {
        let faults = Config::parse(text, std::iter::empty()).unwrap_err();
        assert_eq!(faults.list.len(), 1, "{faults}");
        format!("{}: {}", faults.list[0].setting, faults.list[0].problem)
    }

    #[test]
    fn hashes_are_read_and_shown_in_hexadecimal() {
        let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(TokenHash::of(b"test").to_string(), hex);
        assert_eq!(TokenHash::parse(hex), Ok(TokenHash::of(b"test")));
        assert_eq!(
            TokenHash::parse(&hex.to_uppercase()),
            Ok(TokenHash::of(b"test"))
        );
        for wrong in ["", "9f", &hex[1..], &format!("{hex}0"), &"+1".repeat(32)] {
            assert_eq!(TokenHash::parse(wrong), Err(InvalidHash), "{wrong}");
        }
    }

    #[test]
    fn listening_beyond_loopback_needs_both() {
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
                let told = protection.allows(open.parse().unwrap());
                assert_eq!(told.is_ok(), allowed, "{open} {protection:?}");
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

    #[test]
    fn certificate_and_key_go_together() {
        let alone = "go together; only one of them is given";
        assert!(fault("[tls]\ncert_file = \"a\"").contains(alone));
        let key = fault("[tls]\nkey_file = \"a\"\nclient_ca_file = \"b\"");
        assert!(key.starts_with("tls.key_file: cert_file and"), "{key}");
        assert!(fault("[tls]\nclient_ca_file = \"b\"").contains("needs cert_file and key_file"));
        // One that is at fault by itself is there all the same.
        let broken = fault("[tls]\ncert_file = 1\nkey_file = \"a\"");
        assert!(broken.contains("text expected"), "{broken}");
    }

    #[test]
    fn a_token_in_the_place_of_its_hash_is_not_repeated() {
        let told = fault("[auth.token.ci]\nsha256 = \"hostel_secret\"");
        assert!(
            told.starts_with("auth.token.ci.sha256: the SHA-256"),
            "{told}"
        );
        assert!(!told.contains("secret"), "{told}");
        assert!(fault("[auth.token.ci]").contains("has to be given"));
    }

    #[test]
    fn a_rule_for_both_sections_is_met_in_a_file() {
        let hash = TokenHash::of(b"x");
        let text = format!(
            "[node]\nlisten = \"0.0.0.0:1\"\n[tls]\ncert_file = \"/c\"\nkey_file = \"/k\"\n\
             [auth.token.ci]\nsha256 = \"{hash}\""
        );
        let config = Config::parse(&text, std::iter::empty()).unwrap();
        assert_eq!(config.auth.unwrap().tokens["ci"], hash);
        let (tls, _) = text.split_once("[auth").unwrap();
        assert!(
            fault(tls).starts_with(
                "node.listen: 0.0.0.0:1 is open to other machines, which needs [auth]"
            )
        );
    }
}
