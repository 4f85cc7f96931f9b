//! The listener's connections, never more than allowed at once: a further one waits in the kernel's
//! queue until another is closed.

use bytes::{Buf, BytesMut};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// How long to wait when the system has no descriptor left, before accepting again.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// How long a client may take to send the preface of HTTP/2, and how long that is in bytes. Later
/// silence is found by keep-alive.
const HANDSHAKE: Duration = Duration::from_secs(10);
const PREFACE_BYTES: usize = 24;

/// The most that is held back to be sent together.
const MAX_HELD_BYTES: usize = 16 << 10;

/// A connection and its place among those allowed.
pub struct Connection {
    stream: TcpStream,
    /// Written and not sent.
    held: BytesMut,
    /// Whether a flush has let others go first.
    had_turn: bool,
    /// Until the preface is there: how much of it is missing, and until when it may be.
    handshake: Option<(usize, Pin<Box<Sleep>>)>,
    _place: OwnedSemaphorePermit,
}

/// Accepts for ever; at most `max` connections are open at once.
pub fn connections(
    listener: TcpListener,
    max: usize,
) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(max));
    async_stream::stream! {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Answers are small and complete: waiting to fill a packet only delays them.
                    let _ = stream.set_nodelay(true);
                    let handshake = Some((PREFACE_BYTES, Box::pin(tokio::time::sleep(HANDSHAKE))));
                    yield Ok(Connection {
                        stream,
                        held: BytesMut::new(),
                        had_turn: false,
                        handshake,
                        _place: place,
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(OUT_OF_FILES).await;
                }
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
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
