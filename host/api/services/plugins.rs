//! Lists the plugins of this node, for operators.

use super::super::{convert, transport::in_flight};
use crate::{
    plugin::PluginHost,
    proto::hostel::v1::{
        ListPluginsRequest, ListPluginsResponse, plugin_service_server::PluginService,
    },
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub struct PluginServiceImpl {
    pub plugins: Arc<PluginHost>,
}

#[tonic::async_trait]
impl PluginService for PluginServiceImpl {
    async fn list(
        &self,
        request: Request<ListPluginsRequest>,
    ) -> Result<Response<ListPluginsResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let view = self.plugins.catalog().view();
        let response = ListPluginsResponse {
            plugins: view
                .generations
                .values()
                .map(|generation| convert::plugin(generation))
                .collect(),
            rejected: view.rejected.iter().map(convert::rejected).collect(),
            loading: view.loading.iter().map(convert::loading).collect(),
            starting: !view.scanned,
        };
        Ok(in_flight::fit_response(response, reserved))
    }
}
