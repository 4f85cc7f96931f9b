//! The registration of this node with discovery: what it is and what it can run, renewed whenever its
//! plugins change.

use crate::{
    discovery::{NodeRecord, PluginRecord, ServiceDiscovery},
    health::{Background, Health, Part},
    lifecycle::Component,
    log_limit::LogLimit,
    plugin::PluginHost,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// The delay before a failed registration is retried.
const RETRY: Duration = Duration::from_secs(1);

/// Registers the node while it is started.
pub struct NodeRegistration {
    shared: Arc<Shared>,
    health: Health,
    following: Mutex<Option<Background>>,
}

struct Shared {
    /// The part of the record that does not change.
    node: NodeRecord,
    plugins: Option<Arc<PluginHost>>,
    discovery: Arc<dyn ServiceDiscovery>,
}

impl NodeRegistration {
    /// Registers `node` together with what its `plugins` offer, if it has any.
    pub fn new(
        node: NodeRecord,
        plugins: Option<Arc<PluginHost>>,
        discovery: Arc<dyn ServiceDiscovery>,
        health: Health,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                node,
                plugins,
                discovery,
            }),
            health,
            following: Mutex::default(),
        }
    }
}

impl Shared {
    fn record(&self) -> NodeRecord {
        let plugins = self.plugins.as_ref();
        let Some(view) = plugins.map(|plugins| plugins.catalog().view()) else {
            return self.node.clone();
        };
        NodeRecord {
            starting: !view.scanned,
            expected_types: view.expected_types().cloned().collect(),
            task_types: view.task_types.keys().cloned().collect(),
            plugins: view
                .generations
                .values()
                .map(|generation| PluginRecord {
                    name: generation.name.clone(),
                    version: generation.version.clone(),
                    sha256: generation.sha256.clone(),
                })
                .collect(),
            components: view
                .generations
                .values()
                .filter(|generation| generation.has_component())
                .map(|generation| generation.name.clone())
                .collect(),
            ..self.node.clone()
        }
    }

    async fn follow(self: Arc<Self>, mut changed: watch::Receiver<u64>) {
        let log_limit = LogLimit::of_retries();
        while changed.changed().await.is_ok() {
            while let Err(error) = self.discovery.register_node(self.record()).await {
                if let Some(left_out) = log_limit.permit() {
                    tracing::warn!(
                        left_out,
                        "this node's plugins cannot be registered; trying again: {error}"
                    );
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

#[async_trait]
impl Component for NodeRegistration {
    async fn start(&self) -> anyhow::Result<()> {
        // Subscribed first, so that a change after the first record is registered as well.
        let changed = self
            .shared
            .plugins
            .as_ref()
            .map(|plugins| plugins.changed());
        let record = self.shared.record();
        self.shared.discovery.register_node(record).await?;
        *self.following.lock() = changed.map(|changed| {
            let shared = self.shared.clone();
            let follow = move || shared.clone().follow(changed.clone());
            self.health
                .restarting(Part::Discovery, "registration", follow)
        });
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let following = self.following.lock().take();
        if let Some(following) = following {
            following.stop().await;
        }
        Ok(self.shared.discovery.deregister_node().await?)
    }

    fn get_id(&self) -> &str {
        "registration"
    }
}
