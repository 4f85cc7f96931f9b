//! The components of a node's plugins, as one part of the node: each plugin that has a component
//! gets one, started and stopped with the node, given new code and let go as the catalog changes.

use super::{
    router::Router,
    status::Status,
    supervised::{Supervised, Surroundings},
};
use crate::{
    config::Config,
    health::{Background, Health, Part},
    lifecycle::Component,
    plugin::PluginHost,
    task::Name,
};
use async_trait::async_trait;
use futures_util::future::join_all;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

pub struct Components {
    shared: Arc<Shared>,
    following: Mutex<Option<Following>>,
}

struct Following {
    stop: CancellationToken,
    task: Background,
}

struct Shared {
    plugins: Arc<PluginHost>,
    config: Config,
    surroundings: Surroundings,
    members: Mutex<BTreeMap<Name, Arc<Supervised>>>,
    /// The change of the plugins that the members follow from.
    caught_up: watch::Sender<u64>,
}

impl Components {
    pub fn new(
        plugins: Arc<PluginHost>,
        router: Arc<Router>,
        health: Health,
        config: &Config,
    ) -> Self {
        let surroundings = Surroundings {
            router,
            health,
            places: Arc::new(Semaphore::new(config.plugins.max_components)),
            changed: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(Shared {
                plugins,
                config: config.clone(),
                surroundings,
                members: Mutex::default(),
                caught_up: watch::Sender::new(0),
            }),
            following: Mutex::default(),
        }
    }

    /// Waits until the component of each plugin that serves now has been tried.
    pub async fn caught_up(&self) {
        let now = *self.shared.plugins.changed().borrow();
        let mut caught_up = self.shared.caught_up.subscribe();
        // The sender lives as long as this.
        let _ = caught_up.wait_for(|seen| *seen >= now).await;
    }

    /// By id.
    pub fn statuses(&self) -> Vec<Status> {
        let members = self.shared.members();
        members.values().map(|member| member.status()).collect()
    }

    /// Changes with every component that comes, goes, or gets into another state.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.surroundings.changed.subscribe()
    }

    fn following(&self) -> MutexGuard<'_, Option<Following>> {
        self.following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn members(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Supervised>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until `stop`, which ends no change in the middle.
    async fn follow(self: Arc<Self>, mut changed: watch::Receiver<u64>, stop: CancellationToken) {
        while let Some(Ok(())) = stop.run_until_cancelled(changed.changed()).await {
            let seen = *changed.borrow_and_update();
            self.catch_up().await;
            self.caught_up.send_replace(seen);
        }
    }

    async fn stop_all(&self) -> Vec<String> {
        let members = std::mem::take(&mut *self.members());
        let stopped = join_all(members.values().map(|member| member.stop())).await;
        let failed = stopped.into_iter().filter_map(Result::err);
        failed.map(|error| format!("{error:#}")).collect()
    }

    /// Brings the components to what the catalog says. Those of one change start and stop beside
    /// each other, each within its own time; the next change waits for the slowest.
    async fn catch_up(&self) {
        let view = self.plugins.catalog().view();
        let having = view.generations.values();
        let wanted = having.filter(|generation| generation.has_component());
        let wanted: BTreeMap<_, _> = wanted.map(|wanted| (wanted.name.clone(), wanted)).collect();
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        {
            let mut members = self.members();
            for (name, &generation) in &wanted {
                if let Some(member) = members.get(name) {
                    member.replace(generation.clone());
                    continue;
                }
                let limits = self.config.component(name);
                let guests = self.plugins.runtime().clone();
                let surroundings = self.surroundings.clone();
                let member = Supervised::new(generation.clone(), limits, surroundings, guests);
                let member = Arc::new(member);
                members.insert(name.clone(), member.clone());
                new.push(member);
            }
            members.retain(|name, member| {
                let stays = wanted.contains_key(name);
                if !stays {
                    gone.push(member.clone());
                }
                stays
            });
        }
        let starting = new
            .iter()
            .map(async |member| report(member, member.start().await));
        let stopping = gone
            .iter()
            .map(async |member| report(member, member.stop().await));
        tokio::join!(join_all(starting), join_all(stopping));
        self.surroundings.changed.send_modify(|count| *count += 1);
    }
}

fn report(member: &Supervised, done: anyhow::Result<()>) {
    if let Err(error) = done {
        tracing::warn!(component = %member.id(), "{error:#}");
    }
}

#[async_trait]
impl Component for Components {
    /// Every component has been tried when this returns; what would not start is reported.
    async fn start(&self) -> anyhow::Result<()> {
        // Listen first: what changes while these start is done after them.
        let mut changed = self.shared.plugins.changed();
        let seen = *changed.borrow_and_update();
        self.shared.catch_up().await;
        self.shared.caught_up.send_replace(seen);
        let stop = CancellationToken::new();
        let (shared, stopped) = (self.shared.clone(), stop.clone());
        let follow = move || shared.clone().follow(changed.clone(), stopped.clone());
        let health = &self.shared.surroundings.health;
        let task = health.restarting(Part::Plugins, "component-manager", follow);
        *self.following() = Some(Following { stop, task });
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let following = self.following().take();
        let followed = async {
            if let Some(Following { stop, mut task }) = following {
                task.expect_end();
                stop.cancel();
                task.ended().await;
            }
        };
        // Beside each other: what a change is still starting ends sooner when it is told to stop.
        let (mut failed, ()) = tokio::join!(self.shared.stop_all(), followed);
        failed.extend(self.shared.stop_all().await);
        anyhow::ensure!(failed.is_empty(), "{}", failed.join("; "));
        Ok(())
    }

    fn get_id(&self) -> &str {
        "components"
    }
}
