//! Token authentication: one layer before all services, so that none can be forgotten. A call that
//! passes may do everything.

use super::{
    super::status,
    reloadable::{FileError, ReloadSource, Reloadable},
};
use crate::{
    config::{self, TokenHash},
    log_limit::LogLimit,
    task::Name,
};
use futures_util::future::{Either, Ready, ready};
use std::{
    path::Path,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tonic::{
    body::Body,
    codegen::http::{HeaderMap, Request, Response, header::AUTHORIZATION},
    transport::server::TcpConnectInfo,
};
use tower::{Layer, Service};

/// The methods that need no token, so that probes work: they tell only whether the node serves. They
/// have no part in the budgets that calls share, which clients without a token could use up.
pub const OPEN: &[&str] = &[
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
];

/// The least time between two log lines about refused calls, which a client can cause at will.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The name of a token and its hash.
pub type KnownToken = (Name, TokenHash);

impl ReloadSource for config::Auth {
    type Value = Vec<KnownToken>;
    type Error = FileError;
    const WHAT: &str = "the tokens";

    fn files(&self) -> Vec<&Path> {
        self.tokens_file.iter().map(|file| file.as_path()).collect()
    }

    fn read(&self) -> Result<Vec<KnownToken>, FileError> {
        let configured = self.tokens.iter();
        let configured = configured.map(|(name, hash)| (name.clone(), hash.clone()));
        let mut known: Vec<KnownToken> = configured.collect();
        if let Some(file) = &self.tokens_file {
            let error = |problem| FileError::new("auth.tokens_file", file, problem);
            let text = std::fs::read_to_string(file)
                .map_err(|io| error(format!("cannot be read: {io}")))?;
            known.extend(parse(&text).map_err(error)?);
        }
        if known.is_empty() {
            tracing::warn!("[auth] has no token, so all calls except health checks are refused");
        }
        Ok(known)
    }
}

/// Parses lines of `NAME SHA256`. Several tokens may have one name, so that one can replace another. An
/// error does not repeat its line, which may hold the token itself.
fn parse(text: &str) -> Result<Vec<KnownToken>, String> {
    let mut known = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let wrong = |problem: &str| format!("line {}: {problem}", index + 1);
        match words[..] {
            [] => {}
            [name, hash] => {
                let name = Name::parse("token name", name).map_err(|_| {
                    wrong("the name has other characters than letters, digits and . _ : -")
                })?;
                let hash = TokenHash::parse(hash).map_err(|error| wrong(&error.to_string()))?;
                known.push((name, hash));
            }
            _ => return Err(wrong("a name and the SHA-256 of its token expected")),
        }
    }
    Ok(known)
}

/// Checks the tokens of calls.
pub struct Auth {
    known: Arc<Reloadable<config::Auth>>,
    refused: LogLimit,
}

impl Auth {
    pub fn new(known: Arc<Reloadable<config::Auth>>) -> Self {
        Self {
            known,
            refused: LogLimit::new(1, LOG_INTERVAL),
        }
    }

    /// The context of a call with a known token.
    fn admit<B>(&self, request: &Request<B>) -> Option<AuthContext> {
        let method = request.uri().path();
        let peer = request.extensions().get::<TcpConnectInfo>();
        let peer = peer.and_then(|peer| peer.remote_addr);
        let peer = peer.map(tracing::field::display);
        let known = self.known.current();
        let token = token(request.headers()).map(TokenHash::of);
        let found = token.and_then(|token| Some((find(&known, &token)?.clone(), token)));
        let Some((name, token)) = found else {
            if let Some(left_out) = self.refused.permit() {
                tracing::info!(
                    method,
                    peer,
                    left_out,
                    "refused a call without a known token"
                );
            }
            return None;
        };
        tracing::debug!(token = %name, method, peer, "admitted a call");
        let known = self.known.clone();
        Some(AuthContext { known, name, token })
    }
}

/// The token that admitted a call. A call that lasts has to watch whether the token is removed.
#[derive(Clone)]
pub struct AuthContext {
    known: Arc<Reloadable<config::Auth>>,
    name: Name,
    token: TokenHash,
}

impl AuthContext {
    /// Watches the token from now on.
    pub fn watch(self) -> WatchedContext {
        let mut known = self.known.changes();
        // The token may have been removed since the call was admitted.
        known.mark_changed();
        WatchedContext {
            context: self,
            known,
        }
    }
}

/// A context whose token is watched.
pub struct WatchedContext {
    context: AuthContext,
    known: watch::Receiver<Arc<Vec<KnownToken>>>,
}

impl WatchedContext {
    /// Returns once the token is removed. Cancel-safe.
    pub async fn revoked(&mut self) {
        while self.known.changed().await.is_ok() {
            if find(&self.known.borrow_and_update(), &self.context.token).is_none() {
                tracing::info!(token = %self.context.name, "ended a stream: its token was removed");
                return;
            }
        }
        // The server has stopped, which ends its streams.
        std::future::pending().await
    }
}

/// The bearer token of a call.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// The name of a known token. Every token is compared in full, so that the time taken reveals nothing of
/// any.
fn find<'a>(known: &'a [KnownToken], given: &TokenHash) -> Option<&'a Name> {
    let mut found = None;
    for (name, hash) in known {
        if hash.as_bytes().ct_eq(given.as_bytes()).into() {
            found = Some(name);
        }
    }
    found
}

/// The layer that checks tokens; without an `Auth`, all calls pass.
#[derive(Clone)]
pub struct Authenticate(pub Option<Arc<Auth>>);

impl<S> Layer<S> for Authenticate {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        let auth = self.0.clone();
        Authenticated { auth, inner }
    }
}

/// A service behind the layer.
#[derive(Clone)]
pub struct Authenticated<S> {
    auth: Option<Arc<Auth>>,
    inner: S,
}

impl<S, B> Service<Request<B>> for Authenticated<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(auth) = &self.auth
            && !OPEN.contains(&request.uri().path())
        {
            let Some(context) = auth.admit(&request) else {
                return Either::Right(ready(Ok(status::unauthenticated().into_http())));
            };
            request.extensions_mut().insert(context);
        }
        Either::Left(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_files_have_names_hashes_and_comments() {
        let (one, two) = (TokenHash::of(b"1"), TokenHash::of(b"2"));
        let text = format!("# tokens\n\nci {one}  # since May\r\n\tann\t{two}\nci {two}\n");
        let known = parse(&text).unwrap();
        let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["ci", "ann", "ci"]);
        assert_eq!(find(&known, &one).unwrap().as_str(), "ci");
        assert_eq!(find(&known, &TokenHash::of(b"3")), None);
        for (line, expected) in [
            ("hostel_secret".to_owned(), "line 2: a name and the SHA-256"),
            (
                "ci hostel_secret".to_owned(),
                "line 2: expected the SHA-256 of a token in 64",
            ),
            (format!("hostel/secret {one}"), "line 2: the name has other"),
            (format!("ci {one} hostel_secret"), "line 2: a name and"),
        ] {
            let error = parse(&format!("ci {one}\n{line}")).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn bearer_tokens_are_read_from_the_header() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            token(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(of("Bearer abc"), Some(b"abc".to_vec()));
        assert_eq!(of("bearer  abc "), Some(b"abc".to_vec()));
        for none in ["", "Bearer", "Bearer ", "Bearer   ", "Basic abc", "abc"] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(token(&HeaderMap::new()), None);
    }
}
