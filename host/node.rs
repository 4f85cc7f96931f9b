//! The composition root: from a configuration to parts, and from parts to a node that is started
//! and stopped as one. Decides nothing; wires everything.

use crate::{
    api::{Access, Server, Services},
    broker::{self, MessageBroker},
    component::{Announcer, Components, Composite, FirstScan, Reception, Router},
    config::{self, Config},
    discovery::{self, NodeRecord, ServiceDiscovery},
    health::Health,
    keyvalue::{self, KeyValue},
    lifecycle::Component,
    plugin::{Outside, PluginHost},
    queue::{self, TaskQueue},
    scheduler::{DistributedTaskScheduler, TaskScheduler},
    task::Name,
    worker::Worker,
};
use anyhow::Context;
use async_trait::async_trait;
use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::runtime::{self, Runtime};
use uuid::Uuid;

/// How long a part may take to start or stop, unless it has reason to take longer.
const PART_DEADLINE: Duration = Duration::from_secs(30);

/// How long after the drain time the worker may take to write everything down.
const AFTER_DRAIN: Duration = Duration::from_secs(10);

/// How long beyond its own time a guest may take to let go.
const AFTER_GUESTS: Duration = Duration::from_secs(5);

/// The runtime that suits a node: threads for half of the cores, one at least. Guests have threads of
/// their own, and so have the databases; one thread more on two cores made a task 5 % dearer, since
/// each only woke the other.
pub fn runtime() -> std::io::Result<Runtime> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    runtime::Builder::new_multi_thread()
        .worker_threads(cores.div_ceil(2))
        .enable_all()
        .build()
}

/// One running `hostel`: a composite of everything that lives in it.
pub struct DistributedNode {
    id: Name,
    address: SocketAddr,
    parts: Composite,
    router: Arc<Router>,
    health: Health,
    server: Arc<Server>,
    started: AtomicBool,
}

impl DistributedNode {
    /// A node made of parts that the caller chose. It serves the API over them and runs no plugins
    /// itself; components are added by `add_component`.
    pub async fn new(
        id: &str,
        address: &str,
        service_discovery: Arc<dyn ServiceDiscovery>,
        message_broker: Arc<dyn MessageBroker>,
        task_scheduler: Arc<dyn TaskScheduler>,
    ) -> anyhow::Result<Self> {
        let id = Name::parse("node id", id)?;
        let limits = Config::default().limits;
        let address = address.parse().context("the address to listen on")?;
        let router = router(&id, message_broker, &service_discovery, &limits);
        let health = Health::default();
        let services = Services {
            discovery: service_discovery.clone(),
            router: router.clone(),
            scheduler: task_scheduler,
            plugins: None,
            components: None,
            health: health.clone(),
            limits,
        };
        let server = Arc::new(Server::bind(address, Access::default(), services).await?);
        let announced = server.address().to_string();
        let record = NodeRecord::new(id.clone(), announced);
        let announcer = Announcer::new(record, None, service_discovery.clone(), health.clone());
        let parts = Composite::new(id.as_str());
        parts.add(Arc::new(announcer), PART_DEADLINE)?;
        let reception = Reception::new(router.clone(), service_discovery, health.clone());
        parts.add(Arc::new(reception), PART_DEADLINE)?;
        parts.add(server.clone(), PART_DEADLINE)?;
        parts.add(Arc::new(server.readiness()), PART_DEADLINE)?;
        Ok(Self::of(id, parts, router, server, health))
    }

