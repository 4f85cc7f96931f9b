//! The limits of the gRPC server: each is set low and tripped by a client that wants more, which
//! waits or is told the limit's name, while others are served.

mod amounts;
mod connections;
mod in_flight;
mod raw;

use crate::support::{
    PATIENCE,
    backend::{Backend, on_both, on_both_needing},
    eventually,
    node::{Node, hostel},
    plugins::{hostile, showcase},
    proxy::Proxy,
    task, trial_needing,
};
use hostel::{
    DistributedClient,
    plugin::{Sample, sample},
    proto::{
        distributed::{
            Message, RegisterRequest, Task, TaskResponse, TaskStatusRequest,
            distributed_service_client::DistributedServiceClient,
        },
        hostel::v1::ListTasksRequest,
    },
};
use libtest_mimic::Trial;
use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, transport::Channel};

pub fn trials() -> Vec<Trial> {
    let of_server = vec![
        trial_needing(
            "limits::max_connections",
            true,
            connections::max_connections,
        ),
        trial_needing(
            "limits::max_streams_per_connection",
            true,
            connections::max_streams,
        ),
        trial_needing(
            "limits::max_requests_per_connection",
            true,
            connections::max_requests,
        ),
        trial_needing(
            "limits::max_connection_age",
            true,
            connections::max_connection_age,
        ),
        trial_needing(
            "limits::request_timeout",
            true,
            connections::request_timeout,
        ),
        trial_needing("limits::unread_answers", true, in_flight::unread_answers),
        trial_needing(
            "limits::unfinished_messages",
            true,
            in_flight::unfinished_messages,
        ),
        trial_needing("limits::calls_end_at_their_deadline", true, raw::deadlines),
        trial_needing(
            "limits::what_does_not_decode_is_an_invalid_argument",
            true,
            raw::bad_messages,
        ),
        trial_needing(
            "limits::cancelled_calls_end_nothing_else",
            true,
            raw::cancelled_calls,
        ),
        trial_needing("limits::idle_connections_end", true, raw::idle_timeout),
        trial_needing(
            "limits::the_longest_idle_makes_room",
            true,
            raw::idle_makes_room,
        ),
        trial_needing(
            "limits::a_long_wait_spends_no_patience",
            true,
            connections::lost_waits,
        ),
        trial_needing("limits::header_list", true, connections::header_list),
        trial_needing("limits::open_to_other_machines", true, amounts::open_listen),
    ];
    // What the server alone keeps to is the same on every backend.
    let of_amounts = [
        on_both("limits::max_message", amounts::max_message),
        on_both_needing("limits::max_wait", true, amounts::max_wait),
        on_both_needing("limits::max_services", true, amounts::max_services),
        on_both_needing(
            "limits::subscriber_backlog",
            true,
            amounts::subscriber_backlog,
        ),
        on_both("limits::max_open_tasks", amounts::max_open_tasks),
    ];
    of_amounts.into_iter().flatten().chain(of_server).collect()
}

/// A node with an echo and a task type that never ends by itself, neither built from source.
async fn node(on: Backend, settings: &str) -> Node {
    let node = on.prepare(&[], settings).await;
    let spin = Sample {
        name: "spin",
        task_types: &["spin"],
        handle: sample::SPIN,
        ..Sample::default()
    };
    node.add_wasm("sample.wasm", &Sample::default().wasm().unwrap());
    node.add_wasm("spin.wasm", &spin.wasm().unwrap());
    node.started().await
}

async fn lives(client: &mut DistributedClient) {
    let echoed = client.submit_and_wait(task("sample", "over")).await;
    assert_eq!(echoed.unwrap().status, "completed");
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, work).await;
    ended.unwrap_or_else(|_| panic!("never happened: {what}"))
}

fn hello(from: &str) -> Message {
    Message {
        from_node: from.into(),
        ..Default::default()
    }
}

/// A conversation that goes on until this is dropped: one message in, its answer out.
struct Conversation {
    incoming: tonic::Streaming<Message>,
    _outgoing: mpsc::Sender<Message>,
}

async fn conversation(
    mut client: DistributedClient,
    from: &'static str,
) -> Result<Conversation, Status> {
    let (outgoing, messages) = mpsc::channel(1);
    outgoing.send(hello(from)).await.expect("room");
    let mut incoming = client
        .stream_messages(ReceiverStream::new(messages))
        .await?;
    incoming.message().await?.expect("an answer");
    Ok(Conversation {
        incoming,
        _outgoing: outgoing,
    })
}

async fn channel(node: &Node) -> Channel {
    let address = format!("http://{}", node.address());
    Channel::from_shared(address)
        .unwrap()
        .connect()
        .await
        .unwrap()
}
