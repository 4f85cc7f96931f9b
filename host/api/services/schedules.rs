//! Creates, lists, pauses, resumes, runs and deletes schedules.

use super::super::{convert, schedule_convert, status::IntoStatus, transport::in_flight};
use crate::{
    proto::hostel::v1::{
        CreateScheduleRequest, CreateScheduleResponse, DeleteScheduleRequest,
        DeleteScheduleResponse, GetScheduleRequest, GetScheduleResponse, ListSchedulesRequest,
        ListSchedulesResponse, PauseScheduleRequest, PauseScheduleResponse, ResumeScheduleRequest,
        ResumeScheduleResponse, RunScheduleRequest, RunScheduleResponse,
        schedule_service_server::ScheduleService,
    },
    scheduler::{
        Accepted,
        schedules::{Created, Schedules},
    },
};
use tonic::{Request, Response, Status};

/// The most schedules of a page, and its size if the request does not set one.
const MAX_PAGE_SIZE: u32 = 100;

pub struct ScheduleServiceImpl {
    pub schedules: Schedules,
}

#[tonic::async_trait]
impl ScheduleService for ScheduleServiceImpl {
    async fn create(
        &self,
        request: Request<CreateScheduleRequest>,
    ) -> Result<Response<CreateScheduleResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let CreateScheduleRequest { spec, replace } = request.into_inner();
        let given = schedule_convert::given(spec.unwrap_or_default());
        let created = self.schedules.create(given, replace).await;
        let (created, status) = created.map_err(IntoStatus::into_status)?;
        let outcome = match created {
            Created::New => "created",
            Created::Existing => "existing",
            Created::Replaced => "replaced",
        };
        let response = CreateScheduleResponse {
            schedule: Some(schedule_convert::schedule(status)),
            outcome: outcome.into(),
        };
        Ok(in_flight::fit_response(response, reserved))
    }

    async fn get(
        &self,
        request: Request<GetScheduleRequest>,
    ) -> Result<Response<GetScheduleResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let name = convert::name("schedule name", &request.into_inner().name)?;
        let status = self.schedules.get(&name).await;
        let status = status.map_err(IntoStatus::into_status)?;
        let schedule = Some(schedule_convert::schedule(status));
        Ok(in_flight::fit_response(
            GetScheduleResponse { schedule },
            reserved,
        ))
    }

    async fn list(
        &self,
        request: Request<ListSchedulesRequest>,
    ) -> Result<Response<ListSchedulesResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let request = request.into_inner();
        let after = convert::optional_name("page token", &request.page_token)?;
        let size = match request.page_size {
            0 => MAX_PAGE_SIZE,
            given => given.min(MAX_PAGE_SIZE),
        };
        let found = self.schedules.list(after.as_ref(), size as usize).await;
        let (found, next) = found.map_err(IntoStatus::into_status)?;
        let response = ListSchedulesResponse {
            schedules: found.into_iter().map(schedule_convert::listed).collect(),
            next_page_token: next.map(String::from).unwrap_or_default(),
        };
        Ok(in_flight::fit_response(response, reserved))
    }

    async fn pause(
        &self,
        request: Request<PauseScheduleRequest>,
    ) -> Result<Response<PauseScheduleResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let name = convert::name("schedule name", &request.into_inner().name)?;
        let status = self.schedules.set_paused(&name, true).await;
        let status = status.map_err(IntoStatus::into_status)?;
        let schedule = Some(schedule_convert::schedule(status));
        Ok(in_flight::fit_response(
            PauseScheduleResponse { schedule },
            reserved,
        ))
    }

    async fn resume(
        &self,
        request: Request<ResumeScheduleRequest>,
    ) -> Result<Response<ResumeScheduleResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let name = convert::name("schedule name", &request.into_inner().name)?;
        let status = self.schedules.set_paused(&name, false).await;
        let status = status.map_err(IntoStatus::into_status)?;
        let schedule = Some(schedule_convert::schedule(status));
        Ok(in_flight::fit_response(
            ResumeScheduleResponse { schedule },
            reserved,
        ))
    }

    async fn run_now(
        &self,
        request: Request<RunScheduleRequest>,
    ) -> Result<Response<RunScheduleResponse>, Status> {
        let RunScheduleRequest { name, run } = request.into_inner();
        let name = convert::name("schedule name", &name)?;
        let run = match run.as_str() {
            "" => convert::name("run", &convert::new_id())?,
            given => convert::name("run", given)?,
        };
        let submitted = self.schedules.run_now(&name, &run).await;
        let (id, accepted) = submitted.map_err(IntoStatus::into_status)?;
        Ok(Response::new(RunScheduleResponse {
            task_id: id.to_string(),
            existing: accepted == Accepted::Existing,
        }))
    }

    async fn delete(
        &self,
        request: Request<DeleteScheduleRequest>,
    ) -> Result<Response<DeleteScheduleResponse>, Status> {
        let DeleteScheduleRequest { name, force } = request.into_inner();
        let name = convert::name("schedule name", &name)?;
        let deleted = self.schedules.delete(&name, force).await;
        deleted.map_err(IntoStatus::into_status)?;
        Ok(Response::new(DeleteScheduleResponse {}))
    }
}