    /// The whole node that a configuration describes.
    pub async fn from_config(config: &Config) -> anyhow::Result<Self> {
        create_private_dir(&config.node.data_dir)?;
        let id = node_id(&config.node)?;
        let health = Health::default();
        let queue = queue::open(&config.queue, &health).await?;
        let keyvalue = keyvalue::open(&config.keyvalue, &health).await?;
        tell_what_is_not_shared(&*queue, config);
        let discovery = discovery::open(config, &health)?;
        let router = router(
            &id,
            broker::open(config, &health)?,
            &discovery,
            &config.limits,
        );
        let outside = Outside {
            keyvalue: Some(keyvalue.clone()),
            messenger: Some(router.clone()),
        };
        let plugins = PluginHost::new(config, outside, &health)?;
        let components = Components::new(plugins.clone(), router.clone(), health.clone(), config);
        let components = Arc::new(components);
        let scheduler =
            DistributedTaskScheduler::new_reporting(queue.clone(), discovery.clone(), &health);
        let scheduler = match queue.is_shared() {
            true => scheduler,
            false => scheduler.only_on(id.clone()),
        };
        let services = Services {
            discovery: discovery.clone(),
            router: router.clone(),
            scheduler: Arc::new(scheduler),
            plugins: Some(plugins.clone()),
            components: Some(components.clone()),
            health: health.clone(),
            limits: config.limits.clone(),
        };
        let access = Access::open(config)?;
        let server = Server::bind(config.node.listen, access, services).await?;
        let server = Arc::new(server);
        let announced = discovery::advertised_address(config, server.address()).await?;
        let record = NodeRecord {
            capacity: config.plugins.max_tasks,
            labels: config.node.labels.clone(),
            ..NodeRecord::new(id.clone(), announced)
        };
        let announcer = Announcer::new(
            record,
            Some(plugins.clone()),
            discovery.clone(),
            health.clone(),
        );
        let reception = Reception::new(router.clone(), discovery.clone(), health.clone());
        let (tasks, guests) = (queue.clone(), plugins.clone());
        let worker = Worker::new(id.clone(), tasks, guests, discovery, health.clone(), config);
        // Stopped in reverse: the worker drains while clients can still ask for results and tasks
        // can still ask components, and these answer while clients are still there.
        let parts = Composite::new(id.as_str());
        parts.add(Arc::new(OpenQueue(queue)), PART_DEADLINE)?;
        parts.add(Arc::new(OpenKeyValue(keyvalue)), PART_DEADLINE)?;
        parts.add(plugins.clone(), PART_DEADLINE)?;
        parts.add(Arc::new(announcer), PART_DEADLINE)?;
        parts.add(Arc::new(reception), PART_DEADLINE)?;
        parts.add(server.clone(), PART_DEADLINE)?;
        parts.add(components.clone(), life_deadline(config))?;
        parts.add(Arc::new(worker), config.node.drain + AFTER_DRAIN)?;
        // Those above serve while plugins are still loaded; the node is ready after that.
        let patience = PART_DEADLINE + config.plugins.compile_timeout + life_deadline(config);
        let first_scan = FirstScan {
            plugins,
            components,
        };
        parts.add(Arc::new(first_scan), patience)?;
        parts.add(Arc::new(server.readiness()), PART_DEADLINE)?;
        Ok(Self::of(id, parts, router, server, health))
    }

    fn of(
        id: Name,
        parts: Composite,
        router: Arc<Router>,
        server: Arc<Server>,
        health: Health,
    ) -> Self {
        Self {
            id,
            address: server.address(),
            parts,
            router,
            health,
            server,
            started: AtomicBool::new(false),
        }
    }

    /// Starts every part in order; when one cannot start, those before it are stopped again.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.parts.start().await?;
        self.started.store(true, Ordering::Release);
        Ok(())
    }

    /// Reads tokens and certificates again, from where `config` says; what cannot be read leaves in
    /// force what was, and is logged. Returns the sections that are as `config` says now; all else
    /// stays as it was at the start.
    pub fn reload(&self, config: &Config) -> Vec<&'static str> {
        self.server.reload(config)
    }

    /// Stops every part in reverse order, past the ones that fail.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.started.store(false, Ordering::Release);
        self.parts.stop().await
    }

    /// Adds a component of the caller's own. It starts and stops with the node; in a node that runs
    /// it starts now. Fails when its id is taken or it cannot start. `examples/component.rs` has one.
    pub async fn add_component(&self, component: Box<dyn Component>) -> anyhow::Result<()> {
        match self.started.load(Ordering::Acquire) {
            true => self.parts.join(component.into(), PART_DEADLINE).await,
            false => self.parts.add(component.into(), PART_DEADLINE),
        }
    }

    pub fn id(&self) -> &Name {
        &self.id
    }

    /// What is wrong with this node, and the background tasks that it runs.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Waits until a background task has ended that the node cannot go on without, and returns why. Stop
    /// the node then, and end the process.
    pub async fn failed(&self) -> String {
        self.health.failed().await
    }

    /// Where messages go; a component takes an id there to be reached by it.
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// Where the API listens; with port 0 in the configuration, the port that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn router(
    node: &Name,
    broker: Arc<dyn MessageBroker>,
    discovery: &Arc<dyn ServiceDiscovery>,
    limits: &config::Limits,
) -> Arc<Router> {
    let max_payload_bytes = limits.max_payload_bytes;
    Arc::new(Router::new(
        node.clone(),
        broker,
        discovery.clone(),
        max_payload_bytes,
    ))
}

