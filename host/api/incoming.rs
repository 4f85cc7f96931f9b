//! The listener's connections, encrypted where that is asked for, and never more than allowed at
//! once: a further one waits in the kernel's queue until another is closed. Knows no certificate.

use super::Access;
use bytes::{Buf, BytesMut};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, Sleep, sleep_until, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::Stream;
use tokio_util::either::Either;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// How long to wait when the system has no descriptor left, before accepting again.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// How long a client may take for the handshake of TLS and to send the preface of HTTP/2, and how
/// long that is in bytes. Later silence is found by keep-alive.
const HANDSHAKE: Duration = Duration::from_secs(10);
const PREFACE_BYTES: usize = 24;

/// How long a client whose handshake failed gets to take notice.
const FAREWELL: Duration = Duration::from_secs(1);

/// The most that is held back to be sent together.
const MAX_HELD_BYTES: usize = 16 << 10;

/// A connection and its place among those allowed.
pub struct Connection {
    stream: Wire,
    info: TcpConnectInfo,
    /// Written and not sent.
    held: BytesMut,
    /// Whether a flush has let others go first.
    had_turn: bool,
    /// Until the preface is there: how much of it is missing, and until when it may be.
    handshake: Option<(usize, Pin<Box<Sleep>>)>,
    _place: OwnedSemaphorePermit,
}

/// Plain or encrypted. The latter is large, and most of it is needed seldom.
type Wire = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Accepts for ever; at most `max` connections are open at once.
pub fn connections(
    listener: TcpListener,
    max: usize,
    access: Arc<Access>,
) -> impl Stream<Item = io::Result<Connection>> {
    within(HANDSHAKE, listener, max, access)
}

fn within(
    handshake: Duration,
    listener: TcpListener,
    max: usize,
    access: Arc<Access>,
) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(max));
    async_stream::stream! {
        // Beside each other, so that one that takes its time delays nobody. They end with the stream.
        let mut handshakes = JoinSet::new();
        loop {
            let next = tokio::select! {
                accepted = accept(&listener, &places, handshake) => match access.acceptor() {
                    None => Some(accepted.plain()),
                    Some(acceptor) => {
                        handshakes.spawn(accepted.encrypted(acceptor));
                        None
                    }
                },
                Some(done) = handshakes.join_next() => done.ok().flatten(),
            };
            if let Some(connection) = next {
                yield Ok(connection);
            }
        }
    }
}

/// A connection that nothing has come through yet.
struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    deadline: Instant,
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>, handshake: Duration) -> Accepted {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            // Nobody closes it.
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and complete: waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                let deadline = Instant::now() + handshake;
                return Accepted {
                    stream,
                    peer,
                    place,
                    deadline,
                };
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(OUT_OF_FILES).await;
            }
        }
    }
}

/// TLS has said what is wrong. With what the client went on to send still unread, closing would reset
/// the connection, and it would never hear that.
async fn farewell(mut stream: TcpStream) {
    let mut rest = [0; 1024];
    if stream.shutdown().await.is_ok() {
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    }
}

impl Accepted {
    fn plain(self) -> Connection {
        let info = self.stream.connect_info();
        Connection::new(Either::Left(self.stream), info, self.deadline, self.place)
    }

    /// `None` when the client cannot do what is asked of it, or not in time. That is its own matter;
    /// anybody can cause it, so the log says little.
    async fn encrypted(self, acceptor: TlsAcceptor) -> Option<Connection> {
        let peer = self.peer;
        let info = self.stream.connect_info();
        let handshake = acceptor.accept(self.stream).into_fallible();
        let stream = match timeout_at(self.deadline, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, stream))) => {
                tracing::debug!(%peer, "no TLS handshake: {error}");
                let deadline = self.deadline.min(Instant::now() + FAREWELL);
                let _ = timeout_at(deadline, farewell(stream)).await;
                return None;
            }
            Err(_) => {
                tracing::debug!(%peer, "no TLS handshake in time");
                return None;
            }
        };
        let stream = Either::Right(Box::new(stream));
        Some(Connection::new(stream, info, self.deadline, self.place))
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some((missing, deadline)) = &mut self.handshake {
            *missing = missing.saturating_sub(buffer.filled().len() - before);
            if *missing == 0 {
                self.handshake = None;
            } else if deadline.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

/// What is written is held until the connection has had its turn once more: the answers to calls
/// that ended together then go out in one system call, where each would cost one of its own. Not
/// vectored: then h2 copies answers of up to 1 KiB into the buffer that holds their headers and
/// trailers.
impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() + bytes.len() <= MAX_HELD_BYTES {
            self.held.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() && !self.had_turn {
            self.had_turn = true;
            // Behind everything that is ready to run on this thread.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_send(context))?;
        self.had_turn = false;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connection {
    fn new(
        stream: Wire,
        info: TcpConnectInfo,
        deadline: Instant,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            stream,
            info,
            held: BytesMut::new(),
            had_turn: false,
            handshake: Some((PREFACE_BYTES, Box::pin(sleep_until(deadline)))),
            _place: place,
        }
    }

    /// Sends all that is held.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let sent = Pin::new(&mut self.stream).poll_write(context, &self.held);
            match ready!(sent)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.held.advance(sent),
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
