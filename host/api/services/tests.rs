//! What a service does around its call of an engine.

use super::{
    super::convert::TaskLimits, distributed::DistributedServiceImpl, tasks::TaskServiceImpl,
};
use crate::{
    broker::{LocalBroker, Overflow, Received, Subscription},
    budget::{Budget, SharedReservation},
    component::Router,
    config::Config,
    discovery::LocalDiscovery,
    proto::{
        distributed::{Message, distributed_service_server::DistributedService},
        hostel::v1::{
            ActOnTasksRequest, CancelTaskRequest, PurgeTasks, act_on_tasks_request::Action,
            task_service_server::TaskService,
        },
    },
    queue::{Cancel, ChangesRead, Counts, Durability, Filter, Listing, Page, StatusRead},
    scheduler::{
        Accepted, DetailsRequest, EndTracker, Error, Explanation, TaskRead, TaskScheduler,
        TaskStatus, WaitOptions,
    },
    task::{self, Acted, Name, PausedTypes, Submission, TaskId, TypePause, UnixMs},
};
use async_trait::async_trait;
use futures_util::FutureExt;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};

/// A scheduler that knows no task and takes none, and counts the tasks that it is to act on.
#[derive(Default)]
struct NoTasks {
    acted: AtomicUsize,
}

#[async_trait]
impl TaskScheduler for NoTasks {
    async fn submit_task(&self, _: Submission) -> Result<Accepted, Error> {
        Err(Error::Full)
    }

    fn now(&self) -> UnixMs {
        UnixMs(0)
    }

    async fn submit_many(&self, tasks: Vec<Submission>) -> Vec<Result<Accepted, Error>> {
        tasks.iter().map(|_| Err(Error::Full)).collect()
    }

    fn track_ends(&self) -> EndTracker {
        EndTracker::default()
    }

