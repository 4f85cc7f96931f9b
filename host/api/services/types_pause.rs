//! Pauses and resumes task types, and lists the paused ones: the calls of `TypeService` about that.

use crate::{
    api::{
        convert,
        status::{self, IntoStatus},
    },
    proto::hostel::v1::{
        ListPausedTypesResponse, PauseTypeRequest, PauseTypeResponse, PausedType,
        ResumeTypeRequest, ResumeTypeResponse,
    },
    scheduler::TaskScheduler,
    task::{Name, TypePause, parse_reason},
};
use tonic::Status;

pub async fn pause(
    scheduler: &dyn TaskScheduler,
    request: PauseTypeRequest,
) -> Result<PauseTypeResponse, Status> {
    let task_type = convert::name("task type", &request.task_type)?;
    let reason = parse_reason(&request.reason).map_err(status::invalid)?;
    let pause = scheduler.pause_type(&task_type, reason).await;
    let pause = pause.map_err(IntoStatus::into_status)?;
    Ok(PauseTypeResponse {
        paused: Some(paused(&task_type, &pause)),
    })
}

pub async fn resume(
    scheduler: &dyn TaskScheduler,
    request: ResumeTypeRequest,
) -> Result<ResumeTypeResponse, Status> {
    let task_type = convert::name("task type", &request.task_type)?;
    let resumed = scheduler.resume_type(&task_type).await;
    let was_paused = resumed.map_err(IntoStatus::into_status)?;
    Ok(ResumeTypeResponse { was_paused })
}

pub fn list(scheduler: &dyn TaskScheduler) -> ListPausedTypesResponse {
    let types = scheduler.paused_types();
    let types = types.iter();
    ListPausedTypesResponse {
        paused: types
            .map(|(task_type, pause)| paused(task_type, pause))
            .collect(),
    }
}

fn paused(task_type: &Name, pause: &TypePause) -> PausedType {
    PausedType {
        task_type: task_type.to_string(),
        since_ms: pause.since.0,
        reason: pause.reason.as_deref().unwrap_or_default().into(),
    }
}
