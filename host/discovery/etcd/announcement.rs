//! Keeps this node's record in etcd: a lease, renewed by what etcd answers, and after any loss a
//! lease again and the record again. Reads nobody else's record but one that has this node's id.

use super::{
    super::{Error, NodeRecord},
    doubt::{self, Answer},
    entry::{Announced, Entry},
    server::{Pause, Server},
    watcher::Seen,
};
use etcd_client::{Client, Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse};
use hostel_runtime::health::{Health, Part};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The faults of a node whose record is not in etcd, or is another node's.
const UNREGISTERED: &str = "unregistered";
const ID_TAKEN: &str = "id-taken";

/// How far it is.
#[derive(Debug, Clone)]
pub(super) enum Standing {
    /// Not yet in etcd, for this reason.
    Outside {
        why: String,
        /// It was there, long enough ago that another node may have the id by now.
        in_doubt: bool,
    },
    /// It was, for as long as a lease holds from then on.
    Registered { renewed: Instant },
    /// Somebody else has this node's id since then.
    Taken { address: String, since: Instant },
}

impl Standing {
    /// Whether the id may be another node's, with a lease that holds for so long.
    pub fn is_in_doubt(&self, ttl: Duration) -> bool {
        match self {
            Self::Outside { in_doubt, .. } => *in_doubt,
            Self::Registered { renewed } => renewed.elapsed() > ttl,
            Self::Taken { .. } => true,
        }
    }
}

/// A record that is kept until it is told to stop.
#[derive(Clone)]
pub(super) struct Announcement {
    pub server: Arc<Server>,
    pub seen: Arc<Seen>,
    pub prefix: String,
    pub ttl: Duration,
    /// Tells this node's record from one that another node wrote under the same id.
    pub instance: String,
    pub wanted: watch::Receiver<NodeRecord>,
    pub standing: watch::Sender<Standing>,
    pub health: Health,
    pub stop: CancellationToken,
}

/// Why a session with etcd ended.
enum Ended {
    Error(Error),
    /// etcd has ended the lease, and the record with it.
    Lost,
    Taken(String),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Announcement {
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
        let mut pause = Pause::new();
        loop {
            let since = Instant::now();
            let why = self.session(lease).await;
            self.fell(why);
            if since.elapsed() > self.ttl {
                pause = Pause::new();
            }
            pause.wait().await;
        }
    }

    /// Says it once, and again where somebody has to act.
    fn fell(&self, why: Ended) {
        let before = self.standing.borrow().clone();
        let now = match (why, before) {
            (Ended::Error(why), Standing::Registered { renewed }) => {
                // The next session finds out, or that etcd is away.
                let in_doubt = renewed.elapsed() > self.ttl;
                self.outside(why.reason(), in_doubt)
            }
            // While etcd is away the id stays whose it was.
            (Ended::Error(_) | Ended::Lost, Standing::Taken { address, since }) => {
                Standing::Taken { address, since }
            }
            (Ended::Error(why), Standing::Outside { .. }) => Standing::Outside {
                why: why.reason(),
                in_doubt: false,
            },
            (Ended::Lost, _) => self.outside("etcd has ended the lease".into(), true),
            (Ended::Taken(address), Standing::Taken { since, .. }) => {
                Standing::Taken { address, since }
            }
            (Ended::Taken(address), _) => {
                let id = &self.wanted.borrow().id;
                self.health.report(
                    Part::Discovery,
                    ID_TAKEN,
                    format!(
                        "another node, at {address}, has the id {id} in this cluster; until its \
                         record ends, this node is not seen (node.id)"
                    ),
                );
                let since = Instant::now();
                Standing::Taken { address, since }
            }
        };
        self.standing.send_replace(now);
    }

    fn outside(&self, why: String, in_doubt: bool) -> Standing {
        self.health.warn(
            Part::Discovery,
            UNREGISTERED,
            format!("this node's record is not renewed in etcd: {why}"),
        );
        Standing::Outside { why, in_doubt }
    }

