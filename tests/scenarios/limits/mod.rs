//! The limits of the gRPC server: each is set low and exceeded by a client, which waits or gets an error
//! with the name of the limit, while other clients are served.

mod connections;
mod in_flight;
mod raw_clients;
mod sizes;

use crate::support::{
    DEADLINE,
    backend::{Backend, on_both, on_both_needing},
    eventually,
    node::{Node, hostel},
    plugins::{hostile, showcase},
    proxy::Proxy,
    task, trial_needing,
};
use hostel::{
    DistributedClient,
    plugin::{TestGuest, test_guest},
    proto::{
        distributed::{
            Message, RegisterRequest, Task, TaskResponse, TaskStatusRequest,
            distributed_service_client::DistributedServiceClient,
        },
        hostel::v1::{ListTasksRequest, SubmitManyRequest},
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
            "limits::max_connections_is_enforced",
            true,
            connections::max_connections_is_enforced,
        ),
        trial_needing(
            "limits::max_streams_per_connection_is_enforced",
            true,
            connections::max_streams_per_connection_is_enforced,
        ),
        trial_needing(
            "limits::max_requests_per_connection_is_enforced",
            true,
            connections::max_requests_per_connection_is_enforced,
        ),
        trial_needing(
            "limits::max_connection_age_is_enforced",
            true,
            connections::max_connection_age_is_enforced,
        ),
        trial_needing(
            "limits::request_timeout_is_enforced",
            true,
            connections::request_timeout_is_enforced,
        ),
        trial_needing(
            "limits::unread_responses_are_bounded",
            true,
            in_flight::unread_responses_are_bounded,
        ),
        trial_needing(
            "limits::unfinished_requests_are_bounded",
            true,
            in_flight::unfinished_requests_are_bounded,
        ),
        trial_needing(
            "limits::health_calls_hold_no_memory",
            true,
            in_flight::health_calls_hold_no_memory,
        ),
        trial_needing(
            "limits::slow_readers_delay_no_other_answer",
            true,
            in_flight::slow_readers_delay_no_other_answer,
        ),
        trial_needing(
            "limits::unread_small_messages_are_bounded",
            true,
            in_flight::unread_small_messages_are_bounded,
        ),
        trial_needing(
            "limits::unread_ends_are_bounded",
            true,
            in_flight::unread_ends_are_bounded,
        ),
        trial_needing(
            "limits::calls_end_at_their_deadline",
            true,
            raw_clients::calls_end_at_their_deadline,
        ),
        trial_needing(
            "limits::undecodable_requests_are_invalid_arguments",
            true,
            raw_clients::undecodable_requests_are_invalid_arguments,
        ),
        trial_needing(
            "limits::cancelled_calls_affect_no_other_call",
            true,
            raw_clients::cancelled_calls_affect_no_other_call,
        ),
        trial_needing(
            "limits::idle_connections_are_closed",
            true,
            raw_clients::idle_connections_are_closed,
        ),
        trial_needing(
            "limits::the_longest_idle_connection_makes_room",
            true,
            raw_clients::the_longest_idle_connection_makes_room,
        ),
        trial_needing(
            "limits::a_long_wait_uses_no_retry_time",
            true,
            connections::a_long_wait_uses_no_retry_time,
        ),
        trial_needing(
            "limits::long_headers_are_rejected",
            true,
            connections::long_headers_are_rejected,
        ),
        trial_needing(
            "limits::listening_beyond_loopback_needs_insecure",
            true,
            sizes::listening_beyond_loopback_needs_insecure,
        ),
    ];
    // Limits of connections and calls do not depend on the backend.
    let of_amounts = [
        on_both(
            "limits::max_message_is_enforced",
            sizes::max_message_is_enforced,
        ),
        on_both_needing(
            "limits::max_wait_is_enforced",
            true,
            sizes::max_wait_is_enforced,
        ),
        on_both_needing(
            "limits::max_services_is_enforced",
            true,
            sizes::max_services_is_enforced,
        ),
        on_both_needing(
            "limits::subscriber_backlog_is_enforced",
            true,
            sizes::subscriber_backlog_is_enforced,
        ),
        on_both(
            "limits::max_open_tasks_is_enforced",
            sizes::max_open_tasks_is_enforced,
        ),
    ];
    of_amounts.into_iter().flatten().chain(of_server).collect()
}

/// Starts a node with a task type that echoes and one that never ends, without a build from source.
async fn node(on: Backend, settings: &str) -> Node {
    let node = on.prepare(&[], settings).await;
    let spin = TestGuest {
        name: "spin",
        task_types: &["spin"],
        handle: test_guest::SPIN,
        ..TestGuest::default()
    };
    node.add_wasm("sample.wasm", &TestGuest::default().wasm().unwrap());
    node.add_wasm("spin.wasm", &spin.wasm().unwrap());
    node.started().await
}

async fn assert_serves(client: &mut DistributedClient) {
    let echoed = client.submit_and_wait(task("sample", "over")).await;
    assert_eq!(echoed.unwrap().status, "completed");
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(DEADLINE, work).await;
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
