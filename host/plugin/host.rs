//! The plugin host as the node uses it: engine, catalog and loader, started and stopped together.

use super::{
    catalog::Catalog,
    error::Error,
    load::{builder::Builder, loader::Loader},
    sandbox::{
        admission::{GuestKind, Permit},
        capabilities::Capabilities,
        sizing,
    },
};
use hostel_config::{self as config, Config};
use hostel_runtime::{
    health::{Background, Health, Part},
    lifecycle::Component,
};
use hostel_task::Resources;
use parking_lot::Mutex;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};
use tokio_util::sync::CancellationToken;

/// Loads the plugins of a directory and runs their guests.
pub struct PluginHost {
    plugins: config::Plugins,
    dir: PathBuf,
    rescan: Duration,
    /// How long `loaded` waits for the plugins of the first scan.
    load_timeout: Duration,
    builder: Arc<Builder>,
    catalog: Arc<Catalog>,
    changed: watch::Sender<u64>,
    health: Health,
    loader: Mutex<Option<Running>>,
}

struct Running {
    stop: CancellationToken,
    task: Background,
}

impl PluginHost {
    /// Makes the engine and the threads for guests, and lends them `capabilities`. Loads nothing yet.
    pub fn new(
        config: &Config,
        capabilities: Capabilities,
        health: &Health,
    ) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            plugins: config.plugins.clone(),
            dir: config.plugins.dir.clone(),
            rescan: config.plugins.rescan,
            load_timeout: config.plugins.compile_timeout,
            builder: Arc::new(Builder::new(config, capabilities, health)?),
            catalog: Arc::default(),
            changed: watch::Sender::new(0),
            health: health.clone(),
            loader: Mutex::new(None),
        }))
    }

    /// Which generation serves which task type now.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Changes after each swap, removal and rejection.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until every plugin of the first scan has been loaded or refused, but no longer than
    /// `plugins.compile_timeout_ms`. A plugin that takes longer serves once it is loaded.
    pub async fn loaded(&self) {
        let mut changed = self.changed();
        let scanned =
            async { while !self.catalog.view().scanned && changed.changed().await.is_ok() {} };
        if tokio::time::timeout(self.load_timeout, scanned)
            .await
            .is_ok()
        {
            return;
        }
        tracing::warn!(
            "serving without {} plugins that take longer than {} ms to load; they serve once they \
             are loaded",
            self.catalog.view().loading.len(),
            self.load_timeout.as_millis(),
        );
    }

    /// The runtime that guests run on. A task that spends its time in `Handler::run_here` may run here
    /// as well, which saves a change of threads for each call.
    pub fn runtime(&self) -> &Handle {
        self.builder.engine.guests()
    }

    /// Reserves what is free for tasks, up to `most`.
    pub fn reserve_up_to(&self, most: Resources) -> Permit {
        self.builder.engine.admission.reserve_up_to(most)
    }

    /// What is free for tasks.
    pub fn free(&self) -> Resources {
        self.builder.engine.admission.free()
    }

    /// Waits until a task with these `needs` is admitted. From the first poll on, all that becomes free
    /// is kept for it.
    pub async fn reserve(&self, needs: Resources) -> Permit {
        let admission = &self.builder.engine.admission;
        match admission.acquire(GuestKind::Task, needs).await {
            Ok(permit) => permit,
            // Unreachable: the semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Grows a permit to `needs`; `None` if that much more is not free.
    pub fn grow(&self, permit: Permit, needs: Resources) -> Option<Permit> {
        self.builder.engine.admission.grow(permit, needs)
    }
}

#[async_trait::async_trait]
impl Component for PluginHost {
    /// Returns once every plugin in the directory is known and is being loaded; `loaded` waits for the
    /// end of that.
    async fn start(&self) -> anyhow::Result<()> {
        sizing::warn(&self.plugins);
        if let Err(error) = tokio::fs::create_dir_all(&self.dir).await {
            let dir = self.dir.display();
            tracing::warn!("the plugins directory {dir} cannot be created: {error}");
        }
        let stop = CancellationToken::new();
        let (begun, known) = oneshot::channel();
        let mut begun = Some(begun);
        let (dir, rescan, stopped) = (self.dir.clone(), self.rescan, stop.clone());
        let (builder, catalog) = (self.builder.clone(), self.catalog.clone());
        let changed = self.changed.clone();
        // A loader that panicked is followed by one that begins with what the catalog has.
        let load = move || {
            let (builder, catalog) = (builder.clone(), catalog.clone());
            let loader = Loader::new(dir.clone(), rescan, builder, catalog, changed.clone());
            loader.run(stopped.clone(), begun.take())
        };
        let task = self.health.restarting(Part::Plugins, "plugin-loader", load);
        *self.loader.lock() = Some(Running { stop, task });
        known
            .await
            .map_err(|_| anyhow::anyhow!("the plugin loader ended before it was ready"))
    }

    /// Stops the loader. The generations that serve go on serving until the host is dropped.
    async fn stop(&self) -> anyhow::Result<()> {
        let running = self.loader.lock().take();
        if let Some(Running { stop, mut task }) = running {
            task.expect_end();
            stop.cancel();
            task.ended().await;
        }
        self.builder.compiler.stop().await;
        Ok(())
    }

    fn get_id(&self) -> &str {
        "plugins"
    }
}
