//! What the gRPC health service reports: whether the node does its work, whether each part does, and,
//! as `component/ID`, whether a component takes messages. Started last, stopped first.

use super::health_service::Statuses;
use crate::{
    component::Components,
    health::{Background, Health, Part, Severity},
    lifecycle::Component,
};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub struct Readiness {
    published: Statuses,
    sources: Sources,
    following: Mutex<Option<Background>>,
}

/// Where the statuses come from.
#[derive(Clone)]
struct Sources {
    /// The services that serve while the node does its work.
    services: Vec<&'static str>,
    health: Health,
    components: Option<Arc<Components>>,
}

impl Readiness {
    /// Reports into `published`; `services` are the names of all that the server has.
    pub fn new(
        published: Statuses,
        mut services: Vec<&'static str>,
        health: Health,
        components: Option<Arc<Components>>,
    ) -> Self {
        // The node itself.
        services.push("");
        Self {
            published,
            sources: Sources {
                services,
                health,
                components,
            },
            following: Mutex::default(),
        }
    }

    fn following(&self) -> MutexGuard<'_, Option<Background>> {
        self.following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether each service serves, by its name.
type Serving = BTreeMap<String, bool>;

impl Sources {
    fn serving(&self) -> Serving {
        let is_serving = self.health.is_serving();
        let services = self.services.iter();
        let services = services.map(|service| ((*service).to_owned(), is_serving));
        let parts = Part::ALL.into_iter().map(|part| {
            let is_down = self.health.worst_of(part) == Some(Severity::Down);
            (part.as_str().to_owned(), !is_down)
        });
        let components = self.components.iter();
        let components = components.flat_map(|components| components.statuses());
        let components = components.map(|it| (format!("component/{}", it.id), it.is_healthy()));
        services.chain(parts).chain(components).collect()
    }

    /// Publishes what differs from before, again with every change of a source.
    async fn follow(self, published: Statuses) {
        let mut before = Serving::new();
        let mut faults = self.health.changed();
        let mut components = self.components.as_ref().map(|it| it.changed());
        loop {
            faults.mark_unchanged();
            components.as_mut().map(|changed| changed.mark_unchanged());
            let now = self.serving();
            publish(&published, &before, &now);
            before = now;
            let component_changes = async {
                match &mut components {
                    Some(changed) => changed.changed().await,
                    None => std::future::pending().await,
                }
            };
            let goes_on = tokio::select! {
                changed = faults.changed() => changed,
                changed = component_changes => changed,
            };
            if goes_on.is_err() {
                return;
            }
        }
    }
}

fn publish(published: &Statuses, before: &Serving, now: &Serving) {
    for (service, serves) in now {
        published.set(service.as_str(), *serves);
    }
    for gone in before.keys().filter(|service| !now.contains_key(*service)) {
        published.remove(gone);
    }
}

#[async_trait]
impl Component for Readiness {
    async fn start(&self) -> anyhow::Result<()> {
        publish(&self.published, &Serving::new(), &self.sources.serving());
        let (sources, published) = (self.sources.clone(), self.published.clone());
        // All of it once more when it starts again.
        let follow = move || sources.clone().follow(published.clone());
        let health = &self.sources.health;
        let following = health.restarting(Part::Api, "health-reporter", follow);
        *self.following() = Some(following);
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let following = self.following().take();
        if let Some(following) = following {
            following.stop().await;
        }
        let mut stopped = self.sources.serving();
        stopped.values_mut().for_each(|serves| *serves = false);
        publish(&self.published, &Serving::new(), &stopped);
        Ok(())
    }

    fn get_id(&self) -> &str {
        "readiness"
    }
}
