//! Who is there, through etcd: this node's record under a lease (`announcement.rs`), everybody
//! else's in a view that a watch keeps (`watcher.rs`, `view.rs`; `doubt.rs` asks nodes that all went at
//! once), who is drained, and services that clients register. Looking never waits for etcd.

mod announcement;
mod doubt;
mod entry;
mod instance;
mod server;
mod store;
mod view;
mod watcher;

use super::{Error, NODE_SERVICE, NodeRecord, ServiceDiscovery, ServiceInfo};
use announcement::{Announcement, Standing, seconds};
use async_trait::async_trait;
use entry::Entry;
use etcd_client::{Client, PutOptions};
use hostel_runtime::health::{Background, Health, Part};
use hostel_task::Name;
use server::{Kept, Server};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use watcher::{Seen, Watcher};

/// How long the first look, and the first registration, may take.
const FIRST: Duration = Duration::from_secs(10);
/// How long beyond its time to live a record under this node's id is waited for.
const LEFTOVER: Duration = Duration::from_secs(3);
/// How much longer than a record nodes are kept when all have gone at once.
const GRACE: Duration = Duration::from_secs(5);

/// Knows the nodes and services of all that use the same etcd and prefix.
pub struct EtcdServiceDiscovery {
    server: Arc<Server>,
    seen: Arc<Seen>,
    prefix: String,
    /// Tells this node's record from one that another node wrote under the same id.
    instance: String,
    ttl: Duration,
    max_services: usize,
    service_ttl: Duration,
    health: Health,
    running: Mutex<Running>,
}

/// What goes on behind the calls. Dropping it ends everything.
#[derive(Default)]
struct Running {
    watching: Option<Background>,
    announcing: Option<Announcing>,
    /// For requests; made anew after an error, and after a rest.
    client: Option<Kept>,
}

struct Announcing {
    wanted: watch::Sender<NodeRecord>,
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
    task: Background,
}

impl EtcdServiceDiscovery {
    /// For the etcd at `endpoints` (`http://host:port`), with every key under `prefix`, and limits
    /// as they are unless told otherwise. Connects at the first use.
    pub async fn new(endpoints: &[&str], prefix: &str) -> Result<Self, Error> {
        let limits = hostel_config::Config::default().limits;
        Self::open(&hostel_config::Etcd::at(endpoints, prefix), &limits)
    }

    /// The same from the configuration; of the limits it uses `max_services` and `service_ttl`.
    pub fn open(
        settings: &hostel_config::Etcd,
        limits: &hostel_config::Limits,
    ) -> Result<Self, Error> {
        Self::open_reporting(settings, limits, Health::default())
    }

    /// The same, and reports its faults to `health`.
    pub fn open_reporting(
        settings: &hostel_config::Etcd,
        limits: &hostel_config::Limits,
        health: Health,
    ) -> Result<Self, Error> {
        Ok(Self {
            server: Arc::new(Server::new(settings)?),
            seen: Arc::new(Seen::new(settings.ttl + GRACE, health.clone())),
            prefix: settings.prefix.clone(),
            instance: Uuid::now_v7().to_string(),
            ttl: settings.ttl,
            max_services: limits.max_services,
            service_ttl: limits.service_ttl,
            health,
            running: Mutex::default(),
        })
    }

    /// As the node that has this data directory, which takes its record over at once when it comes
    /// back from a kill. Without it, a record that it left is waited for.
    pub fn kept_in(mut self, data_dir: &Path) -> Result<Self, Error> {
        self.instance = instance::kept_in(data_dir)?;
        Ok(self)
    }

    /// Every change under this lock is one assignment, so a panic elsewhere does not spoil it.
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to follow etcd, and waits until there is something to look at.
    async fn look(&self) -> Result<(), Error> {
        self.running().watching.get_or_insert_with(|| {
            let (server, seen) = (self.server.clone(), self.seen.clone());
            let prefix = self.prefix.clone();
            self.health
                .restarting(Part::Discovery, "etcd-watcher", move || {
                    let watcher = Watcher {
                        server: server.clone(),
                        seen: seen.clone(),
                        prefix: prefix.clone(),
                    };
                    let doubts = doubt::settle(seen.clone());
                    // The doubtful end while etcd is away, too.
                    async move {
                        tokio::join!(watcher.run(), doubts);
                    }
                })
        });
        let listed = tokio::time::timeout(FIRST, self.seen.listed());
        listed.await.map_err(|_| self.server.silent())
    }

    async fn client(&self) -> Result<Client, Error> {
        let kept = self.running().client.clone();
        let client = self.server.connect_again(kept).await?;
        self.running().client = Some(Kept {
            client: client.clone(),
            used: Instant::now(),
        });
        Ok(client)
    }

    /// Writes a service under a lease of its own, and returns what etcd granted. The lease that it had
    /// before holds nothing any more and goes back, and so does a lease that nothing was written under.
    async fn write(&self, service: ServiceInfo, ttl: Duration) -> Result<Duration, Error> {
        let mut client = self.client().await?;
        let granted = client.lease_grant(seconds(ttl), None);
        let granted = self.server.within(granted).await?;
        let entry = Entry::Service(service);
        let value = entry
            .value()
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        let options = PutOptions::new().with_lease(granted.id()).with_prev_key();
        let put = client.put(entry.key().path(&self.prefix), value, Some(options));
        let put = self.server.within(put).await;
        let unused = match &put {
            Ok(put) => put.prev_key().map_or(0, |before| before.lease()),
            Err(_) => granted.id(),
        };
        if unused != 0
            && let Err(error) = self.server.within(client.lease_revoke(unused)).await
        {
            tracing::debug!("a lease that holds nothing runs out by itself: {error}");
        }
        let put = put?;
        let revision = put.header().map_or(0, |header| header.revision());
        self.seen.view().wrote(entry, revision);
        let granted = u64::try_from(granted.ttl()).unwrap_or_default();
        Ok(Duration::from_secs(granted))
    }

