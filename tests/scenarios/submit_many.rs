//! Many tasks on one stream: each is answered once and its end is sent once, whatever becomes of the
//! others, the queue, the client or the node.

use crate::support::{
    DEADLINE,
    backend::{Backend, on_both_needing},
    eventually,
    node::Node,
    task,
};
use hostel::{
    client::SubmitMany,
    plugin::{TestGuest, test_guest},
    proto::{
        distributed::Task,
        hostel::v1::{
            CountTasksRequest, SubmitManyRequest, SubmitManyResponse, submit_many_response::Event,
            task_service_client::TaskServiceClient,
        },
    },
};
use libtest_mimic::Trial;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming, transport::Channel};

pub fn trials() -> Vec<Trial> {
    [
        on_both_needing(
            "submit_many::each_task_is_answered_and_ends_once",
            true,
            each_task_is_answered_and_ends_once,
        ),
        on_both_needing(
            "submit_many::a_full_queue_holds_the_stream_back",
            true,
            a_full_queue_holds_the_stream_back,
        ),
        on_both_needing(
            "submit_many::a_lost_stream_is_resumed",
            true,
            a_lost_stream_is_resumed,
        ),
        on_both_needing(
            "submit_many::a_stop_answers_what_is_stored",
            true,
            a_stop_answers_what_is_stored,
        ),
        on_both_needing(
            "submit_many::large_tasks_take_turns",
            true,
            large_tasks_take_turns,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Prepares a node with a type that echoes, one that fails and one that never ends.
async fn prepared(on: Backend, settings: &str) -> Node {
    let node = on.prepare(&[], settings).await;
    let guest = |name: &'static str, handle| {
        let guest = TestGuest {
            name,
            task_types: Box::leak(Box::new([name])),
            handle,
            ..TestGuest::default()
        };
        node.add_wasm(&format!("{name}.wasm"), &guest.wasm().unwrap());
    };
    guest("echo", test_guest::ECHO);
    guest("spin", test_guest::SPIN);
    node
}

fn named(id: &str, task_type: &str, payload: &str) -> Task {
    Task {
        task_id: id.into(),
        ..task(task_type, payload)
    }
}

/// One stream, of which the test sends and receives each message itself.
struct Raw {
    requests: Option<mpsc::Sender<SubmitManyRequest>>,
    responses: Streaming<SubmitManyResponse>,
}

impl Raw {
    async fn open(node: &Node) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let mut client = TaskServiceClient::new(channel(node));
        let responses = client.submit_many(ReceiverStream::new(receiver)).await;
        Self {
            requests: Some(requests),
            responses: responses.unwrap().into_inner(),
        }
    }

    async fn send(&mut self, task: Task) {
        let request = SubmitManyRequest {
            task: Some(task),
            results: true,
            ..SubmitManyRequest::default()
        };
        let requests = self.requests.as_ref().expect("an open stream");
        requests.send(request).await.unwrap();
    }

    async fn receive(&mut self) -> Result<Option<SubmitManyResponse>, Status> {
        let response = tokio::time::timeout(DEADLINE, self.responses.message());
        response.await.expect("a response")
    }

    /// Whether nothing comes for some time.
    async fn is_silent(&mut self) -> bool {
        let wait = tokio::time::timeout(Duration::from_millis(500), self.responses.message());
        wait.await.is_err()
    }
}

fn channel(node: &Node) -> Channel {
    crate::support::ledger::channel(node.address())
}

/// What a response says, in a few words.
fn said(response: &SubmitManyResponse) -> String {
    match response.event.as_ref().expect("an event") {
        Event::Accepted(accepted) if accepted.existing => "existing".into(),
        Event::Accepted(_) => "new".into(),
        Event::Refused(refused) => format!("{:?}", Code::from(refused.code as i32)),
        Event::Ended(status) => {
            let result = String::from_utf8_lossy(&status.result);
            format!("{} {result}", status.status)
        }
        Event::Unread(unread) => format!("unread: {}", unread.message),
    }
}

/// Everything that the client is told, by position.
async fn all(stream: &mut SubmitMany) -> BTreeMap<u64, Vec<String>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    loop {
        let next = tokio::time::timeout(DEADLINE, stream.next()).await;
        match next.expect("a response") {
            Some(response) => {
                let response = response.unwrap();
                all.entry(response.position)
                    .or_default()
                    .push(said(&response));
            }
            None => return all,
        }
    }
}

