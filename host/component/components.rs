//! The components of a node's plugins, as one part of the node: each plugin that exports a component
//! gets an actor, which starts and stops with the node and follows the changes of the catalog.

use super::{actor::Actor, actor_state::ActorContext, router::Router, status::Status};
use crate::{
    config::Config,
    health::{Background, Health, Part},
    lifecycle::Component,
    plugin::PluginHost,
    task::Name,
};
use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// The actors of all plugins that export a component.
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
    context: ActorContext,
    actors: Mutex<BTreeMap<Name, Arc<Actor>>>,
    /// The latest change of the plugins that the actors have followed.
    caught_up: watch::Sender<u64>,
}

impl Components {
    /// Makes the components of all plugins, which follow the catalog once started.
    pub fn new(
        plugins: Arc<PluginHost>,
        router: Arc<Router>,
        health: Health,
        config: &Config,
    ) -> Self {
        let context = ActorContext {
            router,
            health,
            slots: Arc::new(Semaphore::new(config.plugins.max_components)),
            changed: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(Shared {
                plugins,
                config: config.clone(),
                context,
                actors: Mutex::default(),
                caught_up: watch::Sender::new(0),
            }),
            following: Mutex::default(),
        }
    }

    /// Waits until a start of every component that serves now has been tried.
    pub async fn caught_up(&self) {
        let now = *self.shared.plugins.changed().borrow();
        let mut caught_up = self.shared.caught_up.subscribe();
        // Cannot fail: the sender lives as long as `self`.
        let _ = caught_up.wait_for(|seen| *seen >= now).await;
    }

    /// The status of each component, in the order of their ids.
    pub fn statuses(&self) -> Vec<Status> {
        let actors = self.shared.actors.lock();
        actors.values().map(|actor| actor.status()).collect()
    }

    /// Changes whenever a component is added, removed, or gets into another state.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.context.changed.subscribe()
    }
}

impl Shared {
    /// Follows the catalog until `stop`; a change that has begun is carried through.
    async fn follow(self: Arc<Self>, mut changed: watch::Receiver<u64>, stop: CancellationToken) {
        while let Some(Ok(())) = stop.run_until_cancelled(changed.changed()).await {
            let seen = *changed.borrow_and_update();
            self.catch_up().await;
            self.caught_up.send_replace(seen);
        }
    }

    /// Makes the actors match the catalog. The components of one change start and stop concurrently,
    /// each within its own time limit; the next change waits for the slowest of them.
    async fn catch_up(&self) {
        let view = self.plugins.catalog().view();
        let wanted: BTreeMap<_, _> = view
            .generations
            .values()
            .filter(|generation| generation.has_component())
            .map(|generation| (generation.name.clone(), generation))
            .collect();
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        {
            let mut actors = self.actors.lock();
            for (name, &generation) in &wanted {
                if let Some(actor) = actors.get(name) {
                    actor.replace(generation.clone());
                    continue;
                }
                let limits = self.config.component(name);
                let guests = self.plugins.runtime().clone();
                let actor = Actor::new(generation.clone(), limits, self.context.clone(), guests);
                let actor = Arc::new(actor);
                actors.insert(name.clone(), actor.clone());
                new.push(actor);
            }
            actors.retain(|name, actor| {
                let stays = wanted.contains_key(name);
                if !stays {
                    gone.push(actor.clone());
                }
                stays
            });
        }
        let starting = new
            .iter()
            .map(async |actor| report(actor, actor.start().await));
        let stopping = gone
            .iter()
            .map(async |actor| report(actor, actor.stop().await));
        tokio::join!(join_all(starting), join_all(stopping));
        self.context.changed.send_modify(|count| *count += 1);
    }
}

/// Stops all actors, and empties the map. `followed` ends once no change adds or starts one any more.
/// Returns the errors.
async fn stop_all<A: Component>(
    actors: &Mutex<BTreeMap<Name, Arc<A>>>,
    followed: impl Future<Output = ()>,
) -> Vec<String> {
    // Concurrently, since a component that a change is still starting ends sooner if it is stopped. The
    // second round stops what the change started after the first, which may be an actor that the first
    // one found before its start: so the first leaves all of them in the map.
    let first: Vec<_> = actors.lock().values().cloned().collect();
    let (mut failed, ()) = tokio::join!(stop_each(&first), followed);
    let rest: Vec<_> = std::mem::take(&mut *actors.lock()).into_values().collect();
    failed.extend(stop_each(&rest).await);
    failed
}

/// Stops the actors concurrently. Returns the errors.
async fn stop_each<A: Component>(actors: &[Arc<A>]) -> Vec<String> {
    let stopped = join_all(actors.iter().map(|actor| actor.stop())).await;
    let failed = stopped.into_iter().filter_map(Result::err);
    failed.map(|error| format!("{error:#}")).collect()
}

fn report(actor: &Actor, done: anyhow::Result<()>) {
    if let Err(error) = done {
        tracing::warn!(component = %actor.id(), "{error:#}");
    }
}

#[async_trait]
impl Component for Components {
    /// Returns once a start of every component has been tried. A component that cannot start is
    /// logged, and does not fail this.
    async fn start(&self) -> anyhow::Result<()> {
        // Subscribed first, so that changes during these starts are followed after them.
        let mut changed = self.shared.plugins.changed();
        let seen = *changed.borrow_and_update();
        self.shared.catch_up().await;
        self.shared.caught_up.send_replace(seen);
        let stop = CancellationToken::new();
        let (shared, stopped) = (self.shared.clone(), stop.clone());
        let follow = move || shared.clone().follow(changed.clone(), stopped.clone());
        let health = &self.shared.context.health;
        let task = health.restarting(Part::Plugins, "component-manager", follow);
        *self.following.lock() = Some(Following { stop, task });
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let following = self.following.lock().take();
        let followed = async {
            if let Some(Following { stop, mut task }) = following {
                task.expect_end();
                stop.cancel();
                task.ended().await;
            }
        };
        let failed = stop_all(&self.shared.actors, followed).await;
        anyhow::ensure!(failed.is_empty(), "{}", failed.join("; "));
        Ok(())
    }

    fn get_id(&self) -> &str {
        "components"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Runs from its start until its stop.
    #[derive(Default)]
    struct Part {
        is_running: AtomicBool,
    }

    #[async_trait]
    impl Component for Part {
        async fn start(&self) -> anyhow::Result<()> {
            self.is_running.store(true, Ordering::SeqCst);
            Ok(())
        }

        async fn stop(&self) -> anyhow::Result<()> {
            self.is_running.store(false, Ordering::SeqCst);
            Ok(())
        }

        fn get_id(&self) -> &str {
            "part"
        }
    }

    #[tokio::test]
    async fn what_a_change_starts_after_the_first_round_is_stopped_by_the_second() {
        let name = |name| Name::parse("name", name).unwrap();
        // One was added before the first round and is started after it, the other is added after it.
        let (added, late) = (Arc::new(Part::default()), Arc::new(Part::default()));
        let actors = Mutex::new(BTreeMap::from([(name("added"), added.clone())]));
        let followed = async {
            tokio::task::yield_now().await;
            added.start().await.unwrap();
            actors.lock().insert(name("late"), late.clone());
            late.start().await.unwrap();
        };
        assert!(stop_all(&actors, followed).await.is_empty());
        for part in [added, late] {
            assert!(!part.is_running.load(Ordering::SeqCst));
        }
        assert!(actors.lock().is_empty());
    }
}
