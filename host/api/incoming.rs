//! One connection as the protocol sees it: encrypted where that is asked for, cut off when its
//! handshake takes too long, read in turns and written in few system calls. Knows no certificate.

use bytes::{Buf, BytesMut};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// The preface of HTTP/2, which belongs to the handshake.
const PREFACE_BYTES: usize = 24;

/// What is read of a connection in one turn. HTTP/2 reads all that it can get before it begins calls,
/// so this bounds how many a client can have begun and cancelled by then: with at least 35 bytes for
/// both, fewer than `serve::MIN_PENDING_RESETS`.
const TURN_BYTES: usize = 32 << 10;

/// How long a client whose handshake failed gets to take notice.
const FAREWELL: Duration = Duration::from_secs(1);

/// The most that is held back to be sent together.
const MAX_HELD_BYTES: usize = 16 << 10;

/// An open connection.
pub struct Connection {
    stream: Wire,
    info: TcpConnectInfo,
    turn: Turn,
    /// Written and not sent.
    held: BytesMut,
    /// Whether a flush has let others go first.
    had_turn: bool,
    /// Until the preface is there: how much of it is missing, and until when it may be.
    handshake: Option<(usize, Pin<Box<Sleep>>)>,
}

/// What may still be read before others have their turn. Clones are the same turn.
#[derive(Clone, Default)]
pub struct Turn(Arc<AtomicUsize>);

/// Plain or encrypted. The latter is large, and most of it is needed seldom.
type Wire = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection that nothing has come through yet.
pub struct Accepted {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    /// Until when the handshake has to be done.
    pub deadline: Instant,
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
    /// The connection once it is encrypted, if it is to be.
    pub async fn open(self, acceptor: Option<TlsAcceptor>) -> Option<Connection> {
        match acceptor {
            Some(acceptor) => self.encrypted(acceptor).await,
            None => {
                let info = self.stream.connect_info();
                let stream = Either::Left(self.stream);
                Some(Connection::new(stream, info, self.deadline))
            }
        }
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
        Some(Connection::new(stream, info, self.deadline))
    }
}

impl Turn {
    /// Begins another turn.
    pub fn renew(&self) {
        self.0.store(TURN_BYTES, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn take(&self, bytes: usize) {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turn.is_over() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        self.turn.take(count);
        if let Some((missing, deadline)) = &mut self.handshake {
            *missing = missing.saturating_sub(count);
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
    fn new(stream: Wire, info: TcpConnectInfo, deadline: Instant) -> Self {
        Self {
            stream,
            info,
            turn: Turn::default(),
            held: BytesMut::new(),
            had_turn: false,
            handshake: Some((PREFACE_BYTES, Box::pin(sleep_until(deadline)))),
        }
    }

    pub fn info(&self) -> TcpConnectInfo {
        self.info.clone()
    }

    /// To be renewed whenever the connection is polled anew.
    pub fn turn(&self) -> Turn {
        self.turn.clone()
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
