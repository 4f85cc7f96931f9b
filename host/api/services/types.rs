//! `TypeService`: task types, and what operators do to one as a whole.

use super::{super::transport::in_flight, type_limits, types_pause};
use crate::{
    proto::hostel::v1::{
        ListPausedTypesRequest, ListPausedTypesResponse, ListTypesRequest, ListTypesResponse,
        PauseTypeRequest, PauseTypeResponse, ResumeTypeRequest, ResumeTypeResponse,
        SetLimitsRequest, SetLimitsResponse, type_service_server::TypeService,
    },
    scheduler::{TaskScheduler, types::Types},
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub struct TypeServiceImpl {
    pub scheduler: Arc<dyn TaskScheduler>,
    /// Absent on a node whose queue it does not know.
    pub types: Option<Types>,
}

#[tonic::async_trait]
impl TypeService for TypeServiceImpl {
    async fn list_types(
        &self,
        request: Request<ListTypesRequest>,
    ) -> Result<Response<ListTypesResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let listed = type_limits::list(self.types.as_ref(), request.into_inner()).await?;
        Ok(in_flight::fit_response(listed, reserved))
    }

    async fn set_limits(
        &self,
        request: Request<SetLimitsRequest>,
    ) -> Result<Response<SetLimitsResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let set = type_limits::set(self.types.as_ref(), request.into_inner()).await?;
        Ok(in_flight::fit_response(set, reserved))
    }

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
