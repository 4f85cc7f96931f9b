//! The gRPC server as a component: bound early, so that a taken port is known before anything else
//! starts. Has the list of all services, and of all that a call comes past on its way to them.

use super::{
    Access,
    auth::Authenticate,
    components::ComponentServiceImpl,
    deadline::Deadlines,
    distributed::DistributedServiceImpl,
    health::Readiness,
    health_service::{HealthServiceImpl, Statuses},
    in_flight::CountInFlight,
    nodes::NodeServiceImpl,
    plugins::PluginServiceImpl,
    reflection::Reflection,
    serve::{CallService, serve},
    share::Shares,
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
        distributed::distributed_service_server::{self, DistributedServiceServer},
        hostel::v1::{
            component_service_server::{self, ComponentServiceServer},
            node_service_server::{self, NodeServiceServer},
            plugin_service_server::{self, PluginServiceServer},
            task_service_server::{self, TaskServiceServer},
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
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::{self, HealthServer};
use tonic_reflection::pb::{
    v1::server_reflection_server::{self as reflection_v1, ServerReflectionServer as ReflectionV1},
    v1alpha::server_reflection_server::{
        self as reflection_v1alpha, ServerReflectionServer as ReflectionV1Alpha,
    },
};
use tower::{Layer, ServiceBuilder, limit::ConcurrencyLimitLayer};

/// How long open calls get to end when the server stops.
const GRACE: Duration = Duration::from_secs(3);

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

/// Serves while it is started.
pub struct Server {
    address: SocketAddr,
    access: Arc<Access>,
    services: Services,
    published: Statuses,
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
            published: Statuses::default(),
            listener: Mutex::new(Some(listener)),
            serving: Mutex::default(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn readiness(&self) -> Readiness {
        Readiness::new(
            self.published.clone(),
            names(&self.services),
            self.services.health.clone(),
            self.services.components.clone(),
        )
    }

    /// Reads tokens and certificates again; see `Access::reload`.
    pub fn reload(&self, config: &config::Config) -> Vec<&'static str> {
        self.access.reload(config)
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
            end: end.clone(),
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
        let health = HealthServer::new(HealthServiceImpl {
            statuses: self.published.clone(),
            end: end.clone(),
        });
        let described = [
            DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let reflection = Reflection::new(&names(&self.services), &described, end.clone())?;
        let mut routes = Routes::builder();
        routes
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
            .add_service(health)
            .add_service(ReflectionV1::new(reflection.clone()))
            .add_service(ReflectionV1Alpha::new(reflection));
        if let Some(plugins) = plugins {
            routes.add_service(plugins);
        }
        if let Some(components) = components {
            routes.add_service(components);
        }
        Ok(routes.routes())
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

/// The names of all services.
fn names(services: &Services) -> Vec<&'static str> {
    let mut names = vec![
        distributed_service_server::SERVICE_NAME,
        task_service_server::SERVICE_NAME,
        node_service_server::SERVICE_NAME,
        health_server::SERVICE_NAME,
        reflection_v1::SERVICE_NAME,
        reflection_v1alpha::SERVICE_NAME,
    ];
    let plugins = services.plugins.as_ref();
    names.extend(plugins.map(|_| plugin_service_server::SERVICE_NAME));
    let components = services.components.as_ref();
    names.extend(components.map(|_| component_service_server::SERVICE_NAME));
    names
}

/// What a call comes past on its way to the services, in this order. Made anew for each connection, so
/// that a limit for each is one.
fn layers(
    limits: &config::Limits,
    authenticate: Authenticate,
) -> impl Layer<Routes, Service = impl CallService + use<>> + Send + Sync + use<> {
    ServiceBuilder::new()
        // Waiting for a turn is part of a call's time.
        .layer(Deadlines {
            longest: limits.request_timeout + limits.max_wait,
        })
        .layer(ConcurrencyLimitLayer::new(
            limits.max_requests_per_connection,
        ))
        .layer(authenticate)
        .layer(CountInFlight)
        .into_inner()
}

#[async_trait]
impl Component for Server {
    async fn start(&self) -> anyhow::Result<()> {
        let end = CancellationToken::new();
        let shares = Arc::new(Shares::new(&self.services.limits));
        let server = serve(
            self.listener().await?,
            self.access.clone(),
            &self.services.limits,
            shares.clone(),
            self.routes(end.clone())?,
            layers(&self.services.limits, self.access.authenticate()),
            end.clone(),
        );
        let health = &self.services.health;
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
