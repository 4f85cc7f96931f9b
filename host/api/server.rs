//! The gRPC server as a component: bound early, so that a taken port is known before anything else
//! starts, with every limit of HTTP/2 said (lessons.md lists the defaults that are none).

use super::{
    Access,
    auth::Authenticate,
    components::ComponentServiceImpl,
    distributed::DistributedServiceImpl,
    health::Readiness,
    in_flight::CountInFlight,
    incoming::connections,
    nodes::NodeServiceImpl,
    plugins::PluginServiceImpl,
    share::{Accounted, Shares},
    tasks::TaskServiceImpl,
    watched,
};
use crate::{
    component::{self, Components},
    config,
    discovery::ServiceDiscovery,
    health::{Background, Health, Part},
    lifecycle::Component,
    plugin::PluginHost,
    proto::{
        DESCRIPTORS,
        distributed::distributed_service_server::DistributedServiceServer,
        hostel::v1::{
            component_service_server::ComponentServiceServer,
            node_service_server::NodeServiceServer, plugin_service_server::PluginServiceServer,
            task_service_server::TaskServiceServer,
        },
    },
    scheduler::TaskScheduler,
};
use anyhow::Context;
use async_trait::async_trait;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;
use tonic_health::server::HealthReporter;
use tower::layer::util::{Identity, Stack};

/// How long open calls get to end when the server stops.
const GRACE: Duration = Duration::from_secs(3);

/// How many streams of one connection may be reset by errors of its own before it is closed.
const MAX_ERROR_RESETS: usize = 1024;
const MAX_PENDING_RESETS: usize = 20;
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// What a client may send before the node has looked at it, in each call and in all of a connection.
const WINDOW: u32 = 1 << 20;
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// What the server gives access to.
#[derive(Clone)]
pub struct Services {
    pub discovery: Arc<dyn ServiceDiscovery>,
    pub router: Arc<component::Router>,
    pub scheduler: Arc<dyn TaskScheduler>,
    /// Absent on a node that hosts no plugins itself.
    pub plugins: Option<Arc<PluginHost>>,
    pub components: Option<Arc<Components>>,
    /// What is wrong with the node.
    pub health: Health,
    pub limits: config::Limits,
}

/// All services behind their one door.
type Routes = Router<Stack<CountInFlight, Stack<Authenticate, Identity>>>;

/// Serves while it is started.
pub struct Server {
    address: SocketAddr,
    access: Arc<Access>,
    services: Services,
    reporter: HealthReporter,
    listener: Mutex<Option<TcpListener>>,
    serving: Mutex<Option<Serving>>,
}

struct Serving {
    end: CancellationToken,
    server: Background,
    /// Reads certificates and tokens again.
    watch: Background,
    /// Closes connections that read nothing.
    shares: Background,
}

