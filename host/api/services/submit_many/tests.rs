//! Conversations over a SQLite queue, without a network.

use super::*;
use crate::{
    Config,
    config::Sqlite,
    discovery::{LocalDiscovery, NodeRecord, ServiceDiscovery},
    health::Health,
    proto::{distributed::Task, hostel::v1::submit_many_response::Event},
    queue::{Finish, LeaseRequest, SqliteQueue, TaskQueue},
    scheduler::DistributedTaskScheduler,
    task::Outcome,
};
use std::{collections::BTreeMap, pin::pin};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

const MIB: usize = 1 << 20;

/// A queue with a scheduler, for tasks of the type `echo`.
struct Rig {
    queue: Arc<SqliteQueue>,
    scheduler: Arc<dyn TaskScheduler>,
    end: CancellationToken,
    budgets: Budgets,
    received: Budget,
    _dir: tempfile::TempDir,
}

type Requests = mpsc::Sender<Result<SubmitManyRequest, Status>>;

impl Rig {
    async fn new(max_open_tasks: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Sqlite {
            path: dir.path().join("queue.db"),
            max_open_tasks,
            max_batch: 512,
            reserve_bytes: 1 << 20,
        };
        let queue = SqliteQueue::open(&settings, &Health::default()).await;
        let queue = Arc::new(queue.unwrap());
        let discovery = Arc::new(LocalDiscovery::new(&Config::default().limits));
        let record = NodeRecord {
            task_types: [name("echo")].into(),
            ..NodeRecord::new(name("test"), "")
        };
        discovery.register_node(record).await.unwrap();
        Self {
            scheduler: Arc::new(DistributedTaskScheduler::new(queue.clone(), discovery)),
            queue,
            end: CancellationToken::new(),
            budgets: Budgets {
                tracked: Budget::new(MIB),
                waiting: Budget::new(8 * MIB),
                max_message_bytes: 4 * MIB,
            },
            received: Budget::new(8 * MIB),
            _dir: dir,
        }
    }

    fn converse(&self) -> (Requests, Responses) {
        let (send, receive) = mpsc::channel(10_000);
        let setup = Setup {
            scheduler: self.scheduler.clone(),
            limits: TaskLimits::new(&Config::default().limits, Duration::from_secs(3600)),
            end: self.end.clone(),
            auth: None,
            arrived: SharedReservation::default(),
            received: self.received.clone(),
            budgets: self.budgets.clone(),
        };
        (send, responses(ReceiverStream::new(receive), setup))
    }

    /// Runs up to `max` tasks, and ends them with results of this size.
    async fn run(&self, max: usize, result: usize) -> usize {
        let ttl = Duration::from_secs(15);
        let request = LeaseRequest::for_type(name("test"), name("echo"), max, ttl);
        let leased = self.queue.lease(&request).await.unwrap();
        let count = leased.len();
        let ended = leased.into_iter().map(|leased| {
            Finish::new(
                leased.token,
                Outcome::Completed {
                    result: vec![7; result].into(),
                },
                None,
            )
        });
        self.queue.finish(ended.collect()).await.unwrap();
        count
    }
}

fn name(given: &str) -> Name {
    Name::parse("name", given).unwrap()
}

fn task(id: &str) -> Task {
    Task {
        task_id: id.into(),
        task_type: "echo".into(),
        payload: vec![7; 100].into(),
        ..Task::default()
    }
}

fn request(task: Task) -> Result<SubmitManyRequest, Status> {
    Ok(SubmitManyRequest {
        task: Some(task),
        results: true,
        ..SubmitManyRequest::default()
    })
}

fn without_results(task: Task) -> Result<SubmitManyRequest, Status> {
    Ok(SubmitManyRequest {
        results: false,
        ..request(task)?
    })
}

async fn next(responses: &mut Responses) -> SubmitManyResponse {
    responses.next().await.unwrap().unwrap()
}

/// The kind of a response, in a word.
fn kind(response: &SubmitManyResponse) -> String {
    match response.event.as_ref().unwrap() {
        Event::Accepted(accepted) if accepted.existing => "existing".into(),
        Event::Accepted(_) => "new".into(),
        Event::Refused(refused) => format!("{:?}", Code::from(refused.code as i32)),
        Event::Ended(status) => format!("{} {}", status.status, status.result.len()),
        Event::Unread(unread) => format!("unread {:?}", Code::from(unread.code as i32)),
    }
}

