//! Serves each connection over HTTP/2 until it ends: by itself, at its maximum age, after idling, to make
//! room for another, or with the server. Sets all limits of HTTP/2.

use super::{
    super::{security::Security, status},
    calls::Calls,
    connection::Turn,
    connection_limit::{Activity, ConnectionLimit, ConnectionPermit},
    listener::{Accepted, accept},
    share::{Share, Shares},
};
use crate::{config::Limits, log_limit::LogLimit};
use hyper::{Request, Response, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::{poll_fn, ready},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes};
use tower::{Layer, Service};

/// How long a client may take for the TLS handshake and the preface of HTTP/2. Keep-alive detects later
/// silence.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many connections may wait for a permit or for their refusal. More wait in the kernel's queue.
const MAX_WAITING: usize = 64;

/// How long a refused connection may take to make its first call and receive the refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a closing connection may stay idle.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many streams of one connection may be reset by protocol errors before it is closed.
const MAX_ERROR_RESETS: usize = 1024;

/// How many calls that were cancelled before they began a connection may have: this many for each stream
/// that it may open, and at least `MIN_PENDING_RESETS`. Clients with deadlines do cancel all of their
/// calls, again and again.
const PENDING_RESETS_PER_STREAM: usize = 4;
const MIN_PENDING_RESETS: usize = 1024;

/// The flow-control window of each call and of each connection: what a client may send before the node
/// has read it.
const WINDOW: u32 = 1 << 20;

/// From how much on HTTP/2 takes no more of a response until some of it is sent. Small messages count little
/// until they are sent, so few may gather; a piece of a large one is taken whole, and the next waits in the
/// budget. The socket's own buffer keeps the line busy.
const SEND_BUFFER: usize = 16 << 10;

const MAX_HEADER_LIST: u32 = 16 * 1024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A service that answers the calls of a connection.
pub trait CallService:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> CallService for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// The state that all connections of a server share.
struct Shared<L> {
    limit: Arc<ConnectionLimit>,
    shares: Arc<Shares>,
    http: http2::Builder<TokioExecutor>,
    security: Arc<Security>,
    routes: Routes,
    /// The layers before the routes, created anew for each connection.
    layers: L,
    max_age: Duration,
    idle_timeout: Duration,
    handshake: Duration,
    end: CancellationToken,
}

/// Serves `routes` behind `layers` until `end`, and then until all connections have closed.
pub fn serve<L, S>(
    listener: TcpListener,
    security: Arc<Security>,
    limits: &Limits,
    shares: Arc<Shares>,
    routes: Routes,
    layers: L,
    end: CancellationToken,
) -> impl Future<Output = ()> + Send + use<L, S>
where
    L: Layer<Routes, Service = S> + Send + Sync + 'static,
    S: CallService,
{
    let shared = Shared {
        limit: ConnectionLimit::new(limits.max_connections),
        shares,
        http: http2_settings(limits),
        security,
        routes: routes.prepare(),
        layers,
        max_age: limits.max_connection_age,
        idle_timeout: limits.idle_timeout,
        handshake: HANDSHAKE_TIMEOUT,
        end,
    };
    shared.run(listener)
}

fn http2_settings(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let streams = limits.max_streams_per_connection;
    let resets = PENDING_RESETS_PER_STREAM * streams as usize;
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_pending_accept_reset_streams(resets.max(MIN_PENDING_RESETS))
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    http
}

