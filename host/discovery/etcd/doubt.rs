//! Nodes that went from etcd all at once are asked themselves: who refuses is gone, who listens is
//! kept. Tells nobody about it but the view.

use super::watcher::Seen;
use futures_util::future::join_all;
use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

/// How long one may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How long after one round of questions the next one begins.
const AGAIN: Duration = Duration::from_secs(1);

/// What comes back from a node's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Somebody listens there.
    Listens,
    /// The machine is there, and nobody listens.
    Refused,
    /// Nothing that would say either: the address is unknown here, or the way there is cut.
    Nothing,
}

/// Connects, and says nothing.
pub(super) async fn ask(address: &str) -> Answer {
    // A node that listens everywhere says so, and that leads from here to here.
    let everywhere = |address: SocketAddr| address.ip().is_unspecified() || address.port() == 0;
    if address.parse().is_ok_and(everywhere) {
        return Answer::Nothing;
    }
    match tokio::time::timeout(ANSWER, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Answer::Listens,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Answer::Refused,
        Ok(Err(_)) | Err(_) => Answer::Nothing,
    }
}

/// Asks those that are in doubt, again and again until there are none; for ever.
pub(super) async fn settle(seen: Arc<Seen>) {
    let mut changed = seen.view().changed();
    loop {
        changed.mark_unchanged();
        let next = seen.view().expire(Instant::now());
        let Some(next) = next else {
            // The sender is in the view, so it is not closed.
            let _ = changed.changed().await;
            continue;
        };
        let doubtful = seen.view().doubtful();
        let answers = doubtful.iter().map(|(_, address)| ask(address));
        let answers = join_all(answers).await;
        for ((node, _), answer) in doubtful.into_iter().zip(answers) {
            match answer {
                Answer::Listens => seen.view().answered(&node, Instant::now()),
                Answer::Refused => {
                    tracing::info!(%node, "refuses connections: it has gone");
                    seen.view().refused(&node);
                }
                Answer::Nothing => {}
            }
        }
        tokio::time::sleep_until(next.min(Instant::now() + AGAIN).into()).await;
    }
}