/// Says at the start what operators of a cluster tend to take for shared.
fn tell_what_is_not_shared(queue: &dyn TaskQueue, config: &Config) {
    let config::KeyValueBackend::Sqlite(_) = config.keyvalue.backend;
    if queue.is_shared() {
        tracing::info!(
            "nodes share their tasks, but not what plugins keep: each node has a key-value store of \
             its own (keyvalue.kind = \"sqlite\")"
        );
    }
}

/// What the slowest component may take for its start, or for its last messages and its stop.
fn life_deadline(config: &Config) -> Duration {
    let plugins = config.plugin.keys().map(|name| config.component(name));
    let all = plugins.chain([config.plugins.component.clone()]);
    let longest = all.map(|limits| limits.start_timeout.max(limits.stop_timeout * 2));
    longest.max().unwrap_or_default() + AFTER_GUESTS
}

/// An open queue, as the part that is closed last.
struct OpenQueue(Arc<dyn TaskQueue>);

#[async_trait]
impl Component for OpenQueue {
    async fn start(&self) -> anyhow::Result<()> {
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        self.0.close().await;
        Ok(())
    }

    fn get_id(&self) -> &str {
        "queue"
    }
}

/// An open key-value store: closed after the plugins that use it.
struct OpenKeyValue(Arc<dyn KeyValue>);

#[async_trait]
impl Component for OpenKeyValue {
    async fn start(&self) -> anyhow::Result<()> {
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        self.0.close().await;
        Ok(())
    }

    fn get_id(&self) -> &str {
        "keyvalue"
    }
}

/// The configured id, or one made up once and kept in the data directory.
fn node_id(node: &config::Node) -> anyhow::Result<Name> {
    if let Some(id) = &node.id {
        return Ok(id.clone());
    }
    let file = node.data_dir.join("node-id");
    let cannot = || format!("cannot keep this node's id in {}", file.display());
    match std::fs::read_to_string(&file) {
        Ok(kept) => return Name::parse("node id", kept.trim()).with_context(cannot),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // It has one, which others know it by.
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "cannot read this node's id in {}; make it readable, or give one as node.id",
                    file.display()
                )
            });
        }
    }
    let id = format!("node-{}", Uuid::now_v7().simple());
    // Renamed into place: a kill in between must not leave half an id.
    let beside = file.with_extension("new");
    std::fs::write(&beside, &id)
        .and_then(|()| std::fs::rename(&beside, &file))
        .with_context(cannot)?;
    Ok(Name::parse("node id", &id)?)
}

/// Creates the directory for this user alone.
fn create_private_dir(dir: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot create {} (node.data_dir)", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_cannot_be_read_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let node = config::Node {
            data_dir: dir.path().to_owned(),
            id: None,
            ..Config::default().node
        };
        let made = node_id(&node).unwrap();
        assert_eq!(node_id(&node).unwrap(), made);
        let file = dir.path().join("node-id");
        std::fs::write(&file, [0xFF, 0xFE]).unwrap();
        let error = format!("{:#}", node_id(&node).unwrap_err());
        assert!(
            error.contains("node-id") && error.contains("node.id"),
            "{error}"
        );
        assert_eq!(std::fs::read(&file).unwrap(), [0xFF, 0xFE]);
        // As where its disk fails.
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(node_id(&node).is_err());
        assert!(file.is_dir());
    }
}
