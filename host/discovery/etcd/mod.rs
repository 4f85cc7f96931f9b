//! Service discovery through etcd. This node's record is registered under a lease (`registration.rs`). A
//! watch keeps a view of everything else (`watcher.rs`, `view.rs`), so lookups never wait for etcd.
//! `liveness_probe.rs` probes nodes that etcd has lost all at once.

mod cluster_view;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod instance;
mod keyspace;
mod liveness_probe;
mod registration;
mod server;
mod service_writer;
mod store_identity;
mod view;
mod watcher;

use super::{
    error::{Error, NODE_SERVICE},
    record::{NodeRecord, ServiceInfo, check_known, nodes_within},
    service_discovery::ServiceDiscovery,
};
use async_trait::async_trait;
use cluster_view::{ClusterView, PendingService};
use etcd_client::Client;
use hostel_runtime::health::{Background, Health, Part};
use hostel_task::Name;
use keyspace::Entry;
use parking_lot::Mutex;
use registration::{Registration, RegistrationState};
use server::{CachedClient, Server};
use service_writer::ServiceWriter;
use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use watcher::Watcher;

/// How long the first snapshot, and the first registration, may take.
const FIRST: Duration = Duration::from_secs(10);
/// How long beyond its time to live the first registration waits for another record under this node's id
/// to end.
const LEFTOVER: Duration = Duration::from_secs(3);
/// How much longer than their time to live nodes are kept that etcd has lost all at once.
const GRACE: Duration = Duration::from_secs(5);

/// The discovery of all nodes that use the same etcd and prefix.
pub struct EtcdServiceDiscovery {
    server: Arc<Server>,
    view: Arc<ClusterView>,
    services: ServiceWriter,
    prefix: String,
    /// Distinguishes this node's record from one that another node wrote under the same id.
    instance: String,
    ttl: Duration,
    max_services: usize,
    service_ttl: Duration,
    health: Health,
    running: Mutex<Running>,
}

/// The background tasks and the connection for requests. Dropping it ends them.
#[derive(Default)]
struct Running {
    watching: Option<Background>,
    registering: Option<Registering>,
    /// Replaced after an error, and after an idle time.
    client: Option<CachedClient>,
}

/// The task that keeps this node registered.
struct Registering {
    record: watch::Sender<NodeRecord>,
    state: watch::Receiver<RegistrationState>,
    stop: CancellationToken,
    task: Background,
}

impl EtcdServiceDiscovery {
    /// Creates a discovery for the etcd at `endpoints` (`http://host:port`), with every key under
    /// `prefix` and default limits. It connects at its first use.
    pub async fn new(endpoints: &[&str], prefix: &str) -> Result<Self, Error> {
        let limits = hostel_config::Config::default().limits;
        Self::open(&hostel_config::Etcd::at(endpoints, prefix), &limits)
    }

    /// Creates a discovery from the configuration, with the limits `max_services` and `service_ttl`.
    pub fn open(
        settings: &hostel_config::Etcd,
        limits: &hostel_config::Limits,
    ) -> Result<Self, Error> {
        Self::open_reporting(settings, limits, Health::default())
    }

    /// Creates a discovery from the configuration that reports its faults to `health`.
    pub fn open_reporting(
        settings: &hostel_config::Etcd,
        limits: &hostel_config::Limits,
        health: Health,
    ) -> Result<Self, Error> {
        let server = Arc::new(Server::new(settings)?);
        let view = Arc::new(ClusterView::new(settings.ttl + GRACE, health.clone()));
        let prefix = settings.prefix.clone();
        Ok(Self {
            services: ServiceWriter::new(server.clone(), view.clone(), prefix.clone()),
            server,
            view,
            prefix,
            instance: Uuid::now_v7().to_string(),
            ttl: settings.ttl,
            max_services: limits.max_services,
            service_ttl: limits.service_ttl,
            health,
            running: Mutex::default(),
        })
    }

    /// Uses the instance id in the node's data directory, so that the node replaces its own record at
    /// once after it was killed. Otherwise it waits until the record expires.
    pub fn with_data_dir(mut self, data_dir: &Path) -> Result<Self, Error> {
        self.instance = instance::load_or_create(data_dir)?;
        Ok(self)
    }

    /// Starts the watch at the first call, and waits for the first snapshot.
    async fn ensure_watching(&self) -> Result<(), Error> {
        self.running.lock().watching.get_or_insert_with(|| {
            let (server, view) = (self.server.clone(), self.view.clone());
            let prefix = self.prefix.clone();
            self.health
                .restarting(Part::Discovery, "etcd-watcher", move || {
                    let watcher = Watcher {
                        server: server.clone(),
                        view: view.clone(),
                        prefix: prefix.clone(),
                    };
                    let probes = liveness_probe::run(view.clone());
                    // Unconfirmed nodes also expire while etcd is away.
                    async move {
                        tokio::join!(watcher.run(), probes);
                    }
                })
        });
        let loaded = tokio::time::timeout(FIRST, self.view.loaded());
        loaded.await.map_err(|_| self.server.no_answer())
    }

    async fn client(&self) -> Result<Client, Error> {
        let cached = self.running.lock().client.clone();
        let client = self.server.reuse_or_connect(cached).await?;
        self.running.lock().client = Some(CachedClient {
            client: client.clone(),
            last_used: Instant::now(),
        });
        Ok(client)
    }