impl<L, S> Shared<L>
where
    L: Layer<Routes, Service = S> + Send + Sync + 'static,
    S: CallService,
{
    async fn run(self, listener: TcpListener) {
        let shared = Arc::new(self);
        let waiting = Arc::new(Semaphore::new(MAX_WAITING));
        let log_limit = LogLimit::of_retries();
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = shared.end.cancelled() => break,
                (accepted, waits) = accept(&listener, &waiting, shared.handshake, &log_limit) => {
                    let shared = shared.clone();
                    open.spawn(async move {
                        let permit = match shared.limit.try_permit() {
                            None => shared.limit.make_room(accepted.peer).await,
                            permit => permit,
                        };
                        match permit {
                            None => shared.refuse(accepted).await,
                            Some(permit) => {
                                drop(waits);
                                shared.connection(accepted, permit).await;
                            }
                        }
                    });
                }
                Some(ended) = open.join_next() => log_panic(ended),
            }
        }
        drop(listener);
        while let Some(ended) = open.join_next().await {
            log_panic(ended);
        }
    }

    /// Serves one connection, from the handshake until it closes.
    async fn connection(&self, accepted: Accepted, permit: ConnectionPermit) {
        let activity = permit.activity();
        let opened = tokio::select! {
            opened = accepted.handshake(self.security.acceptor()) => opened,
            () = activity.must_close() => return,
            () = self.end.cancelled() => return,
        };
        let Some(connection) = opened else {
            return;
        };
        let share = self.shares.share();
        let calls = Calls {
            service: self.layers.layer(self.routes.clone()),
            activity: activity.clone(),
            peer: connection.info(),
            share: share.clone(),
        };
        let turn = connection.turn();
        let io = TokioIo::new(connection);
        let mut http = pin!(self.http.serve_connection(io, calls));
        let makes_room = tokio::select! {
            ended = in_turns(http.as_mut(), &turn) => return log(ended),
            () = share.stalled() => return,
            () = activity.must_close() => true,
            () = activity.idle_for(self.idle_timeout) => false,
            () = sleep(self.max_age) => false,
            () = self.end.cancelled() => false,
        };
        // It accepts no more calls, finishes those that it has, and closes.
        http.as_mut().graceful_shutdown();
        activity.touch();
        tokio::select! {
            ended = in_turns(http.as_mut(), &turn) => log(ended),
            () = share.stalled() => {}
            () = idle(activity, &share, makes_room) => {}
        }
    }

    /// Answers the first call of a connection that got no permit with the reason.
    async fn refuse(&self, accepted: Accepted) {
        let refused = CancellationToken::new();
        let max = self.limit.max();
        let answer = service_fn(|_| {
            refused.cancel();
            let refusal = status::too_many_connections(max).into_http::<Body>();
            ready(Ok::<_, Infallible>(refusal))
        });
        let refusal = async {
            let Some(connection) = accepted.handshake(self.security.acceptor()).await else {
                return;
            };
            let turn = connection.turn();
            let io = TokioIo::new(connection);
            let mut http = pin!(self.http.serve_connection(io, answer));
            tokio::select! {
                ended = in_turns(http.as_mut(), &turn) => return log(ended),
                () = refused.cancelled() => {}
            }
            http.as_mut().graceful_shutdown();
            log(in_turns(http.as_mut(), &turn).await);
        };
        tokio::select! {
            _ = timeout(REFUSAL_TIMEOUT, refusal) => {}
            () = self.end.cancelled() => {}
        }
    }
}

/// Waits until a closing connection has been idle and has nothing left to send. One that makes room does not
/// wait for calls that need no token.
async fn idle(activity: &Activity, share: &Share, makes_room: bool) {
    loop {
        if makes_room {
            activity.unused_for(CLOSE_TIMEOUT).await;
        } else {
            activity.idle_for(CLOSE_TIMEOUT).await;
        }
        // The end of a response may still be on its way.
        if !share.has_unread() {
            return;
        }
        sleep(CLOSE_TIMEOUT).await;
    }
}

/// Polls `connection` with a new turn to read each time.
async fn in_turns<F: Future>(mut connection: Pin<&mut F>, turn: &Turn) -> F::Output {
    poll_fn(|context| {
        turn.renew();
        connection.as_mut().poll(context)
    })
    .await
}

/// Logs the failure of a connection, at debug level: any client can cause one.
fn log(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!("a connection failed: {error}");
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!("serving a connection failed: {error}");
    }
}

#[cfg(test)]
mod tests;
