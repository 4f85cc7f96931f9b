//! The composition root: builds the parts of a node from its configuration and wires them, and starts and
//! stops them as one.

mod data_dir;
mod open_stores;

use crate::{
    api::{Reloaded, Security, Server, Services},
    broker::{self, MessageBroker},
    component::{Components, Composite, FirstScan, NodeInbox, NodeRegistration, Router},
    config::{self, Config},
    discovery::{self, NodeRecord, ServiceDiscovery},
    health::Health,
    keyvalue::{self, KeyValue},
    lifecycle::Component,
    plugin::{Capabilities, PluginHost},
    queue::{self, LimitTable, TaskQueue},
    schedule::ScheduleSpec,
    scheduler::{
        DistributedTaskScheduler, LimitReader, TaskScheduler,
        schedules::{ScheduleRunner, Schedules},
        types::Types,
    },
    task::Name,
    worker::Worker,
};
use anyhow::Context;
use open_stores::{OpenKeyValue, OpenQueue};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::runtime::{self, Runtime};

/// How long most parts may take to start or stop.
const PART_DEADLINE: Duration = Duration::from_secs(30);

/// How long after the drain time the worker may take to write its results.
const AFTER_DRAIN: Duration = Duration::from_secs(10);

/// How long a guest may take to return once it is interrupted.
const AFTER_GUESTS: Duration = Duration::from_secs(5);

/// Creates the runtime for a node: one thread for every two cores, at least one. Guests and databases have
/// threads of their own. One thread more on two cores made a task 5 % more expensive, since the threads
/// kept waking each other.
pub fn runtime() -> std::io::Result<Runtime> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    runtime::Builder::new_multi_thread()
        .worker_threads(cores.div_ceil(2))
        .enable_all()
        .build()
}

/// A node: its parts, started and stopped as one.
pub struct DistributedNode {
    id: Name,
    address: SocketAddr,
    parts: Composite,
    router: Arc<Router>,
    health: Health,
    server: Arc<Server>,
    /// Absent on a node without a configuration.
    schedule_runner: Option<Arc<ScheduleRunner>>,
    started: AtomicBool,
}

impl DistributedNode {
    /// Creates a node from engines that the caller chose. It serves the API over them and hosts no plugins.
    /// `add_component` adds components.
    pub async fn new(
        id: &str,
        address: &str,
        service_discovery: Arc<dyn ServiceDiscovery>,
        message_broker: Arc<dyn MessageBroker>,
        task_scheduler: Arc<dyn TaskScheduler>,
    ) -> anyhow::Result<Self> {
        let id = Name::parse("node id", id)?;
        let Config {
            limits, plugins, ..
        } = Config::default();
        let address = address.parse().context("the address to listen on")?;
        let router = router(&id, message_broker, &service_discovery, &limits);
        let health = Health::default();
        let services = Services {
            discovery: service_discovery.clone(),
            router: router.clone(),
            scheduler: task_scheduler,
            schedules: None,
            types: None,
            plugins: None,
            components: None,
            health: health.clone(),
            limits,
            max_timeout: plugins.max_timeout,
        };
        let server = Arc::new(Server::bind(address, Security::default(), services).await?);
        let advertised = server.address().to_string();
        let record = NodeRecord::new(id.clone(), advertised);
        let registration =
            NodeRegistration::new(record, None, service_discovery.clone(), health.clone());
        let parts = Composite::new(id.as_str());
        parts.add(Arc::new(registration), PART_DEADLINE)?;
        let node_inbox = NodeInbox::new(router.clone(), service_discovery, health.clone());
        parts.add(Arc::new(node_inbox), PART_DEADLINE)?;
        parts.add(server.clone(), PART_DEADLINE)?;
        parts.add(Arc::new(server.readiness()), PART_DEADLINE)?;
        Ok(Self::of(id, parts, router, server, health))
    }

    /// Creates the node that a configuration describes.
    pub async fn from_config(config: &Config) -> anyhow::Result<Self> {
        data_dir::create(&config.node.data_dir)?;
        let id = data_dir::node_id(&config.node)?;
        let health = Health::default();
        let opened = queue::open_with_schedules(&config.queue, &health).await?;
        let queue = opened.tasks.clone();
        let keyvalue = match keyvalue::open(&config.keyvalue, &health).await {
            Ok(keyvalue) => keyvalue,
            Err(error) => {
                queue.close().await;
                return Err(error.into());
            }
        };
        let node = Self::over(config, id, health, opened, keyvalue.clone()).await;
        if node.is_err() {
            // A store that is only dropped is in use for a while, and another attempt would be refused.
            keyvalue.close().await;
            queue.close().await;
        }
        node
    }

