//! Who may connect and call: TLS and tokens as the configuration sets them, with their files read again
//! when they change.

pub mod auth;
mod certificate_expiry;
pub mod reloadable;
mod tls;

use self::{
    auth::{Auth, Authenticate},
    reloadable::{FileError, Reload, ReloadSource, Reloadable},
};
use crate::config::{self, Config, Protection};
use std::{net::SocketAddr, sync::Arc};
use tokio_rustls::TlsAcceptor;

/// Why a server cannot be protected as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error(transparent)]
    Tokens(#[from] FileError),
    #[error("{0}")]
    Unprotected(String),
}

/// What has become of a section of the configuration that a running server can reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// It is in force.
    InForce,
    /// A file could not be read, which is logged. The former content stays in force.
    Failed,
    /// Whether there is such a section is fixed at the start.
    FixedAtStart,
}

/// The protection of a server. The default has neither TLS nor tokens, which only a loopback address
/// allows.
#[derive(Default)]
pub struct Security {
    insecure: bool,
    tls: Option<Arc<Reloadable<config::Tls>>>,
    tokens: Option<Arc<Reloadable<config::Auth>>>,
}

impl Security {
    /// Reads all files that the configuration names.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let tls = config.tls.clone().map(Reloadable::open).transpose()?;
        let tokens = config.auth.clone().map(Reloadable::open).transpose()?;
        Ok(Self {
            insecure: config.node.insecure,
            tls: tls.map(Arc::new),
            tokens: tokens.map(Arc::new),
        })
    }

    /// Checks that a server with this protection may listen on an address. The configuration is
    /// checked when it is loaded; this checks embedding programs.
    pub fn allows(&self, listen: SocketAddr) -> Result<(), Error> {
        let protection = Protection {
            tls: self.tls.is_some(),
            auth: self.tokens.is_some(),
            insecure: self.insecure,
        };
        protection.allows(listen).map_err(Error::Unprotected)
    }

    /// The TLS acceptor for the next connection, if the server has TLS.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        let tls = self.tls.as_ref()?;
        Some(TlsAcceptor::from(tls.current().config.clone()))
    }

    /// The layer that checks tokens, for all services.
    pub fn authenticate(&self) -> Authenticate {
        let tokens = self.tokens.clone();
        Authenticate(tokens.map(|tokens| Arc::new(Auth::new(tokens))))
    }

    /// Reads the files that `config` names again, and returns what has become of each section. Whether there
    /// is TLS, and whether tokens are required, is fixed at the start.
    pub fn reload(&self, config: &Config) -> [(&'static str, Reloaded); 2] {
        [
            ("tls", reread(self.tls.as_deref(), config.tls.clone())),
            ("auth", reread(self.tokens.as_deref(), config.auth.clone())),
        ]
    }

    /// The values whose files have to be checked for changes.
    pub fn reloadables(&self) -> Vec<Arc<dyn Reload>> {
        let tls = self.tls.clone().map(|tls| tls as Arc<dyn Reload>);
        let tokens = self.tokens.clone().map(|tokens| tokens as Arc<dyn Reload>);
        tls.into_iter().chain(tokens).collect()
    }
}

fn reread<S: ReloadSource>(current: Option<&Reloadable<S>>, source: Option<S>) -> Reloaded {
    match (current, source) {
        (Some(current), Some(source)) => match current.reread(source) {
            true => Reloaded::InForce,
            false => Reloaded::Failed,
        },
        (None, None) => Reloaded::InForce,
        _ => Reloaded::FixedAtStart,
    }
}
