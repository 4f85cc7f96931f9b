//! Accepts connections and serves each until it ends: by itself, by its age, after it has been idle, to
//! make room, or with the server. Says every limit of HTTP/2. Knows no service; `server` does.

use super::{
    Access,
    calls::Calls,
    connections::{Activity, Connections, Place},
    incoming::{Accepted, Turn},
    share::{Peer, Share, Shares},
    status,
};
use crate::config::Limits;
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
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes};
use tower::{Layer, Service};

/// How long to wait when the system has no descriptor left, before accepting again.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// How long a client may take for the handshake of TLS and to send the preface of HTTP/2. Later
/// silence is found by keep-alive.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many connections may wait for a place or be told that there is none. Further ones wait in the
/// kernel's queue.
const MAX_WAITING: usize = 64;

/// How long one that gets no place may take to ask and be told so.
const REFUSAL: Duration = Duration::from_secs(3);

/// How long a connection without calls gets to go after it was told to.
const FAREWELL: Duration = Duration::from_secs(1);

/// How many streams of one connection may be reset by errors of its own before it is closed.
const MAX_ERROR_RESETS: usize = 1024;

/// How many calls that were cancelled before they began a connection may have, for each stream that it
/// may have open, and at least. Cancelling all of them again and again is what clients with deadlines
/// do.
const PENDING_RESETS_PER_STREAM: usize = 4;
pub const MIN_PENDING_RESETS: usize = 1024;

/// What a client may send before the node has looked at it, in each call and in all of a connection.
const WINDOW: u32 = 1 << 20;

const MAX_HEADER_LIST: u32 = 16 * 1024;
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// What answers the calls of a connection.
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

/// What all connections of a server share.
struct Shared<L> {
    connections: Arc<Connections>,
    shares: Arc<Shares>,
    http: http2::Builder<TokioExecutor>,
    access: Arc<Access>,
    routes: Routes,
    /// What calls come past, made anew for each connection.
    layers: L,
    max_age: Duration,
    idle_timeout: Duration,
    handshake: Duration,
    end: CancellationToken,
}

/// Serves `routes` behind `layers` until `end`, and then until all connections are done.
pub fn serve<L, S>(
    listener: TcpListener,
    access: Arc<Access>,
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
        connections: Connections::new(limits.max_connections),
        shares,
        http: protocol(limits),
        access,
        routes: routes.prepare(),
        layers,
        max_age: limits.max_connection_age,
        idle_timeout: limits.idle_timeout,
        handshake: HANDSHAKE,
        end,
    };
    shared.run(listener)
}

fn protocol(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let streams = limits.max_streams_per_connection;
    let resets = PENDING_RESETS_PER_STREAM * streams as usize;
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_pending_accept_reset_streams(resets.max(MIN_PENDING_RESETS))
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
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
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = shared.end.cancelled() => break,
                (accepted, seat) = accept(&listener, &waiting, shared.handshake) => {
                    let shared = shared.clone();
                    open.spawn(async move {
                        let place = match shared.connections.try_place() {
                            None => shared.connections.make_room(accepted.peer).await,
                            place => place,
                        };
                        match place {
                            None => shared.refuse(accepted).await,
                            Some(place) => {
                                drop(seat);
                                shared.connection(accepted, place).await;
                            }
                        }
                    });
                }
                Some(ended) = open.join_next() => report(ended),
            }
        }
        drop(listener);
        while let Some(ended) = open.join_next().await {
            report(ended);
        }
    }

    /// From the handshake to the end.
    async fn connection(&self, accepted: Accepted, place: Place) {
        let activity = place.activity();
        let opened = tokio::select! {
            opened = accepted.open(self.access.acceptor()) => opened,
            () = activity.asked_to_leave() => return,
            () = self.end.cancelled() => return,
        };
        let Some(connection) = opened else {
            return;
        };
        let share = self.shares.share();
        let calls = Calls {
            service: self.layers.layer(self.routes.clone()),
            activity: activity.clone(),
            peer: Peer {
                info: connection.info(),
                share: share.clone(),
            },
        };
        let turn = connection.turn();
        let io = TokioIo::new(connection);
        let mut http = pin!(self.http.serve_connection(io, calls));
        tokio::select! {
            ended = in_turns(http.as_mut(), &turn) => return log(ended),
            () = share.stalled() => return,
            () = activity.idle_for(self.idle_timeout) => {}
            () = activity.asked_to_leave() => {}
            () = sleep(self.max_age) => {}
            () = self.end.cancelled() => {}
        }
        // It takes no more calls, finishes those that it has, and then goes.
        http.as_mut().graceful_shutdown();
        activity.touch();
        tokio::select! {
            ended = in_turns(http.as_mut(), &turn) => log(ended),
            () = share.stalled() => {}
            () = done(activity, &share) => {}
        }
    }

    /// Answers the first call with why there is no place.
    async fn refuse(&self, accepted: Accepted) {
        let told = CancellationToken::new();
        let max = self.connections.max();
        let answer = service_fn(|_| {
            told.cancel();
            let refusal = status::no_place(max).into_http::<Body>();
            ready(Ok::<_, Infallible>(refusal))
        });
        let refusal = async {
            let Some(connection) = accepted.open(self.access.acceptor()).await else {
                return;
            };
            let turn = connection.turn();
            let io = TokioIo::new(connection);
            let mut http = pin!(self.http.serve_connection(io, answer));
            tokio::select! {
                ended = in_turns(http.as_mut(), &turn) => return log(ended),
                () = told.cancelled() => {}
            }
            http.as_mut().graceful_shutdown();
            log(in_turns(http.as_mut(), &turn).await);
        };
        tokio::select! {
            _ = timeout(REFUSAL, refusal) => {}
            () = self.end.cancelled() => {}
        }
    }
}

/// The next connection, once there is a seat to wait on.
async fn accept(
    listener: &TcpListener,
    waiting: &Arc<Semaphore>,
    handshake: Duration,
) -> (Accepted, OwnedSemaphorePermit) {
    loop {
        let Ok(seat) = waiting.clone().acquire_owned().await else {
            // The semaphore is never closed.
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and complete: waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                let deadline = Instant::now() + handshake;
                return (
                    Accepted {
                        stream,
                        peer,
                        deadline,
                    },
                    seat,
                );
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                sleep(OUT_OF_FILES).await;
            }
        }
    }
}

/// Returns when a connection has had nothing to do for a while.
async fn done(activity: &Activity, share: &Share) {
    loop {
        activity.idle_for(FAREWELL).await;
        // The end of an answer may still be on its way.
        if !share.has_unread() {
            return;
        }
        sleep(FAREWELL).await;
    }
}

/// Polls `connection` so that each time it is polled it has a turn to read.
async fn in_turns<F: Future>(mut connection: Pin<&mut F>, turn: &Turn) -> F::Output {
    poll_fn(|context| {
        turn.renew();
        connection.as_mut().poll(context)
    })
    .await
}

/// What ends a connection is its client's matter, and anybody can cause it.
fn log(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!("a connection failed: {error}");
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!("serving a connection failed: {error}");
    }
}

#[cfg(test)]
mod tests;