    /// Creates the node over its open stores.
    async fn over(
        config: &Config,
        id: Name,
        health: Health,
        opened: queue::Opened,
        keyvalue: Arc<dyn KeyValue>,
    ) -> anyhow::Result<Self> {
        let queue = opened.tasks;
        log_unshared_stores(&*queue, config);
        let discovery = discovery::open(config, &health)?;
        let router = router(
            &id,
            broker::open(config, &health)?,
            &discovery,
            &config.limits,
        );
        let capabilities = Capabilities {
            keyvalue: Some(keyvalue.clone()),
            messenger: Some(router.clone()),
        };
        let plugins = PluginHost::new(config, capabilities, &health)?;
        let components = Components::new(plugins.clone(), router.clone(), health.clone(), config);
        let components = Arc::new(components);
        let limits = Arc::new(LimitTable::open(config, opened.limits).await?);
        let scheduler =
            DistributedTaskScheduler::with_health(queue.clone(), discovery.clone(), &health)
                .with_plugins(id.clone(), plugins.clone())
                .with_limits(limits.clone());
        let scheduler = if queue.is_shared() {
            scheduler
        } else {
            scheduler.for_node(id.clone())
        };
        let scheduler: Arc<dyn TaskScheduler> = Arc::new(scheduler);
        let submission_limits = config.limits.submission();
        let schedules = Schedules::new(opened.schedules, scheduler.clone(), submission_limits);
        let types = Types::new(
            queue.clone(),
            discovery.clone(),
            plugins.clone(),
            limits.clone(),
        );
        let schedule_runner = Arc::new(ScheduleRunner::new(
            id.clone(),
            queue.clone(),
            schedules.clone(),
            declared_schedules(config)?,
            health.clone(),
        ));
        let services = Services {
            discovery: discovery.clone(),
            router: router.clone(),
            scheduler,
            schedules: Some(schedules),
            types: Some(types),
            plugins: Some(plugins.clone()),
            components: Some(components.clone()),
            health: health.clone(),
            limits: config.limits.clone(),
            max_timeout: config.plugins.max_timeout,
        };
        let security = Security::open(config)?;
        let server = Server::bind(config.node.listen, security, services).await?;
        let server = Arc::new(server);
        let advertised = discovery::advertised_address(config, server.address()).await?;
        let record = NodeRecord {
            capacity: config.plugins.max_tasks,
            labels: config.node.labels.clone(),
            ..NodeRecord::new(id.clone(), advertised)
        };
        let registration = NodeRegistration::new(
            record,
            Some(plugins.clone()),
            discovery.clone(),
            health.clone(),
        );
        let node_inbox = NodeInbox::new(router.clone(), discovery.clone(), health.clone());
        let limit_reader = LimitReader::new(limits.clone(), health.clone());
        let worker = Worker::new(
            id.clone(),
            queue.clone(),
            plugins.clone(),
            discovery,
            limits,
            health.clone(),
            config,
        );
        // Stopped in reverse order: the worker drains while clients can still read results and tasks can
        // still call components, and components run while clients are still served.
        let parts = Composite::new(id.as_str());
        parts.add(Arc::new(OpenQueue(queue)), PART_DEADLINE)?;
        parts.add(Arc::new(OpenKeyValue(keyvalue)), PART_DEADLINE)?;
        parts.add(Arc::new(limit_reader), PART_DEADLINE)?;
        parts.add(plugins.clone(), PART_DEADLINE)?;
        parts.add(Arc::new(registration), PART_DEADLINE)?;
        parts.add(Arc::new(node_inbox), PART_DEADLINE)?;
        parts.add(server.clone(), PART_DEADLINE)?;
        parts.add(components.clone(), component_deadline(config))?;
        parts.add(Arc::new(worker), config.node.drain + AFTER_DRAIN)?;
        parts.add(schedule_runner.clone(), PART_DEADLINE)?;
        // The parts above serve while plugins are being loaded; the node is ready after that.
        let deadline = PART_DEADLINE + config.plugins.compile_timeout + component_deadline(config);
        let first_scan = FirstScan {
            plugins,
            components,
        };
        parts.add(Arc::new(first_scan), deadline)?;
        parts.add(Arc::new(server.readiness()), PART_DEADLINE)?;
        Ok(Self {
            schedule_runner: Some(schedule_runner),
            ..Self::of(id, parts, router, server, health)
        })
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
            schedule_runner: None,
            started: AtomicBool::new(false),
        }
    }

    /// Starts every part in order. If one cannot start, those before it are stopped.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.parts.start().await?;
        self.started.store(true, Ordering::Release);
        Ok(())
    }

    /// Reads tokens and certificates again, from the files that `config` names, and takes over the schedules
    /// of `config`. If a file cannot be read, the former value stays in force and the error is logged. Returns
    /// what has become of each section; all other settings stay as they were at the start.
    pub fn reload(&self, config: &Config) -> [(&'static str, Reloaded); 3] {
        let [tls, auth] = self.server.reload(config);
        [tls, auth, ("schedule", self.reload_schedules(config))]
    }

    fn reload_schedules(&self, config: &Config) -> Reloaded {
        let Some(runner) = &self.schedule_runner else {
            return Reloaded::FixedAtStart;
        };
        match declared_schedules(config) {
            Ok(declared) => {
                runner.declare(declared);
                Reloaded::InForce
            }
            Err(error) => {
                tracing::warn!("the schedules of the configuration are not read again: {error:#}");
                Reloaded::Failed
            }
        }
    }

    /// Stops every part in reverse order, also after failures.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.started.store(false, Ordering::Release);
        self.parts.stop().await
    }

    /// Adds a component of the caller. It starts and stops with the node; in a running node it starts now.
    /// Fails if its id is taken or it cannot start. See `examples/component.rs`.
    pub async fn add_component(&self, component: Box<dyn Component>) -> anyhow::Result<()> {
        if self.started.load(Ordering::Acquire) {
            self.parts.join(component.into(), PART_DEADLINE).await
        } else {
            self.parts.add(component.into(), PART_DEADLINE)
        }
    }

    /// The id of the node.
    pub fn id(&self) -> &Name {
        &self.id
    }

    /// The health of the node, and its background tasks.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Waits until a vital background task has failed, and returns the reason. Stop the node then, and end the
    /// process.
    pub async fn failed(&self) -> String {
        self.health.failed().await
    }

    /// The router of messages. A component registers an id with it to receive messages.
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// The address of the API, with the actual port if the configuration has port 0.
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

