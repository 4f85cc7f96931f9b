//! Components in a running node: what they answer, how they fail, how they are replaced and how they
//! stop. All of them are the plugin `probe`, which does what a message says.

mod failing;
mod reload;
mod stopping;
mod talking;

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
        failing::trials(),
        reload::trials(),
        stopping::trials(),
        talking::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A question to `probe`. Nobody waits longer for the answer than a test may take.
fn question(message_type: &str, payload: impl Into<Vec<u8>>) -> Message {
    Message {
        to_node: "probe".into(),
        message_type: message_type.into(),
        payload: payload.into().into(),
        reply_timeout_ms: 30_000,
        ..Message::default()
    }
}

async fn ask(client: &mut DistributedClient, question: Message) -> MessageResponse {
    client.send_message(question).await.expect("a reply")
}

/// The answer as text; panics when there is none.
async fn answer(node: &Node, message_type: &str, payload: &str) -> String {
    let response = ask(&mut node.client(), question(message_type, payload)).await;
    assert!(response.success, "{message_type}: {}", response.message);
    text(response)
}

fn text(response: MessageResponse) -> String {
    let reply = response.reply.expect("an answer");
    String::from_utf8(reply.payload.to_vec()).expect("text")
}

/// Why there is no answer.
async fn refusal(node: &Node, message_type: &str, payload: &str) -> String {
    let response = ask(&mut node.client(), question(message_type, payload)).await;
    assert!(
        !response.success,
        "{message_type} is answered: {response:?}"
    );
    response.message
}

/// `probe` as the node lists it.
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
