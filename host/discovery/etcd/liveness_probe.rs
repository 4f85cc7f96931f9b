//! Probes nodes that etcd has lost all at once, by connecting to their addresses: a node that refuses is
//! removed from the view, and one that listens is kept.

use super::cluster_view::ClusterView;
use futures_util::future::join_all;
use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::net::{TcpStream, lookup_host};

/// How long a probe may take.
const ANSWER: Duration = Duration::from_secs(1);
/// The time between two rounds of probes.
const ROUND: Duration = Duration::from_secs(1);

/// The result of connecting to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeResult {
    /// A program listens there.
    Listening,
    /// The machine is reachable, and no program listens.
    Refused,
    /// Neither is known: the address cannot be resolved or reached.
    Unknown,
}

/// Connects to an address, without sending anything.
pub(super) async fn probe(address: &str) -> ProbeResult {
    let result = tokio::time::timeout(ANSWER, probe_all(address)).await;
    result.unwrap_or(ProbeResult::Unknown)
}

/// Probes all addresses of a name: it listens if one does, and refuses if all do.
async fn probe_all(address: &str) -> ProbeResult {
    let Ok(addresses) = lookup_host(address).await else {
        return ProbeResult::Unknown;
    };
    let mut all = None;
    for address in addresses {
        match (probe_one(address).await, all) {
            (ProbeResult::Listening, _) => return ProbeResult::Listening,
            (ProbeResult::Refused, None | Some(ProbeResult::Refused)) => {
                all = Some(ProbeResult::Refused)
            }
            (ProbeResult::Refused | ProbeResult::Unknown, _) => all = Some(ProbeResult::Unknown),
        }
    }
    all.unwrap_or(ProbeResult::Unknown)
}

async fn probe_one(address: SocketAddr) -> ProbeResult {
    // An unspecified address would lead to this machine.
    if address.ip().to_canonical().is_unspecified() || address.port() == 0 {
        return ProbeResult::Unknown;
    }
    match TcpStream::connect(address).await {
        Ok(_) => ProbeResult::Listening,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => ProbeResult::Refused,
        Err(_) => ProbeResult::Unknown,
    }
}

/// Probes unconfirmed nodes, round by round, until it is dropped.
pub(super) async fn run(view: Arc<ClusterView>) {
    let mut changed = view.lock().changed();
    loop {
        changed.mark_unchanged();
        let next = view.lock().expire(Instant::now());
        let Some(next) = next else {
            // The sender is in the view, so it is not closed.
            let _ = changed.changed().await;
            continue;
        };
        let unconfirmed = view.lock().unconfirmed();
        let probes = unconfirmed.iter().map(|(_, address)| probe(address));
        let results = join_all(probes).await;
        for ((node, _), result) in unconfirmed.into_iter().zip(results) {
            match result {
                ProbeResult::Listening => view.lock().probe_answered(&node, Instant::now()),
                ProbeResult::Refused => {
                    tracing::info!(%node, "the node refuses connections and is removed");
                    view.lock().probe_refused(&node);
                }
                ProbeResult::Unknown => {}
            }
        }
        tokio::time::sleep_until(next.min(Instant::now() + ROUND).into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn host_names_are_resolved() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let named = format!("localhost:{port}");
        assert_eq!(probe(&named).await, ProbeResult::Listening);
        drop(listener);
        assert_eq!(probe(&named).await, ProbeResult::Refused);
        for unknown in [
            &format!("0.0.0.0:{port}"),
            "no-such-host.invalid:1",
            "a:b",
            "",
        ] {
            assert_eq!(probe(unknown).await, ProbeResult::Unknown, "{unknown}");
        }
    }
}
