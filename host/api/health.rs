//! The gRPC health service: whether the node takes work, and, as `component/ID`, whether a component
//! takes messages. Started last, stopped first.

use super::distributed::DistributedServiceImpl;
use crate::{
    component::Components, lifecycle::Component,
    proto::distributed::distributed_service_server::DistributedServiceServer, task::Name,
};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::task::AbortOnDropHandle;
use tonic_health::{ServingStatus, server::HealthReporter};

type Distributed = DistributedServiceServer<DistributedServiceImpl>;

pub struct Readiness {
    health: HealthReporter,
    components: Option<Arc<Components>>,
    following: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Readiness {
    pub fn new(health: HealthReporter, components: Option<Arc<Components>>) -> Self {
        Self {
            health,
            components,
            following: Mutex::default(),
        }
    }

    fn following(&self) -> MutexGuard<'_, Option<AbortOnDropHandle<()>>> {
        self.following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says of each component what its state says, for as long as it is polled.
async fn follow(mut health: HealthReporter, components: Arc<Components>) {
    let mut changed = components.changed();
    let mut said = BTreeMap::<Name, bool>::new();
    loop {
        changed.mark_unchanged();
        let statuses = components.statuses().into_iter();
        let now: BTreeMap<_, _> = statuses.map(|s| (s.id.clone(), s.is_healthy())).collect();
        for (id, healthy) in &now {
            if said.get(id) != Some(healthy) {
                let status = match healthy {
                    true => ServingStatus::Serving,
                    false => ServingStatus::NotServing,
                };
                health.set_service_status(service(id), status).await;
            }
        }
        for (gone, _) in said.iter().filter(|(id, _)| !now.contains_key(*id)) {
            health.clear_service_status(&service(gone)).await;
        }
        said = now;
        if changed.changed().await.is_err() {
            return;
        }
    }
}

fn service(component: &Name) -> String {
    format!("component/{component}")
}

#[async_trait]
impl Component for Readiness {
    async fn start(&self) -> anyhow::Result<()> {
        if let Some(components) = self.components.clone() {
            let following = tokio::spawn(follow(self.health.clone(), components));
            *self.following() = Some(AbortOnDropHandle::new(following));
        }
        self.health.set_serving::<Distributed>().await;
        self.health
            .set_service_status("", ServingStatus::Serving)
            .await;
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let following = self.following().take();
        if let Some(following) = following {
            following.abort();
            let _ = following.await;
        }
        let components = self
            .components
            .iter()
            .flat_map(|components| components.statuses());
        for component in components {
            let service = service(&component.id);
            let stopping = ServingStatus::NotServing;
            self.health.set_service_status(service, stopping).await;
        }
        self.health.set_not_serving::<Distributed>().await;
        self.health
            .set_service_status("", ServingStatus::NotServing)
            .await;
        Ok(())
    }

    fn get_id(&self) -> &str {
        "readiness"
    }
}
