//! Keeps this node's record in etcd under a lease. A renewal counts once etcd has confirmed it; after a
//! loss the node takes a new lease and writes its record again.

use super::{
    cluster_view::ClusterView,
    keyspace::{Entry, RegisteredNode},
    liveness_probe::{ProbeResult, probe},
    server::{Server, backoff, lease_seconds},
};
use crate::{error::Error, record::NodeRecord};
use etcd_client::{Client, Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse};
use hostel_runtime::health::{Health, Part};
use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The faults of a node that is not registered, or whose id another node has.
const UNREGISTERED: &str = "unregistered";
const ID_TAKEN: &str = "id-taken";

/// The state of a node's registration.
#[derive(Debug, Clone)]
pub(super) enum RegistrationState {
    /// Not in etcd, for this reason.
    Unregistered {
        why: String,
        /// Whether its lease ended, so that another node may have the id by now.
        id_contested: bool,
    },
    /// In etcd, for as long as a lease lasts from `renewed` on.
    Registered { renewed: Instant },
    /// Another node has this node's id.
    Taken { address: String, since: Instant },
}

impl RegistrationState {
    /// Whether the id may be another node's. A lease lasts for `ttl`.
    pub fn is_id_contested(&self, ttl: Duration) -> bool {
        match self {
            Self::Unregistered { id_contested, .. } => *id_contested,
            Self::Registered { renewed } => renewed.elapsed() > ttl,
            Self::Taken { .. } => true,
        }
    }
}

/// The registration of this node, kept until `stop` is cancelled.
#[derive(Clone)]
pub(super) struct Registration {
    pub server: Arc<Server>,
    pub view: Arc<ClusterView>,
    pub prefix: String,
    pub ttl: Duration,
    /// Distinguishes this node's record from one that another node wrote under the same id.
    pub instance: String,
    pub record: watch::Receiver<NodeRecord>,
    pub state: watch::Sender<RegistrationState>,
    pub health: Health,
    pub stop: CancellationToken,
}

/// Why a session with etcd ended.
enum Ended {
    Error(Error),
    /// etcd has ended the lease, which removed the record.
    Lost,
    Taken(String),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Registration {
    pub async fn run(mut self) {
        let stop = self.stop.clone();
        let mut lease = None;
        let keeping = self.keep(&mut lease);
        tokio::select! {
            () = stop.cancelled() => {}
            () = keeping => {}
        }
        if let Some(lease) = lease
            && let Err(error) = self.revoke(lease).await
        {
            let ttl = self.ttl;
            tracing::warn!("this node's record stays in etcd for up to {ttl:?}: {error}");
        }
    }

    async fn revoke(&self, lease: i64) -> Result<(), Error> {
        let mut client = self.server.connect().await?;
        self.server.within(client.lease_revoke(lease)).await?;
        Ok(())
    }

    async fn keep(&mut self, lease: &mut Option<i64>) {
        let mut backoff = backoff();
        loop {
            let since = Instant::now();
            let Err(why) = self.session(lease).await;
            self.report(why);
            if since.elapsed() > self.ttl {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Updates the state after a session, and reports a fault once.
    fn report(&self, why: Ended) {
        let before = self.state.borrow().clone();
        let now = match (why, before) {
            (Ended::Error(why), RegistrationState::Registered { renewed }) => {
                // The next session finds out which node has the id, or that etcd is away.
                let id_contested = renewed.elapsed() > self.ttl;
                self.unregistered(why.reason(), id_contested)
            }
            // While etcd is away, the node that has the id keeps it.
            (Ended::Error(_) | Ended::Lost, RegistrationState::Taken { address, since }) => {
                RegistrationState::Taken { address, since }
            }
            (Ended::Error(why), RegistrationState::Unregistered { .. }) => {
                RegistrationState::Unregistered {
                    why: why.reason(),
                    id_contested: false,
                }
            }
            (Ended::Lost, _) => self.unregistered("etcd has ended the lease".into(), true),
            (Ended::Taken(address), RegistrationState::Taken { since, .. }) => {
                RegistrationState::Taken { address, since }
            }
            (Ended::Taken(address), _) => {
                let id = &self.record.borrow().id;
                self.health.report(
                    Part::Discovery,
                    ID_TAKEN,
                    format!(
                        "another node, at {address}, has the id {id} in this cluster; until its \
                         record ends, this node is not registered (node.id)"
                    ),
                );
                let since = Instant::now();
                RegistrationState::Taken { address, since }
            }
        };
        self.state.send_replace(now);
    }

    fn unregistered(&self, why: String, id_contested: bool) -> RegistrationState {
        self.health.warn(
            Part::Discovery,
            UNREGISTERED,
            format!("this node's record is not renewed in etcd: {why}"),
        );
        RegistrationState::Unregistered { why, id_contested }
    }

    /// Registers the node and renews its lease until that fails.
    async fn session(&mut self, lease: &mut Option<i64>) -> Result<Infallible, Ended> {
        let server = self.server.clone();
        let mut client = server.connect().await?;
        // A lease may have outlived its connection.
        let kept = match *lease {
            Some(id) => server.within(client.lease_keep_alive(id)).await.ok(),
            None => None,
        };
        let (mut keeper, mut answers) = match kept {
            Some(kept) => kept,
            None => {
                let granted = client.lease_grant(lease_seconds(self.ttl), None);
                let id = server.within(granted).await?.id();
                *lease = Some(id);
                server.within(client.lease_keep_alive(id)).await?
            }
        };
        let id = keeper.id();
        self.register(&mut client, id).await?;
        let mut tick = tokio::time::interval(self.ttl * 3 / 10);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let view = self.view.clone();
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    // A renewal that was sent is not confirmed before its answer.
                    server.within(keeper.keep_alive()).await?;
                    let answer = server.within(answers.message()).await?;
                    if answer.is_none_or(|answer| answer.ttl() <= 0) {
                        return Err(Ended::Lost);
                    }
                    self.set_registered();
                }
                changed = self.record.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    self.register(&mut client, id).await?;
                }
                () = view.own_is_missing.notified() => {
                    // It may have been written since the signal.
                    if !view.lock().has_own() {
                        tracing::warn!("this node's record is not in etcd; writing it again");
                        self.register(&mut client, id).await?;
                    }
                }
            }
        }
    }

