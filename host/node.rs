//! The composition root: from a configuration to parts, and from parts to a node that is started
//! and stopped as one. Decides nothing; wires everything.

use crate::{
    api::{Server, Services},
    broker::{self, MessageBroker},
    component::{Announcer, Composite},
    config::{self, Config},
    discovery::{self, ServiceDiscovery},
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
use std::{net::SocketAddr, sync::Arc, time::Duration};
use uuid::Uuid;

/// How long a part may take to start or stop, unless it has reason to take longer.
const PART_DEADLINE: Duration = Duration::from_secs(30);

/// How long after the drain time the worker may take to write everything down.
const AFTER_DRAIN: Duration = Duration::from_secs(10);

/// One running `hostel`: a composite of everything that lives in it.
pub struct DistributedNode {
    id: Name,
    address: SocketAddr,
    parts: Composite,
}

impl DistributedNode {
    /// A node made of parts that the caller chose. It serves the API over them and runs no tasks
    /// itself; components are added by `add_component`.
    pub async fn new(
        id: &str,
        address: &str,
        service_discovery: Arc<dyn ServiceDiscovery>,
        message_broker: Arc<dyn MessageBroker>,
        task_scheduler: Arc<dyn TaskScheduler>,
    ) -> anyhow::Result<Self> {
        let services = Services {
            node: Name::parse("node id", id)?,
            discovery: service_discovery.clone(),
            broker: message_broker,
            scheduler: task_scheduler,
            plugins: None,
            limits: Config::default().limits,
        };
        let address = address.parse().context("the address to listen on")?;
        let (node, server) = Self::with_server(address, false, services).await?;
        let address = node.address.to_string();
        let announcer = Announcer::new(node.id.clone(), address, None, service_discovery);
        let readiness = Arc::new(server.readiness());
        node.parts.add(Arc::new(announcer), PART_DEADLINE);
        node.parts.add(server, PART_DEADLINE);
        node.parts.add(readiness, PART_DEADLINE);
        Ok(node)
    }

    /// The whole node that a configuration describes.
    pub async fn from_config(config: &Config) -> anyhow::Result<Self> {
        create_private_dir(&config.node.data_dir)?;
        let id = node_id(&config.node)?;
        let queue = queue::open(&config.queue).await?;
        let keyvalue = keyvalue::open(&config.keyvalue).await?;
        let discovery = discovery::open(config);
        let broker = broker::open(config);
        let outside = Outside {
            keyvalue: Some(keyvalue.clone()),
        };
        let plugins = PluginHost::new(config, outside)?;
        let scheduler = DistributedTaskScheduler::new(queue.clone(), discovery.clone());
        let services = Services {
            node: id.clone(),
            discovery: discovery.clone(),
            broker,
            scheduler: Arc::new(scheduler),
            plugins: Some(plugins.clone()),
            limits: config.limits.clone(),
        };
        let (node, server) =
            Self::with_server(config.node.listen, config.node.insecure, services).await?;
        let address = node.address.to_string();
        let readiness = Arc::new(server.readiness());
        let announcer = Announcer::new(id.clone(), address, Some(plugins.clone()), discovery);
        let worker = Worker::new(id, queue.clone(), plugins.clone(), config);
        // Stopped in reverse: the worker drains while clients can still ask for results.
        let parts = &node.parts;
        parts.add(Arc::new(OpenQueue(queue)), PART_DEADLINE);
        parts.add(Arc::new(OpenKeyValue(keyvalue)), PART_DEADLINE);
        parts.add(plugins, PART_DEADLINE + config.plugins.compile_timeout);
        parts.add(Arc::new(announcer), PART_DEADLINE);
        parts.add(server, PART_DEADLINE);
        parts.add(Arc::new(worker), config.node.drain + AFTER_DRAIN);
        parts.add(readiness, PART_DEADLINE);
        Ok(node)
    }

    async fn with_server(
        address: SocketAddr,
        insecure: bool,
        services: Services,
    ) -> anyhow::Result<(Self, Arc<Server>)> {
        let id = services.node.clone();
        let server = Arc::new(Server::bind(address, insecure, services).await?);
        let node = Self {
            parts: Composite::new(id.as_str()),
            address: server.address(),
            id,
        };
        Ok((node, server))
    }

    /// Starts every part in order; when one cannot start, those before it are stopped again.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.parts.start().await
    }

    /// Stops every part in reverse order, past the ones that fail.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.parts.stop().await
    }

    /// Adds a component of the caller's own. It starts and stops with the node.
    pub fn add_component(&self, component: Box<dyn Component>) {
        self.parts.add(component.into(), PART_DEADLINE);
    }

    pub fn id(&self) -> &Name {
        &self.id
    }

    /// Where the API listens; with port 0 in the configuration, the port that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
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
    if let Ok(kept) = std::fs::read_to_string(&file) {
        return Name::parse("node id", kept.trim()).with_context(cannot);
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
