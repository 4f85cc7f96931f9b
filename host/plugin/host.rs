//! The plugin host as the node sees it: engine, catalog and loader under one name, started and
//! stopped together.

use super::{Catalog, Error, Outside, loader::Loader, workshop::Workshop};
use crate::{config::Config, lifecycle::Component};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub struct PluginHost {
    dir: PathBuf,
    rescan: Duration,
    /// How long a start waits for the plugins that are there.
    patience: Duration,
    workshop: Arc<Workshop>,
    catalog: Arc<Catalog>,
    changed: watch::Sender<u64>,
    loader: Mutex<Option<Running>>,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl PluginHost {
    /// Makes the engine and the threads for guests, which may reach `outside`. Loads nothing yet.
    pub fn new(config: &Config, outside: Outside) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            dir: config.plugins.dir.clone(),
            rescan: config.plugins.rescan,
            patience: config.plugins.compile_timeout,
            workshop: Arc::new(Workshop::new(config, outside)?),
            catalog: Arc::default(),
            changed: watch::Sender::new(0),
            loader: Mutex::new(None),
        }))
    }

    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Changes after every swap, removal and rejection.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until every plugin that was there at the start has been loaded or refused, but no longer
    /// than `plugins.compile_timeout_ms`. What takes longer serves once it is loaded.
    pub async fn loaded(&self) {
        let mut changed = self.changed();
        let scanned =
            async { while !self.catalog.view().scanned && changed.changed().await.is_ok() {} };
        if tokio::time::timeout(self.patience, scanned).await.is_ok() {
            return;
        }
        tracing::warn!(
            "serving without {} plugins that take longer than {} ms to load; they serve once they \
             are loaded",
            self.catalog.view().loading.len(),
            self.patience.as_millis(),
        );
    }

    /// Where guests run. Work that spends its time in `Handler::run_here` may live here too, and
    /// saves a change of threads for each task.
    pub fn runtime(&self) -> &Handle {
        self.workshop.engine.guests()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.loader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl Component for PluginHost {
    /// Every plugin that is there when this is called is known when it returns, and is being loaded;
    /// `loaded` waits for that.
    async fn start(&self) -> anyhow::Result<()> {
        if let Err(error) = tokio::fs::create_dir_all(&self.dir).await {
            let dir = self.dir.display();
            tracing::warn!("the plugins directory {dir} cannot be made: {error}");
        }
        let loader = Loader::new(
            self.dir.clone(),
            self.rescan,
            self.workshop.clone(),
            self.catalog.clone(),
            self.changed.clone(),
        );
        let stop = CancellationToken::new();
        let (begun, known) = oneshot::channel();
        let task = tokio::spawn(loader.run(stop.clone(), begun));
        *self.running() = Some(Running { stop, task });
        known
            .await
            .map_err(|_| anyhow::anyhow!("the plugin loader ended before it was ready"))
    }

    /// Ends loader and watcher. What serves goes on serving until the host is dropped.
    async fn stop(&self) -> anyhow::Result<()> {
        let running = self.running().take();
        if let Some(Running { stop, task }) = running {
            stop.cancel();
            task.await?;
        }
        self.workshop.compiler.stop().await;
        Ok(())
    }

    fn get_id(&self) -> &str {
        "plugins"
    }
}
