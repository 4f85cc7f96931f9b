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
    /// Makes the engine and the threads for guests. Loads nothing yet.
    pub fn new(config: &Config, outside: Outside) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            dir: config.plugins.dir.clone(),
            rescan: config.plugins.rescan,
            // Less than what the node allows this part for its start.
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
    /// Every plugin that is there when this is called has been loaded or refused when it returns.
    /// Those that take too long are named in the log, and come later.
    async fn start(&self) -> anyhow::Result<()> {
        if let Err(error) = tokio::fs::create_dir_all(&self.dir).await {
            let dir = self.dir.display();
            tracing::warn!("the plugins directory {dir} cannot be made: {error}");
        }
        let loader = Loader::new(
            self.dir.clone(),
            self.rescan,
            self.patience,
            self.workshop.clone(),
            self.catalog.clone(),
            self.changed.clone(),
        );
        let stop = CancellationToken::new();
        let (ready, loaded) = oneshot::channel();
        let task = tokio::spawn(loader.run(stop.clone(), ready));
        *self.running() = Some(Running { stop, task });
        loaded
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
