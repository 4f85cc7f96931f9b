//! Publishes to the gRPC health service whether the node works, whether each of its parts does, and, as
//! `component/ID`, whether each component takes messages. Started last and stopped first.

use super::services::health::Statuses;
use crate::{
    component::Components,
    health::{Background, Health, Part, Severity},
    lifecycle::Component,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

/// The part of a node that publishes its readiness.
pub struct Readiness {
    published: Statuses,
    sources: Sources,
    publisher: Mutex<Option<Background>>,
}

/// The sources of the statuses.
#[derive(Clone)]
struct Sources {
    /// The services, which serve while the node works.
    services: Vec<&'static str>,
    health: Health,
    components: Option<Arc<Components>>,
}

impl Readiness {
    /// Publishes to `published`; `services` are the names of all services of the server.
    pub fn new(
        published: Statuses,
        mut services: Vec<&'static str>,
        health: Health,
        components: Option<Arc<Components>>,
    ) -> Self {
        // The empty name stands for the node itself.
        services.push("");
        Self {
            published,
            sources: Sources {
                services,
                health,
                components,
            },
            publisher: Mutex::default(),
        }
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

    /// Publishes the changes of the sources, for ever.
    async fn follow(self, published: Statuses) {
        let mut before = Serving::new();
        let mut faults = self.health.changed();
        let mut components = self.components.as_ref().map(|it| it.changed());
        loop {
            faults.mark_unchanged();
            if let Some(changed) = components.as_mut() {
                changed.mark_unchanged();
            }
            let now = self.serving();
            publish(&published, &before, &now);
            before = now;
            let component_changes = async {
                match &mut components {
                    Some(changed) => changed.changed().await,
                    None => std::future::pending().await,
                }
            };
            let changed = tokio::select! {
                changed = faults.changed() => changed,
                changed = component_changes => changed,
            };
            if changed.is_err() {
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
        // A restart publishes everything again.
        let follow = move || sources.clone().follow(published.clone());
        let health = &self.sources.health;
        let publisher = health.restarting(Part::Api, "health-reporter", follow);
        *self.publisher.lock() = Some(publisher);
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let publisher = self.publisher.lock().take();
        if let Some(publisher) = publisher {
            publisher.stop().await;
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
