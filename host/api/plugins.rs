//! What this node hosts, for operators.

use super::convert;
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
        _: Request<ListPluginsRequest>,
    ) -> Result<Response<ListPluginsResponse>, Status> {
        let view = self.plugins.catalog().view();
        Ok(Response::new(ListPluginsResponse {
            plugins: view
                .generations
                .values()
                .map(|generation| convert::plugin(generation))
                .collect(),
            rejected: view.rejected.iter().map(convert::rejected).collect(),
        }))
    }
}
