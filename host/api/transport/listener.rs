//! Accepts connections and performs their TLS handshakes, within a deadline.

use super::connection::Connection;
use crate::log_limit::LogLimit;
use rustix::io::Errno;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

/// How long to wait before accepting again when the process has no file descriptor left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// How long a client whose handshake failed may take to read the alert.
const ALERT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection before its handshake.
pub struct Accepted {
    stream: TcpStream,
    pub peer: SocketAddr,
    /// When the handshakes of TLS and HTTP/2 have to be complete.
    deadline: Instant,
}

/// Accepts the next connection, once `waiting` has a permit for one that waits for its place. Failures are
/// logged within `log_limit` and retried.
pub async fn accept(
    listener: &TcpListener,
    waiting: &Arc<Semaphore>,
    handshake: Duration,
    log_limit: &LogLimit,
) -> (Accepted, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = waiting.clone().acquire_owned().await else {
            // The semaphore is never closed.
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Responses are written as a whole: waiting to fill a packet would only delay them.
                let _ = stream.set_nodelay(true);
                let accepted = Accepted {
                    stream,
                    peer,
                    deadline: Instant::now() + handshake,
                };
                return (accepted, permit);
            }
            Err(error) => {
                if let Some(left_out) = log_limit.permit() {
                    tracing::warn!(left_out, "{}", describe(&error));
                }
                sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

/// Describes why a connection cannot be accepted, and what to do if the process or the machine has no file
/// descriptor left.
fn describe(error: &io::Error) -> String {
    let advice = match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            "; raise the limit of open files (ulimit -n, LimitNOFILE= in systemd), or lower \
             limits.max_connections"
        }
        Some(Errno::NFILE) => {
            "; raise the limit of open files of this machine (sysctl fs.file-max), or lower \
             limits.max_connections"
        }
        _ => "",
    };
    format!("cannot accept a connection: {error}{advice}")
}

impl Accepted {
    /// Performs the TLS handshake if there is an `acceptor`. Returns `None` if it fails or takes too long.
    /// Any client can cause that, so it is logged at debug level only.
    pub async fn handshake(self, acceptor: Option<TlsAcceptor>) -> Option<Connection> {
        let info = self.stream.connect_info();
        let Some(acceptor) = acceptor else {
            let stream = Either::Left(self.stream);
            return Some(Connection::new(stream, info, self.deadline));
        };
        let peer = self.peer;
        let handshake = acceptor.accept(self.stream).into_fallible();
        match timeout_at(self.deadline, handshake).await {
            Ok(Ok(stream)) => {
                let stream = Either::Right(Box::new(stream));
                Some(Connection::new(stream, info, self.deadline))
            }
            Ok(Err((error, stream))) => {
                tracing::debug!(%peer, "the TLS handshake failed: {error}");
                let deadline = self.deadline.min(Instant::now() + ALERT_TIMEOUT);
                let _ = timeout_at(deadline, deliver_alert(stream)).await;
                None
            }
            Err(_) => {
                tracing::debug!(%peer, "the TLS handshake timed out");
                None
            }
        }
    }
}

/// Reads what a client sends after a failed handshake until it closes the connection. Closing it with
/// unread bytes would reset it, and the client would never receive the TLS alert.
async fn deliver_alert(mut stream: TcpStream) {
    let mut rest = [0; 1024];
    if stream.shutdown().await.is_ok() {
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use tokio::time::timeout;

    #[test]
    fn advice_is_given_for_the_limit_that_was_reached() {
        let text = |errno: Errno| describe(&errno.into());
        let own = text(Errno::MFILE);
        assert!(
            own.contains("LimitNOFILE") && own.contains("limits.max_connections"),
            "{own}"
        );
        let machine = text(Errno::NFILE);
        assert!(machine.contains("fs.file-max"), "{machine}");
        assert!(!text(Errno::CONNABORTED).contains(';'));
    }

    #[tokio::test]
    async fn failures_to_accept_are_logged_within_the_limit() {
        // Once this socket of another kind has something to read, each attempt to accept fails.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        let listener = std::net::TcpListener::from(OwnedFd::from(socket));
        let listener = TcpListener::from_std(listener).unwrap();
        let log_limit = LogLimit::new(1, Duration::from_secs(3600));
        let waiting = Arc::new(Semaphore::new(1));
        let accepted = accept(&listener, &waiting, Duration::ZERO, &log_limit);
        assert!(timeout(ACCEPT_RETRY_DELAY * 4, accepted).await.is_err());
        assert_eq!(log_limit.permit(), None);
    }
}
