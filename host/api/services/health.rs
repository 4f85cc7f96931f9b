//! The gRPC health service: answers probes, and tells watchers of changes. `readiness` decides which
//! services serve.

use super::super::status;
use crate::proto::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_server::Health,
};
use std::{collections::BTreeMap, pin::Pin, sync::Arc};
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Whether each service serves, by its name. Clones share the same statuses.
#[derive(Clone)]
pub struct Statuses(Arc<watch::Sender<BTreeMap<String, ServingStatus>>>);

impl Default for Statuses {
    /// The statuses of a node that does not serve yet.
    fn default() -> Self {
        let node = (String::new(), ServingStatus::NotServing);
        Self(Arc::new(watch::Sender::new([node].into())))
    }
}

impl Statuses {
    /// Sets whether `service` serves; the empty name is that of the node.
    pub fn set(&self, service: impl Into<String>, serves: bool) {
        let status = if serves {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        let service = service.into();
        self.0
            .send_if_modified(|all| all.insert(service, status) != Some(status));
    }

    /// Removes a service that no longer exists.
    pub fn remove(&self, service: &str) {
        self.0.send_if_modified(|all| all.remove(service).is_some());
    }
}

/// The service over the statuses that `readiness` publishes.
pub struct HealthServiceImpl {
    pub statuses: Statuses,
    /// Ends watches, which would otherwise outlive the server.
    pub end: CancellationToken,
}

#[tonic::async_trait]
impl Health for HealthServiceImpl {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        let found = self.statuses.0.borrow().get(&service).copied();
        found
            .map(|status| Response::new(response(status)))
            .ok_or_else(status::unknown_service)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let mut statuses = self.statuses.0.subscribe();
        let end = self.end.clone();
        Ok(Response::new(Box::pin(async_stream::stream! {
            let mut sent = None;
            loop {
                let now = statuses.borrow_and_update().get(&service).copied();
                // The service may appear later, so the watch goes on.
                let now = now.unwrap_or(ServingStatus::ServiceUnknown);
                if sent != Some(now) {
                    sent = Some(now);
                    yield Ok(response(now));
                }
                tokio::select! {
                    Ok(()) = statuses.changed() => {}
                    () = end.cancelled() => break,
                }
            }
            yield Err(status::stopping());
        })))
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}
