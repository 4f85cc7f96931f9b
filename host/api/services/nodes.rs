//! The nodes of the cluster, for operators: lists and drains them, and reports the health of this one.

use super::super::{convert, status, transport::in_flight};
use crate::{
    discovery::ServiceDiscovery,
    health::Health,
    proto::hostel::v1::{
        DrainNodeRequest, DrainNodeResponse, GetHealthRequest, GetHealthResponse, ListNodesRequest,
        ListNodesResponse, UndrainNodeRequest, UndrainNodeResponse,
        node_service_server::NodeService,
    },
    task::Name,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub struct NodeServiceImpl {
    /// The id of this node.
    pub node: Name,
    pub health: Health,
    pub discovery: Arc<dyn ServiceDiscovery>,
}

impl NodeServiceImpl {
    async fn set_drained(&self, node: &str, drained: bool) -> Result<(), Status> {
        let node = convert::name("node id", node)?;
        let drained = self.discovery.drain(&node, drained).await;
        drained.map_err(|error| status::drain_failed(&node, error))
    }
}

#[tonic::async_trait]
impl NodeService for NodeServiceImpl {
    async fn list(
        &self,
        request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let (nodes, drained) = (self.discovery.nodes(), self.discovery.drained());
        let is_live = |id: &Name| nodes.iter().any(|node| node.id == *id);
        let absent = drained.iter().filter(|id| !is_live(id));
        let stale_since = self.discovery.stale_since();
        let response = ListNodesResponse {
            nodes: nodes
                .iter()
                .map(|node| convert::cluster_node(node, drained.contains(&node.id)))
                .collect(),
            stale: stale_since.is_some(),
            stale_since_ms: stale_since.map_or(0, convert::unix_ms_of),
            drained_absent: absent.map(|id| id.to_string()).collect(),
        };
        Ok(in_flight::fit_response(response, reserved))
    }

    async fn drain(
        &self,
        request: Request<DrainNodeRequest>,
    ) -> Result<Response<DrainNodeResponse>, Status> {
        self.set_drained(&request.into_inner().node_id, true)
            .await?;
        Ok(Response::new(DrainNodeResponse {}))
    }

    async fn undrain(
        &self,
        request: Request<UndrainNodeRequest>,
    ) -> Result<Response<UndrainNodeResponse>, Status> {
        self.set_drained(&request.into_inner().node_id, false)
            .await?;
        Ok(Response::new(UndrainNodeResponse {}))
    }

    async fn get_health(
        &self,
        _: Request<GetHealthRequest>,
    ) -> Result<Response<GetHealthResponse>, Status> {
        Ok(Response::new(convert::health(&self.node, &self.health)))
    }
}