    async fn write_service(
        &self,
        service: ServiceInfo,
        pending: PendingService,
    ) -> Result<Duration, Error> {
        let ttl = service.granted_ttl(self.service_ttl);
        let turn = self.services.turn(pending).await?;
        let client = self.client().await?;
        self.services.write(turn, client, service, ttl).await
    }

    /// Writes or deletes the drain request of a node, and applies that to the view at once.
    async fn write_drain_request(&self, node: &Name, drained: bool) -> Result<(), Error> {
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
            self.view.lock().apply_write(entry, revision);
        } else {
            let known = self.view.lock().store();
            let revision = store_identity::delete_drain_request(
                &self.server,
                &mut client,
                &self.prefix,
                &key,
                known,
            )
            .await?;
            self.view
                .lock()
                .apply_delete(&key, revision, Instant::now());
        }
        Ok(())
    }

    /// Starts the registration, or updates its record, and returns its state.
    fn start_or_update(&self, record: NodeRecord) -> watch::Receiver<RegistrationState> {
        let mut running = self.running.lock();
        if let Some(registering) = &running.registering {
            registering.record.send_replace(record);
            return registering.state.clone();
        }
        let (record, updates) = watch::channel(record);
        let (state_sender, state) = watch::channel(RegistrationState::Unregistered {
            why: self.server.no_answer().reason(),
            id_contested: false,
        });
        let stop = CancellationToken::new();
        let registration = Registration {
            server: self.server.clone(),
            view: self.view.clone(),
            prefix: self.prefix.clone(),
            ttl: self.ttl,
            instance: self.instance.clone(),
            record: updates,
            state: state_sender,
            health: self.health.clone(),
            stop: stop.clone(),
        };
        let run = move || registration.clone().run();
        let task = self
            .health
            .restarting(Part::Discovery, "etcd-registration", run);
        running.registering = Some(Registering {
            record,
            state: state.clone(),
            stop,
            task,
        });
        state
    }

    /// Waits for the first registration. A record under this node's id is waited for: it expires if an
    /// earlier run of this node left it, and otherwise belongs to another node.
    async fn until_registered(
        &self,
        mut state: watch::Receiver<RegistrationState>,
        id: &Name,
    ) -> Result<(), Error> {
        let since = Instant::now();
        loop {
            let now = state.borrow_and_update().clone();
            let (until, error) = match now {
                RegistrationState::Registered { .. } => return Ok(()),
                RegistrationState::Unregistered { why, .. } => {
                    (since + FIRST, Error::Unavailable(why))
                }
                RegistrationState::Taken { address, since } => (
                    since + self.ttl + LEFTOVER,
                    Error::Misconfigured(format!(
                        "the node at {address} has the id {id} in this cluster; give each node a \
                         node.id of its own"
                    )),
                ),
            };
            match tokio::time::timeout_at(until.into(), state.changed()).await {
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
        self.ensure_watching().await?;
        let pending = self.view.begin_service(&service, self.max_services)?;
        let written = self.write_service(service, pending).await;
        if written.is_err() {
            self.running.lock().client = None;
        }
        written
    }

    async fn discover_service(
        &self,
        name: &Name,
        max_bytes: usize,
    ) -> Result<Vec<ServiceInfo>, Error> {
        self.ensure_watching().await?;
        if name.as_str() == NODE_SERVICE {
            return nodes_within(&self.nodes(), name, max_bytes);
        }
        self.view.lock().services(name, max_bytes)
    }

    /// The first call waits until the record is in etcd. From then on the record is kept there, and a
    /// changed one is written as soon as etcd can be reached.
    async fn register_node(&self, node: NodeRecord) -> Result<(), Error> {
        let first = self.running.lock().registering.is_none();
        let id = node.id.clone();
        self.view.lock().set_own(Some(node.clone()));
        let state = self.start_or_update(node);
        if !first {
            return Ok(());
        }
        let done = match self.until_registered(state, &id).await {
            Ok(()) => self.ensure_watching().await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.deregister_node().await?;
        }
        done
    }

    async fn deregister_node(&self) -> Result<(), Error> {
        self.view.lock().set_own(None);
        let registering = self.running.lock().registering.take();
        if let Some(mut registering) = registering {
            registering.task.expect_end();
            registering.stop.cancel();
            registering.task.ended().await;
        }
        self.services.finished().await;
        Ok(())
    }

    fn nodes(&self) -> Arc<[NodeRecord]> {
        self.view.lock().nodes()
    }

    async fn drain(&self, node: &Name, drained: bool) -> Result<(), Error> {
        self.ensure_watching().await?;
        check_known(node, &self.nodes(), &self.drained())?;
        let done = self.write_drain_request(node, drained).await;
        if done.is_err() {
            self.running.lock().client = None;
        }
        done
    }

    fn drained(&self) -> Arc<BTreeSet<Name>> {
        self.view.lock().drained()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.view.lock().changed()
    }

    fn is_id_contested(&self) -> bool {
        let running = self.running.lock();
        let registering = running.registering.as_ref();
        registering.is_some_and(|it| it.state.borrow().is_id_contested(self.ttl))
    }

    fn stale_since(&self) -> Option<Instant> {
        self.view.stale_since()
    }

    fn cluster_id(&self) -> &str {
        &self.prefix
    }
}