    /// Writes that a node is drained, or deletes it. In either case the view has it at once.
    async fn wish(&self, node: &Name, drained: bool) -> Result<(), Error> {
        let mut client = self.client().await?;
        let entry = Entry::Drained(node.clone());
        let key = entry.key();
        if drained {
            let path = key.path(&self.prefix);
            let value = entry
                .value()
                .map_err(|error| Error::Unavailable(error.to_string()))?;
            let put = self.server.within(client.put(path, value, None)).await?;
            let revision = put.header().map_or(0, |header| header.revision());
            self.seen.view().wrote(entry, revision);
        } else {
            let known = self.seen.view().store();
            let back = store::take_back(&self.server, &mut client, &self.prefix, &key, known);
            let revision = back.await?;
            self.seen.view().erased(&key, revision, Instant::now());
        }
        Ok(())
    }

    fn begin(&self, record: NodeRecord) -> watch::Receiver<Standing> {
        let mut running = self.running();
        if let Some(announcing) = &running.announcing {
            announcing.wanted.send_replace(record);
            return announcing.standing.clone();
        }
        let (wanted, receiver) = watch::channel(record);
        let outside = Standing::Outside {
            why: self.server.silent().reason(),
            in_doubt: false,
        };
        let (sender, standing) = watch::channel(outside);
        let stop = CancellationToken::new();
        let announcement = Announcement {
            server: self.server.clone(),
            seen: self.seen.clone(),
            prefix: self.prefix.clone(),
            ttl: self.ttl,
            instance: self.instance.clone(),
            wanted: receiver,
            standing: sender,
            health: self.health.clone(),
            stop: stop.clone(),
        };
        let run = move || announcement.clone().run();
        let task = self
            .health
            .restarting(Part::Discovery, "etcd-registration", run);
        running.announcing = Some(Announcing {
            wanted,
            standing: standing.clone(),
            stop,
            task,
        });
        standing
    }

    /// Waits for the first registration. A record that an earlier run of this node left, and that is
    /// not known for its own, ends by itself; one that does not belongs to another node.
    async fn registered(
        &self,
        mut standing: watch::Receiver<Standing>,
        id: &Name,
    ) -> Result<(), Error> {
        let since = Instant::now();
        loop {
            let now = standing.borrow_and_update().clone();
            let (until, error) = match now {
                Standing::Registered { .. } => return Ok(()),
                Standing::Outside { why, .. } => (since + FIRST, Error::Unavailable(why)),
                Standing::Taken { address, since } => (
                    since + self.ttl + LEFTOVER,
                    Error::Misconfigured(format!(
                        "the node at {address} has the id {id} in this cluster; give each node a \
                         node.id of its own"
                    )),
                ),
            };
            match tokio::time::timeout_at(until.into(), standing.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(error),
            }
        }
    }
}

#[async_trait]
impl ServiceDiscovery for EtcdServiceDiscovery {
    async fn register_service(&self, service: ServiceInfo) -> Result<Duration, Error> {
        service.check()?;
        self.look().await?;
        {
            let view = self.seen.view();
            let full = view.services_count() >= self.max_services;
            if full && !view.has_service(&service.name, &service.id) {
                let limit = self.max_services;
                return Err(Error::Full { limit });
            }
        }
        let ttl = service.granted_ttl(self.service_ttl);
        let written = self.write(service, ttl).await;
        if written.is_err() {
            self.running().client = None;
        }
        written
    }

    async fn discover_service(&self, name: &Name) -> Result<Vec<ServiceInfo>, Error> {
        self.look().await?;
        if name.as_str() == NODE_SERVICE {
            let nodes = self.nodes();
            return Ok(nodes.iter().map(|node| node.as_service(name)).collect());
        }
        Ok(self.seen.view().services(name))
    }

    /// The first time it waits until the record is in etcd. After that it is kept there, whatever
    /// happens, and a new one is written as soon as etcd can be reached.
    async fn announce(&self, node: NodeRecord) -> Result<(), Error> {
        let first = self.running().announcing.is_none();
        let id = node.id.clone();
        self.seen.view().set_own(Some(node.clone()));
        let standing = self.begin(node);
        if !first {
            return Ok(());
        }
        let done = match self.registered(standing, &id).await {
            Ok(()) => self.look().await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.withdraw().await?;
        }
        done
    }

    async fn withdraw(&self) -> Result<(), Error> {
        self.seen.view().set_own(None);
        let announcing = self.running().announcing.take();
        if let Some(mut announcing) = announcing {
            announcing.task.expect_end();
            announcing.stop.cancel();
            announcing.task.ended().await;
        }
        Ok(())
    }

    fn nodes(&self) -> Arc<[NodeRecord]> {
        self.seen.view().nodes()
    }

    async fn drain(&self, node: &Name, drained: bool) -> Result<(), Error> {
        self.look().await?;
        Error::unless_known(node, &self.nodes(), &self.drained())?;
        let done = self.wish(node, drained).await;
        if done.is_err() {
            self.running().client = None;
        }
        done
    }

    fn drained(&self) -> Arc<BTreeSet<Name>> {
        self.seen.view().drained()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.seen.view().changed()
    }

    fn is_id_in_doubt(&self) -> bool {
        let running = self.running();
        let announcing = running.announcing.as_ref();
        announcing.is_some_and(|announcing| announcing.standing.borrow().is_in_doubt(self.ttl))
    }

    fn stale_since(&self) -> Option<Instant> {
        self.seen.stale_since()
    }

    fn cluster_id(&self) -> &str {
        &self.prefix
    }
}
