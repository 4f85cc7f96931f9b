//! What the gRPC health service reports: whether the node does its work, whether each part does, and,
//! as `component/ID`, whether a component takes messages. Started last, stopped first.

use super::distributed::DistributedServiceImpl;
use crate::{
    component::Components,
    health::{Background, Health, Part, Severity},
    lifecycle::Component,
    proto::distributed::distributed_service_server::DistributedServiceServer,
};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tonic::server::NamedService;
use tonic_health::{ServingStatus, server::HealthReporter};

pub struct Readiness {
    reporter: HealthReporter,
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
    pub fn new(
        reporter: HealthReporter,
        health: Health,
        components: Option<Arc<Components>>,
    ) -> Self {
        let distributed = DistributedServiceServer::<DistributedServiceImpl>::NAME;
        Self {
            reporter,
            sources: Sources {
                services: vec!["", distributed],
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
type Statuses = BTreeMap<String, bool>;

impl Sources {
    fn statuses(&self) -> Statuses {
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

    /// Publishes what differs from `published`, again with every change of a source.
    async fn follow(self, reporter: HealthReporter) {
        let mut published = Statuses::new();
        let mut faults = self.health.changed();
        let mut components = self.components.as_ref().map(|it| it.changed());
        loop {
            faults.mark_unchanged();
            components.as_mut().map(|changed| changed.mark_unchanged());
            let statuses = self.statuses();
            publish(&reporter, &published, &statuses).await;
            published = statuses;
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

async fn publish(reporter: &HealthReporter, before: &Statuses, now: &Statuses) {
    let mut reporter = reporter.clone();
    for (service, serves) in now {
        if before.get(service) != Some(serves) {
            let status = if *serves {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            reporter.set_service_status(service, status).await;
        }
    }
    for gone in before.keys().filter(|service| !now.contains_key(*service)) {
        reporter.clear_service_status(gone).await;
    }
}

#[async_trait]
impl Component for Readiness {
    async fn start(&self) -> anyhow::Result<()> {
        let statuses = self.sources.statuses();
        publish(&self.reporter, &Statuses::new(), &statuses).await;
        let (sources, reporter) = (self.sources.clone(), self.reporter.clone());
        // All of it once more when it starts again.
        let follow = move || sources.clone().follow(reporter.clone());
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
        let mut stopped = self.sources.statuses();
        stopped.values_mut().for_each(|serves| *serves = false);
        publish(&self.reporter, &Statuses::new(), &stopped).await;
        Ok(())
    }

    fn get_id(&self) -> &str {
        "readiness"
    }
}