/// Returns the schedules of the configuration.
fn declared_schedules(config: &Config) -> anyhow::Result<Vec<ScheduleSpec>> {
    let limits = config.limits.submission();
    let schedules = config.schedule.iter();
    schedules
        .map(|(name, schedule)| {
            let spec = schedule.spec(name, &limits);
            spec.with_context(|| format!("[schedule.{name}]"))
        })
        .collect()
}

/// Logs which stores a cluster does not share, since operators may assume that it does.
fn log_unshared_stores(queue: &dyn TaskQueue, config: &Config) {
    let config::KeyValueBackend::Sqlite(_) = config.keyvalue.backend;
    if queue.is_shared() {
        tracing::info!(
            "nodes share their tasks, but not the data of plugins: each node has a key-value store of its \
             own (keyvalue.kind = \"sqlite\")"
        );
    }
}

/// How long the slowest component may take for its start, or for its last messages and its stop.
fn component_deadline(config: &Config) -> Duration {
    let plugins = config.plugin.keys().map(|name| config.component(name));
    let all = plugins.chain([config.plugins.component.clone()]);
    let longest = all.map(|limits| limits.start_timeout.max(limits.stop_timeout * 2));
    longest.max().unwrap_or_default() + AFTER_GUESTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_attempt_leaves_the_stores_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::default();
        config.node.data_dir = dir.path().join("data");
        config.plugins.dir = dir.path().join("plugins");
        config.node.listen = taken.local_addr().unwrap();
        let config::QueueBackend::Sqlite(queue) = &mut config.queue.backend else {
            panic!("another default");
        };
        queue.path = config.node.data_dir.join("queue.db");
        let config::KeyValueBackend::Sqlite(keyvalue) = &mut config.keyvalue.backend;
        keyvalue.path = config.node.data_dir.join("kv.db");
        for _ in 0..2 {
            let Err(error) = DistributedNode::from_config(&config).await else {
                panic!("the address is taken");
            };
            assert!(format!("{error:#}").contains("cannot listen"), "{error:#}");
        }
    }
}