impl Server {
    /// Takes the address, and with port 0 a free port of it; beyond loopback only with access that
    /// allows it.
    pub async fn bind(
        address: SocketAddr,
        access: Access,
        services: Services,
    ) -> anyhow::Result<Self> {
        access.allows(address)?;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} (node.listen)"))?;
        Ok(Self {
            address: listener.local_addr()?,
            access: Arc::new(access),
            services,
            reporter: HealthReporter::new(),
            listener: Mutex::new(Some(listener)),
            serving: Mutex::default(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn readiness(&self) -> Readiness {
        let services = &self.services;
        Readiness::new(
            self.reporter.clone(),
            services.health.clone(),
            services.components.clone(),
        )
    }

    fn routes(&self, end: CancellationToken) -> anyhow::Result<Routes> {
        let services = self.services.clone();
        let limits = &services.limits;
        let max = limits.max_message_bytes;
        let nodes = NodeServiceServer::new(NodeServiceImpl {
            node: services.router.node().clone(),
            health: services.health,
            discovery: services.discovery.clone(),
        });
        let distributed = DistributedServiceServer::new(DistributedServiceImpl {
            discovery: services.discovery,
            router: services.router,
            end,
            scheduler: services.scheduler.clone(),
            limits: limits.clone(),
        });
        let tasks = TaskServiceServer::new(TaskServiceImpl {
            scheduler: services.scheduler,
            max_message_bytes: max,
        });
        let plugins = services
            .plugins
            .map(|plugins| PluginServiceServer::new(PluginServiceImpl { plugins }));
        let components = services
            .components
            .map(|components| ComponentServiceServer::new(ComponentServiceImpl { components }));
        let health = tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(self.reporter.clone()),
        );
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        Ok(server(limits)
            .layer(self.access.authenticate())
            .layer(CountInFlight)
            .add_service(
                distributed
                    .max_decoding_message_size(max)
                    .max_encoding_message_size(max),
            )
            .add_service(
                tasks
                    .max_decoding_message_size(max)
                    .max_encoding_message_size(max),
            )
            .add_service(nodes)
            .add_optional_service(plugins)
            .add_optional_service(components)
            .add_service(health)
            .add_service(reflection().build_v1()?)
            // What Python's own client and older tools still ask for.
            .add_service(reflection().build_v1alpha()?))
    }

    async fn listener(&self) -> anyhow::Result<TcpListener> {
        let bound = self
            .listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match bound {
            Some(listener) => Ok(listener),
            // Started again after a stop.
            None => Ok(TcpListener::bind(self.address).await?),
        }
    }

    fn serving(&self) -> std::sync::MutexGuard<'_, Option<Serving>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tonic server with every limit said; benches hold the bare echo against the same.
pub fn server(limits: &config::Limits) -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .max_concurrent_streams(limits.max_streams_per_connection)
        .concurrency_limit_per_connection(limits.max_requests_per_connection)
        // A call may work for its time and wait for its time; streams are not timed.
        .timeout(limits.request_timeout + limits.max_wait)
        // Without a grace: given one, tonic 0.14 asks nobody and cuts the connection with its calls.
        .max_connection_age(limits.max_connection_age)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .http2_max_header_list_size(MAX_HEADER_LIST)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
}

#[async_trait]
impl Component for Server {
    async fn start(&self) -> anyhow::Result<()> {
        let max = self.services.limits.max_connections;
        let shares = Arc::new(Shares::new(&self.services.limits));
        let accounts = shares.clone();
        let incoming = connections(self.listener().await?, max, self.access.clone());
        let incoming = incoming
            .map(move |connection| connection.map(|it| Accounted::new(it, accounts.share())));
        let end = CancellationToken::new();
        let ended = end.clone().cancelled_owned();
        let routes = self.routes(end.clone())?;
        let health = &self.services.health;
        let server = async {
            let served = routes.serve_with_incoming_shutdown(incoming, ended).await;
            if let Err(error) = served {
                tracing::error!("the gRPC server failed: {error:#}");
            }
        };
        let server = health.vital(Part::Api, "grpc-server", server);
        let parts = self.access.watched();
        let watch = move || watched::watch(parts.clone());
        let watch = health.restarting(Part::Api, "credential-watcher", watch);
        let closing = move || shares.clone().watch();
        let shares = health.restarting(Part::Api, "stall-watcher", closing);
        *self.serving() = Some(Serving {
            end,
            server,
            watch,
            shares,
        });
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let Some(mut serving) = self.serving().take() else {
            return Ok(());
        };
        serving.server.expect_end();
        serving.end.cancel();
        serving.watch.stop().await;
        serving.shares.stop().await;
        let ended = tokio::time::timeout(GRACE, serving.server.ended()).await;
        if ended.is_err() {
            tracing::info!("open calls did not end within {GRACE:?} and were cut off");
            serving.server.stop().await;
        }
        Ok(())
    }

    fn get_id(&self) -> &str {
        "grpc"
    }
}