    /// Registers and renews until that fails.
    async fn session(&mut self, lease: &mut Option<i64>) -> Ended {
        match self.renew(lease).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn renew(&mut self, lease: &mut Option<i64>) -> Result<std::convert::Infallible, Ended> {
        let server = self.server.clone();
        let mut client = server.connect().await?;
        // A lease that outlived the connection goes on; etcd says whether it has.
        let held = match *lease {
            Some(id) => server.within(client.lease_keep_alive(id)).await.ok(),
            None => None,
        };
        let (mut keeper, mut answers) = match held {
            Some(held) => held,
            None => {
                let granted = client.lease_grant(seconds(self.ttl), None);
                let id = server.within(granted).await?.id();
                *lease = Some(id);
                server.within(client.lease_keep_alive(id)).await?
            }
        };
        let id = keeper.id();
        self.register(&mut client, id).await?;
        let mut tick = tokio::time::interval(self.ttl * 3 / 10);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let seen = self.seen.clone();
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    // That it was sent says nothing; what comes back does.
                    server.within(keeper.keep_alive()).await?;
                    let answer = server.within(answers.message()).await?;
                    if answer.is_none_or(|answer| answer.ttl() <= 0) {
                        return Err(Ended::Lost);
                    }
                    self.renewed();
                }
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    self.register(&mut client, id).await?;
                }
                () = seen.own_is_missing.notified() => {
                    // It may be back by now, or it was missing before it was first written.
                    if !seen.view().has_own() {
                        tracing::warn!("this node's record is not in etcd; writing it again");
                        self.register(&mut client, id).await?;
                    }
                }
            }
        }
    }

    fn renewed(&self) {
        let renewed = Instant::now();
        self.standing.send_replace(Standing::Registered { renewed });
    }

    /// Writes the record unless another node has it.
    async fn register(&mut self, client: &mut Client, lease: i64) -> Result<(), Ended> {
        let record = self.wanted.borrow_and_update().clone();
        let instance = self.instance.clone();
        let entry = Entry::Node(Announced { record, instance });
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
                self.seen.view().wrote(entry, revision);
                self.renewed();
                self.health.clear(Part::Discovery, UNREGISTERED);
                self.health.clear(Part::Discovery, ID_TAKEN);
                return Ok(());
            }
            // An earlier record of this very node may be replaced, as it stands.
            expected = match found(done.op_responses()) {
                None => 0,
                Some(pair) => self.may_replace(&entry, &pair).await?,
            };
        }
        let busy = "this node's record changes all the time in etcd";
        Err(Error::Unavailable(busy.into()).into())
    }

    /// The revision of a record that was this node's own: from this address, or from one where
    /// nobody listens any more. A copy of a data directory makes another node of the same instance,
    /// and that one listens.
    async fn may_replace(&self, own: &Entry, pair: &KeyValue) -> Result<i64, Ended> {
        let Ok(Entry::Node(other)) = Entry::parse(&own.key(), pair.value()) else {
            return Err(Ended::Taken("an unknown address".into()));
        };
        let address = other.record.address;
        let here = matches!(own, Entry::Node(own) if own.record.address == address);
        let own = other.instance == self.instance;
        match own && (here || doubt::ask(&address).await == Answer::Refused) {
            true => Ok(pair.mod_revision()),
            false => Err(Ended::Taken(address)),
        }
    }
}

fn found(answers: Vec<TxnOpResponse>) -> Option<KeyValue> {
    match answers.into_iter().next()? {
        TxnOpResponse::Get(mut got) => got.take_kvs().into_iter().next(),
        _ => None,
    }
}

/// Whole seconds, as leases have them, and never too short.
pub(super) fn seconds(ttl: Duration) -> i64 {
    let up = u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(ttl.as_secs() + up).unwrap_or(i64::MAX)
}
