//! What a configuration demands of whoever connects, with its files read and kept up to date.
//! Certificates are `tls`'s matter, tokens `auth`'s.

use super::{
    auth::{Auth, Authenticate},
    tls,
    watched::{Look, Source, Unusable, Watched},
};
use crate::config::{self, Config, Protection};
use std::{net::SocketAddr, sync::Arc};
use tokio_rustls::TlsAcceptor;

/// Why a server cannot guard its door as it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error(transparent)]
    Tokens(#[from] Unusable),
    #[error("{0}")]
    Unprotected(String),
}

/// Whoever reaches a server has to come past this. By default nothing stands there, which is for
/// loopback only.
#[derive(Default)]
pub struct Access {
    insecure: bool,
    tls: Option<Arc<Watched<config::Tls>>>,
    tokens: Option<Arc<Watched<config::Auth>>>,
}

impl Access {
    /// Reads all files that the configuration names.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let tls = config.tls.clone().map(Watched::open).transpose()?;
        let tokens = config.auth.clone().map(Watched::open).transpose()?;
        Ok(Self {
            insecure: config.node.insecure,
            tls: tls.map(Arc::new),
            tokens: tokens.map(Arc::new),
        })
    }

    /// Holds the rule on where one may listen, which a configuration cannot break but a caller can.
    pub fn allows(&self, listen: SocketAddr) -> Result<(), Error> {
        let protection = Protection {
            tls: self.tls.is_some(),
            auth: self.tokens.is_some(),
            insecure: self.insecure,
        };
        protection.allows(listen).map_err(Error::Unprotected)
    }

    /// How the next connection is encrypted, if it is.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        let tls = self.tls.as_ref()?;
        Some(TlsAcceptor::from(tls.current().config.clone()))
    }

    /// What goes before all services.
    pub fn authenticate(&self) -> Authenticate {
        let tokens = self.tokens.clone();
        Authenticate(tokens.map(|tokens| Arc::new(Auth::new(tokens))))
    }

    /// Reads again what `config` names; returns the sections that are in force as it says. Whether
    /// there is TLS, and whether tokens are asked for, is settled at the start.
    pub fn reload(&self, config: &Config) -> Vec<&'static str> {
        let mut in_force = Vec::new();
        if reread(self.tls.as_deref(), config.tls.clone()) {
            in_force.push("tls.");
        }
        if reread(self.tokens.as_deref(), config.auth.clone()) {
            in_force.push("auth.");
        }
        in_force
    }

    /// What has to be looked at again and again.
    pub fn watched(&self) -> Vec<Arc<dyn Look>> {
        let tls = self.tls.clone().map(|tls| tls as Arc<dyn Look>);
        let tokens = self.tokens.clone().map(|tokens| tokens as Arc<dyn Look>);
        tls.into_iter().chain(tokens).collect()
    }
}

fn reread<S: Source>(current: Option<&Watched<S>>, source: Option<S>) -> bool {
    match (current, source) {
        (Some(current), Some(source)) => current.reread(source),
        (current, source) => current.is_none() && source.is_none(),
    }
}