/// All responses that are left, by position.
async fn rest(responses: &mut Responses) -> BTreeMap<u64, Vec<String>> {
    let mut rest = BTreeMap::<_, Vec<_>>::new();
    while let Some(response) = responses.next().await {
        let response = response.unwrap();
        rest.entry(response.position)
            .or_default()
            .push(kind(&response));
    }
    rest
}

#[tokio::test]
async fn each_task_is_answered_and_a_bad_one_is_refused_alone() {
    let rig = Rig::new(1000).await;
    let (send, mut responses) = rig.converse();
    let conflict = Task {
        payload: vec![8].into(),
        ..task("a")
    };
    let unknown = Task {
        task_type: "nothing".into(),
        ..task("c")
    };
    let invalid = Task {
        task_id: "x y".into(),
        task_type: String::new(),
        node: "n".into(),
        label: "l".into(),
        ..Task::default()
    };
    let all = [task("a"), task("b"), conflict, unknown, invalid, task("a")];
    for task in all {
        send.send(without_results(task)).await.unwrap();
    }
    drop(send);
    let mut answers = BTreeMap::new();
    while let Some(response) = responses.next().await {
        let response = response.unwrap();
        let before = answers.insert(response.position, response);
        assert!(before.is_none());
    }
    let kinds: Vec<_> = answers.values().map(kind).collect();
    let expected = [
        "new",
        "new",
        "AlreadyExists",
        "FailedPrecondition",
        "InvalidArgument",
        "existing",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(answers[&1].task_id, "b");
    let Some(Event::Refused(refused)) = &answers[&4].event else {
        panic!("refused");
    };
    let fields = refused.violations.iter().map(|it| it.field.as_str());
    assert_eq!(Vec::from_iter(fields), ["task_id", "task_type", "label"]);
    assert_eq!(rig.run(10, 0).await, 2);
}

#[tokio::test]
async fn each_end_is_sent_once_after_its_answer() {
    const TASKS: u64 = 300;
    let rig = Rig::new(1000).await;
    let (send, responses) = rig.converse();
    for number in 0..TASKS {
        let id = format!("task-{}", number % (TASKS - 1));
        send.send(request(task(&id))).await.unwrap();
    }
    drop(send);
    let work = async {
        let mut left = TASKS - 1;
        while left > 0 {
            left -= rig.run(7, 10).await as u64;
            tokio::task::yield_now().await;
        }
    };
    let mut responses = responses;
    let (all, ()) = tokio::join!(rest(&mut responses), work);
    assert_eq!(all.len() as u64, TASKS);
    for (position, kinds) in all {
        // The last one has the id of the first.
        let answer = ["new", "existing"][usize::from(position == TASKS - 1)];
        assert_eq!(kinds, [answer, "completed 10"], "{position}");
    }
    assert_eq!(rig.budgets.tracked.free_bytes(), MIB);
    assert_eq!(rig.received.free_bytes(), 8 * MIB);
}

#[tokio::test]
async fn results_of_any_size_are_sent_or_named() {
    let mut rig = Rig::new(1000).await;
    let (send, mut responses) = rig.converse();
    for id in ["a", "b", "c"] {
        send.send(request(task(id))).await.unwrap();
        assert_eq!(kind(&next(&mut responses).await), "new");
    }
    rig.run(1, 100 << 10).await;
    rig.run(1, 3 * MIB).await;
    rig.run(1, 5 * MIB).await;
    drop(send);
    let all = rest(&mut responses).await;
    let result = |bytes| [format!("completed {bytes}")];
    assert_eq!(all[&0], result(100 << 10));
    assert_eq!(all[&1], result(3 * MIB));
    assert_eq!(all[&2], ["unread ResourceExhausted"]);
    assert_eq!(rig.budgets.waiting.free_bytes(), 8 * MIB);

    // On another stream the tasks are followed by their ids, with little memory for results.
    rig.budgets.waiting = Budget::new(64 << 10);
    let (send, mut responses) = rig.converse();
    for follow in ["a", "gone", "b", "not valid"] {
        let request = SubmitManyRequest {
            results: true,
            follow: follow.into(),
            ..SubmitManyRequest::default()
        };
        send.send(Ok(request)).await.unwrap();
    }
    drop(send);
    let all = rest(&mut responses).await;
    assert_eq!(all[&0], result(100 << 10));
    assert_eq!(all[&1], ["unread NotFound"]);
    assert_eq!(all[&2], result(3 * MIB));
    assert_eq!(all[&3], ["InvalidArgument"]);
}

#[tokio::test]
async fn a_full_queue_holds_the_client_back_until_there_is_room() {
    const OPEN: usize = 10;
    const TASKS: usize = 3 * MAX_TASKS;
    let rig = Rig::new(OPEN).await;
    let (send, mut responses) = rig.converse();
    for number in 0..TASKS {
        let task = task(&format!("task-{number}"));
        send.send(without_results(task)).await.unwrap();
    }
    for _ in 0..OPEN {
        assert_eq!(kind(&next(&mut responses).await), "new");
    }
    // Nothing is answered, and no more is read than two batches have room for.
    let stuck = tokio::time::timeout(Duration::from_millis(200), responses.next());
    assert!(stuck.await.is_err());
    let read = send.max_capacity() - send.capacity();
    assert!(read >= TASKS - 2 * MAX_TASKS - 1, "{read} are left");
    drop(send);
    let work = async {
        let mut left = TASKS;
        while left > 0 {
            left -= rig.run(OPEN, 0).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (all, ()) = tokio::join!(rest(&mut responses), work);
    assert_eq!(all.len(), TASKS - OPEN);
    assert!(all.values().all(|kinds| *kinds == ["new"]));
}

#[tokio::test]
async fn a_client_that_takes_no_responses_is_not_read() {
    let rig = Rig::new(100_000).await;
    let (send, mut responses) = rig.converse();
    for number in 0..10_000 {
        let task = task(&format!("task-{number}"));
        send.send(request(task)).await.unwrap();
    }
    assert_eq!(kind(&next(&mut responses).await), "new");
    rig.run(100, 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let left = send.max_capacity() - send.capacity();
    assert!(left > 10_000 - 3 * MAX_TASKS, "{left}");
}

#[tokio::test]
async fn a_stream_tracks_no_more_tasks_than_there_is_memory_for() {
    let rig = Rig::new(100_000).await;
    let _of_others = rig.budgets.tracked.try_reserve(MIB).unwrap();
    let (send, mut responses) = rig.converse();
    for number in 0..1000 {
        let task = task(&format!("task-{number}"));
        send.send(request(task)).await.unwrap();
    }
    drop(send);
    let mut open = 0;
    let (mut answered, mut most) = (0, 0);
    while answered < 1000 || open > 0 {
        let response = tokio::time::timeout(Duration::from_millis(20), responses.next()).await;
        match response.map(|response| kind(&response.unwrap().unwrap())) {
            Ok(kind) if kind == "new" => {
                answered += 1;
                open += 1;
                most = most.max(open);
            }
            Ok(kind) => {
                assert_eq!(kind, "completed 0");
                open -= 1;
            }
            Err(_) => drop(rig.run(1000, 0).await),
        }
    }
    assert!(responses.next().await.is_none());
    assert!(most <= 64, "{most}");
}

#[tokio::test]
async fn a_stop_answers_what_is_stored_and_ends_the_stream() {
    let rig = Rig::new(1000).await;
    let (send, mut responses) = rig.converse();
    send.send(request(task("a"))).await.unwrap();
    assert_eq!(kind(&next(&mut responses).await), "new");
    send.send(request(task("b"))).await.unwrap();
    // The attempt is under way when the server stops.
    {
        let mut next = pin!(responses.next());
        assert!((&mut next).now_or_never().is_none());
        rig.end.cancel();
        assert_eq!(kind(&next.await.unwrap().unwrap()), "new");
    }
    let status = responses.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(responses.next().await.is_none());
}

#[tokio::test]
async fn a_queue_that_does_not_work_ends_the_stream() {
    let rig = Rig::new(1000).await;
    let (send, mut responses) = rig.converse();
    send.send(request(task("a"))).await.unwrap();
    assert_eq!(kind(&next(&mut responses).await), "new");
    rig.queue.close().await;
    send.send(request(task("b"))).await.unwrap();
    let status = responses.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(responses.next().await.is_none());
}

#[tokio::test]
async fn a_request_that_fails_ends_the_stream_after_the_answers_before_it() {
    let rig = Rig::new(1000).await;
    let (send, mut responses) = rig.converse();
    send.send(request(task("a"))).await.unwrap();
    send.send(Err(Status::invalid_argument("bytes")))
        .await
        .unwrap();
    let last = responses.next().await.unwrap();
    // What was not stored yet has no answer.
    let status = match last {
        Ok(response) => {
            assert_eq!(kind(&response), "new");
            responses.next().await.unwrap().unwrap_err()
        }
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(responses.next().await.is_none());
}