    fn set_registered(&self) {
        let renewed = Instant::now();
        self.state
            .send_replace(RegistrationState::Registered { renewed });
    }

    /// Writes the record unless another node has the id.
    async fn register(&mut self, client: &mut Client, lease: i64) -> Result<(), Ended> {
        let record = self.record.borrow_and_update().clone();
        let instance = self.instance.clone();
        let entry = Entry::Node(RegisteredNode { record, instance });
        let key = entry.key().path(&self.prefix);
        let value = entry
            .value()
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        let mut expected = 0;
        for _ in 0..3 {
            let unchanged = Compare::mod_revision(key.clone(), CompareOp::Equal, expected);
            let options = PutOptions::new().with_lease(lease);
            let put = TxnOp::put(key.clone(), value.clone(), Some(options));
            let txn = Txn::new()
                .when([unchanged])
                .and_then([put])
                .or_else([TxnOp::get(key.clone(), None)]);
            let done = self.server.within(client.txn(txn)).await?;
            if done.succeeded() {
                let revision = done.header().map_or(0, |header| header.revision());
                self.view.lock().apply_write(entry, revision);
                self.set_registered();
                self.health.clear(Part::Discovery, UNREGISTERED);
                self.health.clear(Part::Discovery, ID_TAKEN);
                return Ok(());
            }
            // An earlier record of this node may be replaced, if it does not change meanwhile.
            expected = match found(done.op_responses()) {
                None => 0,
                Some(pair) => self.may_replace(&entry, &pair).await?,
            };
        }
        let busy = "this node's record in etcd changes with every attempt to write it";
        Err(Error::Unavailable(busy.into()).into())
    }

    /// Returns the revision of the record under this node's id if it may be replaced: if this instance
    /// wrote it, from this address or from one that refuses connections. A node with a copy of this
    /// node's data directory has the same instance, but listens at its own address.
    async fn may_replace(&self, own: &Entry, pair: &KeyValue) -> Result<i64, Ended> {
        let Ok(Entry::Node(other)) = Entry::parse(&own.key(), pair.value()) else {
            return Err(Ended::Taken("an unknown address".into()));
        };
        let address = other.record.address;
        let is_here = matches!(own, Entry::Node(own) if own.record.address == address);
        let is_own = other.instance == self.instance;
        if is_own && (is_here || probe(&address).await == ProbeResult::Refused) {
            Ok(pair.mod_revision())
        } else {
            Err(Ended::Taken(address))
        }
    }
}

/// Returns the pair that a failed transaction has read.
fn found(answers: Vec<TxnOpResponse>) -> Option<KeyValue> {
    match answers.into_iter().next()? {
        TxnOpResponse::Get(mut got) => got.take_kvs().into_iter().next(),
        _ => None,
    }
}
