//! The plugin host as the node sees it: engine, catalog and loader under one name, started and
//! stopped together.

use super::{
    Catalog, Error, Outside, gate::Kind, gate::Room, loader::Loader, sizing, workshop::Workshop,
};
use hostel_config::Config;
use hostel_runtime::health::{Background, Health, Part};
use hostel_runtime::lifecycle::Component;
use hostel_task::Resources;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};
use tokio_util::sync::CancellationToken;

pub struct PluginHost {
    plugins: hostel_config::Plugins,
    dir: PathBuf,
    rescan: Duration,
    /// How long a start waits for the plugins that are there.
    patience: Duration,
    workshop: Arc<Workshop>,
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
    /// Makes the engine and the threads for guests, which may reach `outside`. Loads nothing yet.
    pub fn new(config: &Config, outside: Outside, health: &Health) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            plugins: config.plugins.clone(),
            dir: config.plugins.dir.clone(),
            rescan: config.plugins.rescan,
            patience: config.plugins.compile_timeout,
            workshop: Arc::new(Workshop::new(config, outside, health)?),
            catalog: Arc::default(),
            changed: watch::Sender::new(0),
            health: health.clone(),
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

    /// Reserves the room that tasks can have now, up to `most`.
    pub fn offer(&self, most: Resources) -> Room {
        self.workshop.engine.gate.offer(most)
    }

    /// The room that tasks could have now.
    pub fn free(&self) -> Resources {
        self.workshop.engine.gate.free()
    }

    /// Waits for room for a task. From the first poll on, whatever becomes free is for it.
    pub async fn reserve(&self, needs: Resources) -> Room {
        match self.workshop.engine.gate.enter(Kind::Task, needs).await {
            Ok(room) => room,
            // The gate is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Makes room that was reserved as large as `needs`; `None` when that is not free now.
    pub fn fit(&self, room: Room, needs: Resources) -> Option<Room> {
        self.workshop.engine.gate.fit(room, needs)
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
        sizing::warn(&self.plugins, &self.workshop.engine.gate);
        if let Err(error) = tokio::fs::create_dir_all(&self.dir).await {
            let dir = self.dir.display();
            tracing::warn!("the plugins directory {dir} cannot be made: {error}");
        }
        let stop = CancellationToken::new();
        let (begun, known) = oneshot::channel();
        let mut begun = Some(begun);
        let (dir, rescan, stopped) = (self.dir.clone(), self.rescan, stop.clone());
        let (workshop, catalog) = (self.workshop.clone(), self.catalog.clone());
        let changed = self.changed.clone();
        // One that failed is followed by one that loads everything again, from the cache.
        let load = move || {
            let (workshop, catalog) = (workshop.clone(), catalog.clone());
            let loader = Loader::new(dir.clone(), rescan, workshop, catalog, changed.clone());
            loader.run(stopped.clone(), begun.take())
        };
        let task = self.health.restarting(Part::Plugins, "plugin-loader", load);
        *self.running() = Some(Running { stop, task });
        known
            .await
            .map_err(|_| anyhow::anyhow!("the plugin loader ended before it was ready"))
    }

    /// Ends loader and watcher. What serves goes on serving until the host is dropped.
    async fn stop(&self) -> anyhow::Result<()> {
        let running = self.running().take();
        if let Some(Running { stop, mut task }) = running {
            task.expect_end();
            stop.cancel();
            task.ended().await;
        }
        self.workshop.compiler.stop().await;
        Ok(())
    }

    fn get_id(&self) -> &str {
        "plugins"
    }
}
