//! The components of this node, for operators.

use super::convert;
use crate::{
    component::Components,
    proto::hostel::v1::{
        ListComponentsRequest, ListComponentsResponse, component_service_server::ComponentService,
    },
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub struct ComponentServiceImpl {
    pub components: Arc<Components>,
}

#[tonic::async_trait]
impl ComponentService for ComponentServiceImpl {
    async fn list(
        &self,
        _: Request<ListComponentsRequest>,
    ) -> Result<Response<ListComponentsResponse>, Status> {
        let components = self.components.statuses().into_iter();
        Ok(Response::new(ListComponentsResponse {
            components: components.map(convert::component).collect(),
        }))
    }
}
