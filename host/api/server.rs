//! The gRPC server as a part of a node, with its services and the layers before them. Its address is bound
//! before anything else starts, so that a port in use is noticed early.

use super::{
    convert::TaskLimits,
    readiness::Readiness,
    security::{
        Reloaded, Security,
        auth::{self, Authenticate},
        reloadable,
    },
    services::{
        components::ComponentServiceImpl,
        distributed::DistributedServiceImpl,
        health::{HealthServiceImpl, Statuses},
        nodes::NodeServiceImpl,
        plugins::PluginServiceImpl,
        reflection::Reflection,
        schedules::ScheduleServiceImpl,
        tasks::TaskServiceImpl,
        types::TypeServiceImpl,
    },
    transport::{
        deadlines::Deadlines,
        in_flight::CountInFlight,
        serve::{CallService, serve},
        share::Shares,
    },
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
        grpc::{
            health::v1::health_server::{self, HealthServer},
            reflection::{
                v1::server_reflection_server::{
                    self as reflection_v1, ServerReflectionServer as ReflectionV1,
                },
                v1alpha::server_reflection_server::{
                    self as reflection_v1alpha, ServerReflectionServer as ReflectionV1Alpha,
                },
            },
        },
        hostel::v1::{
            component_service_server::{self, ComponentServiceServer},
            node_service_server::{self, NodeServiceServer},
            plugin_service_server::{self, PluginServiceServer},
            schedule_service_server::{self, ScheduleServiceServer},
            task_service_server::{self, TaskServiceServer},
            type_service_server::{self, TypeServiceServer},
        },
    },
    scheduler::{TaskScheduler, schedules::Schedules, types::Types},
};
use anyhow::Context;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::{Layer, ServiceBuilder, limit::ConcurrencyLimitLayer};

/// How long open calls may take to end when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// The largest health check, which has room for the name of a service. Health checks need no token and count in
/// no budget.
const MAX_HEALTH_CHECK_BYTES: usize = 1 << 10;

/// The engines behind the services.
#[derive(Clone)]
pub struct Services {
    /// The nodes of the cluster and their services.
    pub discovery: Arc<dyn ServiceDiscovery>,
    /// Delivers messages.
    pub router: Arc<component::Router>,
    /// Admits and reads tasks.
    pub scheduler: Arc<dyn TaskScheduler>,
    /// Absent on a node whose queue it does not know.
    pub schedules: Option<Schedules>,
    /// Absent on a node whose queue it does not know.
    pub types: Option<Types>,
    /// Absent on a node that hosts no plugins itself.
    pub plugins: Option<Arc<PluginHost>>,
    /// Absent on a node that hosts no components itself.
    pub components: Option<Arc<Components>>,
    /// The health of the node.
    pub health: Health,
    /// The limits of the API.
    pub limits: config::Limits,
    /// The longest time that a task may ask for an attempt (`plugins.max_timeout`).
    pub max_timeout: Duration,
}

/// The server. It serves from its start until its stop.
pub struct Server {
    address: SocketAddr,
    security: Arc<Security>,
    services: Services,
    published: Statuses,
    listener: Mutex<Option<TcpListener>>,
    serving: Mutex<Option<Serving>>,
}

struct Serving {
    end: CancellationToken,
    server: Background,
    /// Reloads certificates and tokens.
    credentials: Background,
    /// Closes stalled connections.
    stalls: Background,
}