/// The number of tasks in each state.
async fn counts(node: &Node) -> BTreeMap<String, u64> {
    let mut client = TaskServiceClient::new(channel(node));
    let counted = client.count(CountTasksRequest {}).await.unwrap();
    let mut counts = BTreeMap::new();
    for count in counted.into_inner().counts {
        *counts.entry(count.status).or_default() += count.count;
    }
    counts
}

async fn each_task_is_answered_and_ends_once(on: Backend) {
    const TASKS: u64 = 3000;
    let node = prepared(on, "").await.started().await;
    let mut client = node.client();
    client
        .submit_task(named("old", "echo", "old"))
        .await
        .unwrap();
    client.wait_for_task("old").await.unwrap();
    // Every tenth task is an odd one.
    let make = |number: u64| match number % 100 {
        10 => named("old", "echo", "old"),
        20 => named("old", "echo", "other"),
        30 => named(&format!("task-{number}"), "nothing", ""),
        40 => named("not an id", "echo", ""),
        50 => Task {
            node: "nowhere".into(),
            ..named(&format!("task-{number}"), "echo", "")
        },
        60 => named("twice", "echo", "twice"),
        _ => named(&format!("task-{number}"), "echo", &number.to_string()),
    };
    let mut stream = client.submit_many_to_end(tokio_stream::iter((0..TASKS).map(make)));
    let all = all(&mut stream).await;
    assert_eq!(all.len() as u64, TASKS);
    let mut good = 0;
    for (position, said) in &all {
        let expected = match position % 100 {
            10 => vec!["existing".into(), "completed old".into()],
            20 => vec!["AlreadyExists".into()],
            30 | 50 => vec!["FailedPrecondition".into()],
            40 => vec!["InvalidArgument".into()],
            60 => {
                let first = if *position == 60 { "new" } else { "existing" };
                vec![first.into(), "completed twice".into()]
            }
            _ => {
                good += 1;
                vec!["new".into(), format!("completed {position}")]
            }
        };
        assert_eq!(*said, expected, "{position}");
    }
    let completed = BTreeMap::from([("completed".to_owned(), good + 2)]);
    assert_eq!(counts(&node).await, completed);

    // A task that is cancelled ends, too; without results no end is sent.
    let spinning = tokio_stream::iter([named("spin", "spin", "")]);
    let mut stream = client.submit_many_to_end(spinning);
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(said(&first), "new");
    client.cancel_task("spin").await.unwrap();
    let end = stream.next().await.unwrap().unwrap();
    assert_eq!((end.position, &*said(&end)), (0, "cancelled "));
    assert!(stream.next().await.is_none());
    let again = tokio_stream::iter([named("spin", "spin", "")]);
    let mut stream = client.submit_many(again);
    assert_eq!(
        self::all(&mut stream).await,
        BTreeMap::from([(0, vec!["existing".into()])])
    );
}

async fn a_full_queue_holds_the_stream_back(on: Backend) {
    const OPEN: usize = 20;
    const TASKS: u64 = 300;
    let settings = "[plugin.spin.task.spin]\ntimeout_ms = 600000\nmax_concurrency = 1\n";
    let mut node = prepared(on, settings).await;
    node.set_in("queue", &format!("max_open_tasks = {OPEN}"));
    let node = node.started().await;
    let mut client = node.client();
    for number in 0..OPEN {
        let spin = named(&format!("spin-{number}"), "spin", "");
        client.submit_task(spin).await.unwrap();
    }
    let mut raw = Raw::open(&node).await;
    raw.send(named("task-0", "echo", "0")).await;
    assert!(raw.is_silent().await, "the queue is full");
    // What is refused for itself is answered nevertheless, and so is what exists.
    let mut other = Raw::open(&node).await;
    other.send(named("spin-0", "spin", "")).await;
    assert_eq!(said(&other.receive().await.unwrap().unwrap()), "existing");
    for number in 0..OPEN {
        client.cancel_task(&format!("spin-{number}")).await.unwrap();
    }
    assert_eq!(said(&raw.receive().await.unwrap().unwrap()), "new");
    assert_eq!(said(&raw.receive().await.unwrap().unwrap()), "completed 0");
    // Fifteen times as many tasks as have room go through, and none is refused.
    let make = |number: u64| named(&format!("more-{number}"), "echo", &number.to_string());
    let mut stream = client.submit_many_to_end(tokio_stream::iter((0..TASKS).map(make)));
    let all = all(&mut stream).await;
    assert_eq!(all.len() as u64, TASKS);
    for (position, said) in all {
        assert_eq!(said, ["new".to_owned(), format!("completed {position}")]);
    }
}