    async fn read_many(&self, ids: &[TaskId], _: usize) -> Vec<Result<StatusRead, Error>> {
        let unknown = |id: &TaskId| Err(Error::UnknownTask(id.clone()));
        ids.iter().map(unknown).collect()
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    async fn submit_and_wait(
        &self,
        _: Submission,
        _: &WaitOptions,
    ) -> Result<(Accepted, Option<TaskStatus>), Error> {
        Err(Error::Full)
    }

    async fn get_task_status(&self, id: &TaskId, _: &WaitOptions) -> Result<TaskStatus, Error> {
        Err(Error::UnknownTask(id.clone()))
    }

    async fn get_task(
        &self,
        id: &TaskId,
        _: DetailsRequest,
        _: Option<Budget>,
    ) -> Result<TaskRead, Error> {
        Err(Error::UnknownTask(id.clone()))
    }

    async fn explain_task(&self, id: &TaskId) -> Result<Explanation, Error> {
        Err(Error::UnknownTask(id.clone()))
    }

    async fn next_changes(&self, _: Option<&str>) -> Result<ChangesRead, Error> {
        std::future::pending().await
    }

    async fn cancel_task(&self, _: &TaskId, _: Option<Arc<str>>) -> Result<Cancel, Error> {
        Ok(Cancel::Unknown)
    }

    async fn requeue_task(&self, id: &TaskId) -> Result<(), Error> {
        Err(Error::UnknownTask(id.clone()))
    }

    async fn act(&self, _: &task::Action, ids: &[TaskId]) -> Result<Vec<Acted>, Error> {
        self.acted.fetch_add(ids.len(), Ordering::Relaxed);
        Ok(vec![Acted::Unknown; ids.len()])
    }

    async fn pause_type(&self, _: &Name, _: Option<Arc<str>>) -> Result<TypePause, Error> {
        Err(Error::TooManyPaused)
    }

    async fn resume_type(&self, _: &Name) -> Result<bool, Error> {
        Ok(false)
    }

    fn paused_types(&self) -> Arc<PausedTypes> {
        Arc::default()
    }

    async fn list_tasks(&self, _: &Filter, _: &Page) -> Result<Listing, Error> {
        Ok(Listing::default())
    }

    async fn count_tasks(&self) -> Result<Counts, Error> {
        Ok(Counts::new())
    }
}

#[tokio::test]
async fn cancelling_an_unknown_task_is_not_found() {
    let limits = Config::default().limits;
    let task_limits = TaskLimits::new(&limits, Duration::ZERO);
    let end = CancellationToken::new();
    let scheduler = Arc::new(NoTasks::default());
    let service = TaskServiceImpl::new(scheduler, limits, task_limits, end);
    let task_id = "gone".into();
    let reason = String::new();
    let request = Request::new(CancelTaskRequest { task_id, reason });
    let status = service.cancel(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
}

#[tokio::test]
async fn a_step_of_an_action_is_done_when_its_message_is_asked_for() {
    let limits = Config::default().limits;
    let task_limits = TaskLimits::new(&limits, Duration::ZERO);
    let end = CancellationToken::new();
    let scheduler = Arc::new(NoTasks::default());
    let service = TaskServiceImpl::new(scheduler.clone(), limits, task_limits, end.clone());
    let request = || {
        Request::new(ActOnTasksRequest {
            task_ids: (0..1200).map(|number| format!("t{number}")).collect(),
            action: Some(Action::Purge(PurgeTasks {})),
            ..ActOnTasksRequest::default()
        })
    };
    let acted = || scheduler.acted.swap(0, Ordering::Relaxed);
    let mut steps = service.act_on_tasks(request()).await.unwrap().into_inner();
    assert_eq!(acted(), 0);
    for (matched, in_step) in [(500, 500), (1000, 500), (1200, 200)] {
        let step = steps.next().await.expect("a step").unwrap();
        assert_eq!((step.matched, step.done), (matched, 0));
        assert_eq!(step.left_alone.len(), in_step);
        assert_eq!(acted(), in_step);
    }
    assert!(steps.next().await.is_none());
    // A client that goes away stops it.
    let mut steps = service.act_on_tasks(request()).await.unwrap().into_inner();
    assert!(steps.next().await.expect("a step").is_ok());
    drop(steps);
    assert_eq!(acted(), 500);
    // And so does the end of the server.
    let mut steps = service.act_on_tasks(request()).await.unwrap().into_inner();
    assert!(steps.next().await.expect("a step").is_ok());
    end.cancel();
    let mut last = None;
    while let Some(step) = steps.next().await {
        last = Some(step);
    }
    let stopped = last.expect("an end").unwrap_err();
    assert_eq!(stopped.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_message_counts_as_received_only_until_it_is_sent() {
    let name = |name| Name::parse("name", name).unwrap();
    let limits = Config::default().limits;
    let discovery = Arc::new(LocalDiscovery::new(&limits));
    let broker = Arc::new(LocalBroker::default());
    let router = Router::new(name("a"), broker, discovery.clone(), 1 << 20);
    let router = Arc::new(router);
    let (inbox, mut mailbox) = Subscription::new(8, Overflow::Refuse);
    let _owned_id = router.register(&name("silent"), inbox).unwrap();
    let service = DistributedServiceImpl {
        discovery,
        router,
        end: CancellationToken::new(),
        scheduler: Arc::new(NoTasks::default()),
        task_limits: TaskLimits::new(&limits, Duration::ZERO),
        limits,
    };
    let budget = Budget::new(1 << 20);
    let received = SharedReservation::default();
    received.add(budget.try_reserve(1 << 19).unwrap());
    let mut request = Request::new(Message {
        to_node: "silent".into(),
        payload: vec![0; 1 << 19].into(),
        reply_timeout_ms: 60_000,
        ..Message::default()
    });
    request.extensions_mut().insert(received);
    let mut sending = service.send_message(request);
    assert!((&mut sending).now_or_never().is_none(), "it waits");
    let Some(Received::Message(message)) = mailbox.next().await else {
        panic!("a message");
    };
    assert_eq!(message.payload.len(), 1 << 19);
    assert_eq!(budget.free_bytes(), budget.total_bytes());
}
