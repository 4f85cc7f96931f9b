//! `[tls]` and `[auth]`: who may reach a node. Opens no files.

use super::super::{
    group::{self, Group, Item, Section, settings, tables},
    setting::{path, text},
    token_hash::TokenHash,
};
use hostel_task::Name;
use std::{collections::BTreeMap, path::PathBuf};

/// The certificate files of a node that uses TLS (PEM).
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// The node's certificate, followed by the intermediate certificates.
    pub cert_file: PathBuf,
    /// The certificate's key.
    pub key_file: PathBuf,
    /// The CA that signs the certificates of clients; without one they need none.
    pub client_ca_file: Option<PathBuf>,
}

/// The tokens that are accepted, from both places together.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    /// A file with a line `NAME SHA256` for each token.
    pub tokens_file: Option<PathBuf>,
    /// `[auth.token.NAME]`
    pub tokens: BTreeMap<Name, TokenHash>,
}

settings! {
    /// Encrypts all connections. To listen on an address other than loopback, a node needs this and
    /// `[auth]`. The files are also read again when they change, for new connections; if one of them is
    /// invalid, the log says so and the last valid ones stay in force.
    struct TlsFiles {
        /// The node's certificate (PEM), followed by the intermediate certificates.
        cert_file: Option<PathBuf> = path().example("node.pem");

        /// The certificate's key (PEM, without a passphrase).
        key_file: Option<PathBuf> = path().example("node.key");

        /// Certificates of the CAs that sign clients' certificates (PEM). With it, clients without a
        /// certificate are refused.
        client_ca_file: Option<PathBuf> = path().example("client-ca.pem");
    }
}

settings! {
    /// Accepts only calls with a token, `authorization: Bearer TOKEN`, except for health checks.
    /// `hostel token new NAME` makes one. The node only knows its SHA-256.
    struct AuthSettings {
        /// A file with a line `NAME SHA256` for each token, and comments after #. It is also read again
        /// when it changes; streams whose token was removed are closed. Replace it by renaming a new
        /// file, so that it is never read half written.
        tokens_file: Option<PathBuf> = path().example("tokens");

        /// `[auth.token.NAME]`
        token: BTreeMap<Name, Token> = tables("token name", "ci");
    }
}

settings! {
    /// A token in the configuration itself. The log calls it NAME.
    struct Token {
        /// The SHA-256 that `hostel token new` prints.
        sha256: TokenHash = text(|given| TokenHash::parse(given).map_err(|error| error.to_string()))
            .example("289c2ca42267f8eac96f06b0eb59bdc58f8c602742dbd0640800c243d335bd64")
            .required(TokenHash::of(b""));
    }
}

impl Group for Option<Tls> {
    const DOC: &'static [&'static str] = TlsFiles::DOC;

    fn read(section: &mut Section<'_>) -> Self {
        let files = TlsFiles::read(section);
        Some(Tls {
            cert_file: files.cert_file?,
            key_file: files.key_file?,
            client_ca_file: files.client_ca_file,
        })
    }

    fn describe(values: Option<&Self>) -> Vec<Item> {
        let files = values.and_then(Option::as_ref).map(|tls| TlsFiles {
            cert_file: Some(tls.cert_file.clone()),
            key_file: Some(tls.key_file.clone()),
            client_ca_file: tls.client_ca_file.clone(),
        });
        TlsFiles::describe(files.as_ref())
    }
}

impl Group for Option<Auth> {
    const DOC: &'static [&'static str] = AuthSettings::DOC;

    fn read(section: &mut Section<'_>) -> Self {
        let AuthSettings { tokens_file, token } = AuthSettings::read(section);
        let hashes = token.into_iter().map(|(name, token)| (name, token.sha256));
        let tokens: BTreeMap<_, _> = hashes.collect();
        (tokens_file.is_some() || !tokens.is_empty()).then_some(Auth {
            tokens_file,
            tokens,
        })
    }

    fn describe(values: Option<&Self>) -> Vec<Item> {
        let settings = values.and_then(Option::as_ref).map(|auth| {
            let tokens = auth.tokens.iter().map(|(name, sha256)| {
                let sha256 = sha256.clone();
                (name.clone(), Token { sha256 })
            });
            AuthSettings {
                tokens_file: auth.tokens_file.clone(),
                token: tokens.collect(),
            }
        });
        AuthSettings::describe(settings.as_ref())
    }
}
