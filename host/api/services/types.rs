//! `TypeService`: what operators do to a task type as a whole.

use super::{super::transport::in_flight, types_pause};
use crate::{
    proto::hostel::v1::{
        ListPausedTypesRequest, ListPausedTypesResponse, PauseTypeRequest, PauseTypeResponse,
        ResumeTypeRequest, ResumeTypeResponse, type_service_server::TypeService,
    },
    scheduler::TaskScheduler,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub struct TypeServiceImpl {
    pub scheduler: Arc<dyn TaskScheduler>,
}

#[tonic::async_trait]
impl TypeService for TypeServiceImpl {
    async fn pause_type(
        &self,
        request: Request<PauseTypeRequest>,
    ) -> Result<Response<PauseTypeResponse>, Status> {
        let paused = types_pause::pause(&*self.scheduler, request.into_inner()).await;
        Ok(Response::new(paused?))
    }

    async fn resume_type(
        &self,
        request: Request<ResumeTypeRequest>,
    ) -> Result<Response<ResumeTypeResponse>, Status> {
        let resumed = types_pause::resume(&*self.scheduler, request.into_inner()).await;
        Ok(Response::new(resumed?))
    }

    async fn list_paused_types(
        &self,
        request: Request<ListPausedTypesRequest>,
    ) -> Result<Response<ListPausedTypesResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let paused = types_pause::list(&*self.scheduler);
        Ok(in_flight::fit_response(paused, reserved))
    }
}
