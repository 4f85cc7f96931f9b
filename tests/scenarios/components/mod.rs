//! Components in a running node: messaging, failures, reloads and shutdown. All of them are the plugin
//! `probe`, which acts on the content of a message.

mod failures;
mod messaging;
mod reload;
mod shutdown;

use crate::support::{eventually, node::Node};
use hostel::{
    DistributedClient,
    proto::{
        distributed::{Message, MessageResponse},
        hostel::v1::Component,
    },
};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    [
        failures::trials(),
        reload::trials(),
        shutdown::trials(),
        messaging::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns a request to `probe`.
fn request(message_type: &str, payload: impl Into<Vec<u8>>) -> Message {
    Message {
        to_node: "probe".into(),
        message_type: message_type.into(),
        payload: payload.into().into(),
        reply_timeout_ms: 30_000,
        ..Message::default()
    }
}

async fn ask(client: &mut DistributedClient, request: Message) -> MessageResponse {
    client.send_message(request).await.expect("a reply")
}

/// Returns the answer as text; panics if there is none.
async fn answer(node: &Node, message_type: &str, payload: &str) -> String {
    let response = ask(&mut node.client(), request(message_type, payload)).await;
    assert!(response.success, "{message_type}: {}", response.message);
    text(response)
}

fn text(response: MessageResponse) -> String {
    let reply = response.reply.expect("an answer");
    String::from_utf8(reply.payload.to_vec()).expect("text")
}

/// Returns the reason why there is no answer.
async fn refusal(node: &Node, message_type: &str, payload: &str) -> String {
    let response = ask(&mut node.client(), request(message_type, payload)).await;
    assert!(
        !response.success,
        "{message_type} is answered: {response:?}"
    );
    response.message
}

/// Returns `probe` as listed by the node.
async fn listed(node: &Node) -> Component {
    let components = node.client().list_components().await.expect("a list");
    let probe = components.into_iter().find(|one| one.id == "probe");
    probe.expect("probe is listed")
}

/// Waits until `probe` is in that state.
async fn becomes(node: &Node, state: &str) -> Component {
    eventually(&format!("probe is {state}"), async || {
        let probe = listed(node).await;
        (probe.state == state).then_some(probe)
    })
    .await
}
