//! The calls about schedules.

use super::DistributedClient;
use crate::proto::hostel::v1::{
    CreateScheduleRequest, CreateScheduleResponse, DeleteScheduleRequest, GetScheduleRequest,
    ListSchedulesRequest, ListSchedulesResponse, PauseScheduleRequest, ResumeScheduleRequest,
    RunScheduleRequest, RunScheduleResponse, Schedule, ScheduleSpec,
};
use tonic::Status;
use uuid::Uuid;

impl DistributedClient {
    /// Creates a schedule. With `replace` it takes the place of one of its name that a client has created.
    pub async fn create_schedule(
        &mut self,
        spec: ScheduleSpec,
        replace: bool,
    ) -> Result<CreateScheduleResponse, Status> {
        let request = CreateScheduleRequest {
            spec: Some(spec),
            replace,
        };
        self.retry(request, |mut client, request| async move {
            client.schedules.create(request).await
        })
        .await
    }

    /// Returns a schedule.
    pub async fn get_schedule(&mut self, name: &str) -> Result<Schedule, Status> {
        let request = GetScheduleRequest { name: name.into() };
        let response = self
            .retry(request, |mut client, request| async move {
                client.schedules.get(request).await
            })
            .await?;
        Ok(response.schedule.unwrap_or_default())
    }

    /// Lists one page of schedules, without payloads and metadata.
    pub async fn list_schedules(
        &mut self,
        request: ListSchedulesRequest,
    ) -> Result<ListSchedulesResponse, Status> {
        self.retry(request, |mut client, request| async move {
            client.schedules.list(request).await
        })
        .await
    }

    /// Pauses a schedule until it is resumed.
    pub async fn pause_schedule(&mut self, name: &str) -> Result<Schedule, Status> {
        let request = PauseScheduleRequest { name: name.into() };
        let response = self
            .retry(request, |mut client, request| async move {
                client.schedules.pause(request).await
            })
            .await?;
        Ok(response.schedule.unwrap_or_default())
    }

    /// Ends the pause of a schedule.
    pub async fn resume_schedule(&mut self, name: &str) -> Result<Schedule, Status> {
        let request = ResumeScheduleRequest { name: name.into() };
        let response = self
            .retry(request, |mut client, request| async move {
                client.schedules.resume(request).await
            })
            .await?;
        Ok(response.schedule.unwrap_or_default())
    }

    /// Submits a task of a schedule now. The run is named before the first attempt, so that a retry cannot
    /// submit a second task.
    pub async fn run_schedule(&mut self, name: &str) -> Result<RunScheduleResponse, Status> {
        let request = RunScheduleRequest {
            name: name.into(),
            run: Uuid::now_v7().to_string(),
        };
        self.retry(request, |mut client, request| async move {
            client.schedules.run_now(request).await
        })
        .await
    }

    /// Deletes a schedule. One of the configuration needs `force`.
    pub async fn delete_schedule(&mut self, name: &str, force: bool) -> Result<(), Status> {
        let request = DeleteScheduleRequest {
            name: name.into(),
            force,
        };
        // Not retried: a schedule of this name may have been created since.
        self.schedules.delete(request).await?;
        Ok(())
    }
}
