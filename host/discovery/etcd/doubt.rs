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
use tokio::net::{TcpStream, lookup_host};

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
    let asked = tokio::time::timeout(ANSWER, ask_all(address)).await;
    asked.unwrap_or(Answer::Nothing)
}

/// A name may have several addresses: one that listens is enough, and all have to refuse.
async fn ask_all(address: &str) -> Answer {
    // A name that is not known here, or not now, says nothing.
    let Ok(addresses) = lookup_host(address).await else {
        return Answer::Nothing;
    };
    let mut all = None;
    for address in addresses {
        match (ask_one(address).await, all) {
            (Answer::Listens, _) => return Answer::Listens,
            (Answer::Refused, None | Some(Answer::Refused)) => all = Some(Answer::Refused),
            (Answer::Refused | Answer::Nothing, _) => all = Some(Answer::Nothing),
        }
    }
    all.unwrap_or(Answer::Nothing)
}

async fn ask_one(address: SocketAddr) -> Answer {
    // A node that listens everywhere may say so, and that leads from here to here.
    if address.ip().to_canonical().is_unspecified() || address.port() == 0 {
        return Answer::Nothing;
    }
    match TcpStream::connect(address).await {
        Ok(_) => Answer::Listens,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Answer::Refused,
        Err(_) => Answer::Nothing,
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn names_are_looked_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let named = format!("localhost:{port}");
        assert_eq!(ask(&named).await, Answer::Listens);
        drop(listener);
        assert_eq!(ask(&named).await, Answer::Refused);
        for unknown in [
            &format!("0.0.0.0:{port}"),
            "no-such-host.invalid:1",
            "a:b",
            "",
        ] {
            assert_eq!(ask(unknown).await, Answer::Nothing, "{unknown}");
        }
    }
}
