//! Who may call: those who show a token that the node knows the hash of. One layer before all
//! services, so that none can be forgotten; what a caller may do after that is no matter of this file.

use super::{
    share::Peer,
    status,
    watched::{Source, Unusable, Watched},
};
use crate::{
    config::{self, TokenHash},
    task::Name,
};
use futures_util::future::{Either, Ready, ready};
use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tonic::{
    body::Body,
    codegen::http::{HeaderMap, Request, Response, header::AUTHORIZATION},
    transport::server::TcpConnectInfo,
};
use tower::{Layer, Service};

/// The one service that needs no token, so that probes work: it says no more than whether the node
/// serves.
const OPEN: &str = "/grpc.health.v1.Health/";

/// How often refused calls are logged: whoever tries all the time must not fill a disk.
const TELL: Duration = Duration::from_secs(1);

/// A token's name and hash.
pub type Known = (Name, TokenHash);

impl Source for config::Auth {
    type Value = Vec<Known>;
    type Error = Unusable;
    const WHAT: &str = "the tokens";

    fn files(&self) -> Vec<&Path> {
        self.tokens_file.iter().map(|file| file.as_path()).collect()
    }

    fn read(&self) -> Result<Vec<Known>, Unusable> {
        let fixed = self.tokens.iter();
        let fixed = fixed.map(|(name, hash)| (name.clone(), hash.clone()));
        let mut known: Vec<Known> = fixed.collect();
        if let Some(file) = &self.tokens_file {
            let unusable = |problem| Unusable::of("auth.tokens_file", file, problem);
            let text = std::fs::read_to_string(file)
                .map_err(|error| unusable(format!("cannot be read: {error}")))?;
            known.extend(lines(&text).map_err(unusable)?);
        }
        if known.is_empty() {
            tracing::warn!("no token is known, so all calls but health are refused ([auth])");
        }
        Ok(known)
    }
}

/// `NAME SHA256` a line. What is wrong with one is said without repeating it, since it may hold the
/// token itself. A name may have several tokens, so that one can be replaced by another.
fn lines(text: &str) -> Result<Vec<Known>, String> {
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

/// The tokens in force.
pub struct Auth {
    known: Arc<Watched<config::Auth>>,
    refused: Mutex<Refused>,
}

/// Refused calls that the log does not have yet.
#[derive(Default)]
struct Refused {
    calls: u64,
    told: Option<Instant>,
}

impl Auth {
    pub fn new(known: Arc<Watched<config::Auth>>) -> Self {
        Self {
            known,
            refused: Mutex::default(),
        }
    }

    /// With what a call may go on, if it may.
    fn admits<B>(&self, request: &Request<B>) -> Option<Pass> {
        let method = request.uri().path();
        let info = request.extensions().get::<Peer<TcpConnectInfo>>();
        let peer = info.and_then(|peer| peer.info.remote_addr);
        let known = self.known.current();
        let token = token(request.headers()).map(TokenHash::of);
        let found = token.and_then(|token| Some((find(&known, &token)?.clone(), token)));
        let Some((name, token)) = found else {
            self.refuse(method, peer);
            return None;
        };
        let peer = peer.map(tracing::field::display);
        tracing::debug!(token = %name, method, peer, "accepted a call");
        let known = self.known.clone();
        Some(Pass { known, name, token })
    }

    fn refuse(&self, method: &str, peer: Option<SocketAddr>) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.calls += 1;
        if refused.told.is_none_or(|told| told.elapsed() >= TELL) {
            let calls = std::mem::take(&mut refused.calls);
            refused.told = Some(Instant::now());
            let peer = peer.map(tracing::field::display);
            tracing::info!(method, peer, calls, "refused: no token that is known here");
        }
    }
}

/// What a call was let in with. Calls that last have to look whether it still holds.
#[derive(Clone)]
pub struct Pass {
    known: Arc<Watched<config::Auth>>,
    name: Name,
    token: TokenHash,
}

impl Pass {
    /// Begins to look.
    pub fn watch(self) -> WatchedPass {
        let mut known = self.known.changes();
        // It may have been taken out since the call was let in.
        known.mark_changed();
        WatchedPass { pass: self, known }
    }
}

/// A pass, and what has become of the tokens since.
pub struct WatchedPass {
    pass: Pass,
    known: watch::Receiver<Arc<Vec<Known>>>,
}

impl WatchedPass {
    /// Comes back once the token is known no more. Nothing is lost when this is dropped before.
    pub async fn revoked(&mut self) {
        while self.known.changed().await.is_ok() {
            if find(&self.known.borrow_and_update(), &self.pass.token).is_none() {
                tracing::info!(token = %self.pass.name, "ended a stream: its token was taken out");
                return;
            }
        }
        // The server has gone, and ends its streams by itself.
        std::future::pending().await
    }
}

/// What stands behind `Bearer`.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// Which of the known tokens this is. Each is compared as a whole, and all of them: how long it takes
/// says nothing about any.
fn find<'a>(known: &'a [Known], given: &TokenHash) -> Option<&'a Name> {
    let mut found = None;
    for (name, hash) in known {
        if hash.as_bytes().ct_eq(given.as_bytes()).into() {
            found = Some(name);
        }
    }
    found
}

/// Puts `Auth` before everything that a server serves; without one, all may pass.
#[derive(Clone)]
pub struct Authenticate(pub Option<Arc<Auth>>);

impl<S> Layer<S> for Authenticate {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        let auth = self.0.clone();
        Authenticated { auth, inner }
    }
}

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
            && !request.uri().path().starts_with(OPEN)
        {
            let Some(pass) = auth.admits(&request) else {
                return Either::Right(ready(Ok(status::unauthenticated().into_http())));
            };
            request.extensions_mut().insert(pass);
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
        let text = format!("# who\n\nci {one}  # since May\r\n\tann\t{two}\nci {two}\n");
        let known = lines(&text).unwrap();
        let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["ci", "ann", "ci"]);
        assert_eq!(find(&known, &one).unwrap().as_str(), "ci");
        assert_eq!(find(&known, &TokenHash::of(b"3")), None);
        for (line, told) in [
            ("hostel_secret".to_owned(), "line 2: a name and the SHA-256"),
            (
                "ci hostel_secret".to_owned(),
                "line 2: expected the SHA-256 of a token in 64",
            ),
            (format!("hostel/secret {one}"), "line 2: the name has other"),
            (format!("ci {one} hostel_secret"), "line 2: a name and"),
        ] {
            let error = lines(&format!("ci {one}\n{line}")).unwrap_err();
            assert!(error.starts_with(told), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_bearer_token_is_what_the_header_holds() {
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