impl Server {
    /// Binds the address, with port 0 a free port of it. An address beyond loopback needs security that
    /// allows it.
    pub async fn bind(
        address: SocketAddr,
        security: Security,
        services: Services,
    ) -> anyhow::Result<Self> {
        security.allows(address)?;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} (node.listen)"))?;
        Ok(Self {
            address: listener.local_addr()?,
            security: Arc::new(security),
            services,
            published: Statuses::default(),
            listener: Mutex::new(Some(listener)),
            serving: Mutex::default(),
        })
    }

    /// The address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The part that publishes the readiness of the node.
    pub fn readiness(&self) -> Readiness {
        Readiness::new(
            self.published.clone(),
            names(&self.services),
            self.services.health.clone(),
            self.services.components.clone(),
        )
    }

    /// Reads tokens and certificates again, and returns what has become of each section.
    pub fn reload(&self, config: &config::Config) -> [(&'static str, Reloaded); 2] {
        self.security.reload(config)
    }

    fn routes(&self, end: CancellationToken) -> anyhow::Result<Routes> {
        let services = self.services.clone();
        let limits = &services.limits;
        let task_limits = TaskLimits::new(limits, services.max_timeout);
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
            task_limits: task_limits.clone(),
            limits: limits.clone(),
        });
        let types = TypeServiceServer::new(TypeServiceImpl {
            scheduler: services.scheduler.clone(),
            types: services.types,
        });
        let tasks =
            TaskServiceImpl::new(services.scheduler, limits.clone(), task_limits, end.clone());
        let tasks = TaskServiceServer::new(tasks);
        let schedules = services
            .schedules
            .map(|schedules| ScheduleServiceServer::new(ScheduleServiceImpl { schedules }));
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
        let reflection = Reflection::new(&names(&self.services), DESCRIPTORS, end.clone())?;
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
            .add_service(
                types
                    .max_decoding_message_size(max)
                    .max_encoding_message_size(max),
            )
            .add_service(health.max_decoding_message_size(MAX_HEALTH_CHECK_BYTES))
            .add_service(ReflectionV1::new(reflection.clone()))
            .add_service(ReflectionV1Alpha::new(reflection));
        if let Some(schedules) = schedules {
            routes.add_service(
                schedules
                    .max_decoding_message_size(max)
                    .max_encoding_message_size(max),
            );
        }
        if let Some(plugins) = plugins {
            routes.add_service(plugins);
        }
        if let Some(components) = components {
            routes.add_service(components);
        }
        Ok(routes.routes())
    }

    async fn listener(&self) -> anyhow::Result<TcpListener> {
        let bound = self.listener.lock().take();
        match bound {
            Some(listener) => Ok(listener),
            // After a stop.
            None => Ok(TcpListener::bind(self.address).await?),
        }
    }
}

/// The names of all services.
fn names(services: &Services) -> Vec<&'static str> {
    let mut names = vec![
        distributed_service_server::SERVICE_NAME,
        task_service_server::SERVICE_NAME,
        node_service_server::SERVICE_NAME,
        type_service_server::SERVICE_NAME,
        health_server::SERVICE_NAME,
        reflection_v1::SERVICE_NAME,
        reflection_v1alpha::SERVICE_NAME,
    ];
    let schedules = services.schedules.as_ref();
    names.extend(schedules.map(|_| schedule_service_server::SERVICE_NAME));
    let plugins = services.plugins.as_ref();
    names.extend(plugins.map(|_| plugin_service_server::SERVICE_NAME));
    let components = services.components.as_ref();
    names.extend(components.map(|_| component_service_server::SERVICE_NAME));
    names
}

/// The layers before the services, from the outermost on. They are created anew for each connection, so that
/// their limits are per connection.
fn layers(
    limits: &config::Limits,
    authenticate: Authenticate,
) -> impl Layer<Routes, Service = impl CallService + use<>> + Send + Sync + use<> {
    ServiceBuilder::new()
        // Outermost, so that waiting for the limit below counts in a call's time.
        .layer(Deadlines {
            max: limits.request_timeout + limits.max_wait,
        })
        .layer(ConcurrencyLimitLayer::new(
            limits.max_requests_per_connection,
        ))
        .layer(authenticate)
        .layer(CountInFlight { open: auth::OPEN })
        .into_inner()
}

#[async_trait]
impl Component for Server {
    async fn start(&self) -> anyhow::Result<()> {
        let end = CancellationToken::new();
        let shares = Arc::new(Shares::new(&self.services.limits));
        let server = serve(
            self.listener().await?,
            self.security.clone(),
            &self.services.limits,
            shares.clone(),
            self.routes(end.clone())?,
            layers(&self.services.limits, self.security.authenticate()),
            end.clone(),
        );
        let health = &self.services.health;
        let server = health.vital(Part::Api, "grpc-server", server);
        let values = self.security.reloadables();
        let watch = move || reloadable::watch(values.clone());
        let credentials = health.restarting(Part::Api, "credential-watcher", watch);
        let watch = move || shares.clone().watch();
        let stalls = health.restarting(Part::Api, "stall-watcher", watch);
        *self.serving.lock() = Some(Serving {
            end,
            server,
            credentials,
            stalls,
        });
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let Some(mut serving) = self.serving.lock().take() else {
            return Ok(());
        };
        serving.server.expect_end();
        serving.end.cancel();
        serving.credentials.stop().await;
        serving.stalls.stop().await;
        let ended = tokio::time::timeout(STOP_TIMEOUT, serving.server.ended()).await;
        if ended.is_err() {
            tracing::info!("open calls did not end within {STOP_TIMEOUT:?} and were cut off");
            serving.server.stop().await;
        }
        Ok(())
    }

    fn get_id(&self) -> &str {
        "grpc"
    }
}