/// The node is killed again and again while tasks go in and results come out.
async fn a_lost_stream_is_resumed(on: Backend) {
    const TASKS: u64 = 4000;
    const KILLS: u64 = 4;
    let settings = "[plugin.echo.task.echo]\nmax_attempts = 100\nbackoff_initial_ms = 20\n\
        backoff_max_ms = 200\n";
    let mut node = prepared(on, settings).await;
    node.set_in("queue", "lease_ttl_ms = 2000");
    let mut node = node.started().await;
    let address = node.address().to_owned();
    node.set_listen(&address);
    let taken = Arc::<AtomicU64>::default();
    let of_stream = taken.clone();
    let make = move |number: u64| {
        of_stream.store(number, Relaxed);
        named(&format!("task-{number}"), "echo", &number.to_string())
    };
    let mut client = node.client().with_retry_timeout(DEADLINE);
    // Slow enough for every kill to hit it.
    let tasks = tokio_stream::iter((0..TASKS).map(make)).throttle(Duration::from_micros(500));
    let mut stream = client.submit_many_to_end(tasks);
    let kills = async {
        for kill in 1..=KILLS {
            eventually("further tasks", || async {
                (taken.load(Relaxed) > kill * TASKS / (KILLS + 2)).then_some(())
            })
            .await;
            node.kill();
            node.restart().await;
        }
        node
    };
    let (all, node) = tokio::join!(all(&mut stream), kills);
    assert_eq!(all.len() as u64, TASKS);
    for (position, said) in all {
        let end = format!("completed {position}");
        // What was stored when its answer was lost is found to exist.
        let first = ["new".to_owned(), end.clone()];
        let again = ["existing".to_owned(), end];
        assert!(said == first || said == again, "{position}: {said:?}");
    }
    let completed = BTreeMap::from([("completed".to_owned(), TASKS)]);
    assert_eq!(counts(&node).await, completed);
}

async fn a_stop_answers_what_is_stored(on: Backend) {
    let settings = "[plugin.spin.task.spin]\ntimeout_ms = 600000\n";
    let mut node = prepared(on, settings).await;
    node.replace_setting("drain_ms = 10000", "drain_ms = 100");
    let mut node = node.started().await;
    let mut raw = Raw::open(&node).await;
    raw.send(named("spin", "spin", "")).await;
    assert_eq!(said(&raw.receive().await.unwrap().unwrap()), "new");
    node.request_stop();
    let mut sent = 0;
    let mut accepted = vec!["spin".to_owned()];
    let status = loop {
        let id = format!("task-{sent}");
        // The stream ends while tasks are sent.
        let request = SubmitManyRequest {
            task: Some(named(&id, "echo", "")),
            ..SubmitManyRequest::default()
        };
        if raw.requests.as_ref().unwrap().try_send(request).is_ok() {
            sent += 1;
        }
        match raw.receive().await {
            Ok(Some(response)) if matches!(response.event, Some(Event::Accepted(_))) => {
                accepted.push(response.task_id);
            }
            Ok(Some(_)) => {}
            Ok(None) => panic!("an end without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(node.wait_for_exit().await.success(), "{}", node.log());
    node.restart().await;
    let mut client = node.client();
    for id in accepted {
        client.get_task_status(&id).await.expect("it is stored");
    }
}

/// Streams that bring more than the node's budgets hold, with results of the same size.
async fn large_tasks_take_turns(on: Backend) {
    const STREAMS: usize = 6;
    const TASKS: u64 = 20;
    let settings = "[limits]\nmax_received_bytes = 4194304\nmax_unsent_bytes = 8388608\n\
        max_received_bytes_per_connection = 2097152\nmax_unsent_bytes_per_connection = 4194304\n";
    let node = prepared(on, settings).await.started().await;
    let streams = (0..STREAMS).map(|stream| {
        let mut client = node.client();
        let make = move |number: u64| {
            let payload = number.to_string().repeat((300 << 10) + stream);
            named(&format!("task-{stream}-{number}"), "echo", &payload)
        };
        async move {
            let tasks = tokio_stream::iter((0..TASKS).map(make));
            let mut stream = client.submit_many_to_end(tasks);
            let all = all(&mut stream).await;
            assert_eq!(all.len() as u64, TASKS);
            for (position, said) in all {
                let [answer, end] = &said[..] else {
                    panic!("{} responses", said.len());
                };
                assert_eq!(answer, "new");
                let expected = make(position).payload;
                assert!(
                    end.strip_prefix("completed ")
                        .is_some_and(|it| it == expected)
                );
            }
        }
    });
    futures_util::future::join_all(streams).await;
}
