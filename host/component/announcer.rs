//! Tells the cluster what this node is and what it can run, again whenever its plugins change.

use crate::{
    discovery::{NodeRecord, PluginRecord, ServiceDiscovery},
    health::{Background, Health, Part},
    lifecycle::Component,
    plugin::PluginHost,
};
use async_trait::async_trait;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// How long to wait before a failed announcement is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

pub struct Announcer {
    shared: Arc<Shared>,
    health: Health,
    following: Mutex<Option<Background>>,
}

struct Shared {
    /// What does not change.
    node: NodeRecord,
    plugins: Option<Arc<PluginHost>>,
    discovery: Arc<dyn ServiceDiscovery>,
}

impl Announcer {
    /// Announces `node` with what its `plugins` are; without them, as it is.
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

    fn following(&self) -> std::sync::MutexGuard<'_, Option<Background>> {
        self.following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
        while changed.changed().await.is_ok() {
            while let Err(error) = self.discovery.register_node(self.record()).await {
                tracing::warn!("cannot announce what this node hosts: {error}");
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
    }
}

#[async_trait]
impl Component for Announcer {
    async fn start(&self) -> anyhow::Result<()> {
        // Listen first: what changes after the first record is announced again.
        let changed = self
            .shared
            .plugins
            .as_ref()
            .map(|plugins| plugins.changed());
        let record = self.shared.record();
        self.shared.discovery.register_node(record).await?;
        *self.following() = changed.map(|changed| {
            let shared = self.shared.clone();
            let follow = move || shared.clone().follow(changed.clone());
            self.health.restarting(Part::Discovery, "announcer", follow)
        });
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let following = self.following().take();
        if let Some(following) = following {
            following.stop().await;
        }
        Ok(self.shared.discovery.deregister_node().await?)
    }

    fn get_id(&self) -> &str {
        "announcer"
    }
}
