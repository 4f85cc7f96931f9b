//! Lists the components of this node, for operators.

use super::super::{convert, transport::in_flight};
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
        request: Request<ListComponentsRequest>,
    ) -> Result<Response<ListComponentsResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let components = self.components.statuses().into_iter();
        let response = ListComponentsResponse {
            components: components.map(convert::component).collect(),
        };
        Ok(in_flight::fit_response(response, reserved))
    }
}
