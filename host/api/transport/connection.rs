//! One connection as HTTP/2 sees it: read in turns, written in few system calls, and closed if its
//! handshake takes too long.

use bytes::{Buf, BytesMut};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tonic::transport::server::TcpConnectInfo;

/// The size of the preface of HTTP/2, which is part of the handshake.
const PREFACE_BYTES: usize = 24;

/// The most that is read from a connection in one turn. HTTP/2 reads all that is available before it
/// begins calls, so this bounds how many calls a client can have begun and cancelled by then: with at
/// least 35 bytes for both, fewer than `serve::MIN_PENDING_RESETS`.
const TURN_BYTES: usize = 32 << 10;

/// The most that is buffered to be sent together.
const MAX_BUFFERED_BYTES: usize = 16 << 10;

/// An open connection.
pub struct Connection {
    stream: Stream,
    info: TcpConnectInfo,
    turn: Turn,
    /// Written by HTTP/2 and not sent yet.
    buffered: BytesMut,
    /// Whether a flush has already let other tasks run first.
    had_turn: bool,
    /// Until the preface has arrived: how many bytes of it are missing, and the deadline.
    handshake: Option<(usize, Pin<Box<Sleep>>)>,
}

/// The bytes that may still be read before other connections have their turn. Clones are the same turn.
#[derive(Clone, Default)]
pub struct Turn(Arc<AtomicUsize>);

/// A plain or an encrypted stream. The TLS state is boxed because it is large.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Turn {
    /// Begins the next turn.
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

/// A flush sends only after the other tasks that are ready have run: the responses to calls that end
/// together then leave in one system call. Writes are not vectored, so that h2 copies responses of up to
/// 1 KiB into the buffer with their headers and trailers.
impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.buffered.len() + bytes.len() <= MAX_BUFFERED_BYTES {
            self.buffered.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.buffered.is_empty() && !self.had_turn {
            self.had_turn = true;
            // Queued behind everything that is ready to run on this thread.
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
    /// A connection whose HTTP/2 preface has to arrive before `deadline`.
    pub fn new(stream: Stream, info: TcpConnectInfo, deadline: Instant) -> Self {
        Self {
            stream,
            info,
            turn: Turn::default(),
            buffered: BytesMut::new(),
            had_turn: false,
            handshake: Some((PREFACE_BYTES, Box::pin(sleep_until(deadline)))),
        }
    }

    pub fn info(&self) -> TcpConnectInfo {
        self.info.clone()
    }

    /// The turn of this connection, to be renewed whenever the connection is polled.
    pub fn turn(&self) -> Turn {
        self.turn.clone()
    }

    /// Sends all that is buffered.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffered.is_empty() {
            let sent = Pin::new(&mut self.stream).poll_write(context, &self.buffered);
            match ready!(sent)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.buffered.advance(sent),
            }
        }
        Poll::Ready(Ok(()))
    }
}
