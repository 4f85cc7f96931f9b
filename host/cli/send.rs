//! `hostel send`: one message to a component, a node or a topic, and its answer out.

use super::{Server, exit::Failure, output::print_bytes, payload::Payload};
use crate::proto::distributed::Message;
use clap::Args;

/// How long to wait for an answer where --wait says no number.
const WAIT_MS: &str = "10000";

/// Send a message to a component, a node or a topic
///
/// Says how many it was handed to, or with --wait prints the answer, byte for byte. A node answers
/// with its record: what it is and what it has.
#[derive(Debug, Args)]
pub struct Send {
    #[command(flatten)]
    server: Server,
    /// The id of a component or a node, or a topic
    to: String,
    #[command(flatten)]
    payload: Payload,
    /// The message's type, as the receiver knows it
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    message_type: String,
    /// In whose name; without --wait answers go there
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    from: String,
    /// Wait for the answer, this long at the most
    #[arg(long, value_name = "MS", num_args = 0..=1, require_equals = true, default_missing_value = WAIT_MS)]
    wait: Option<u64>,
}

impl Send {
    pub async fn run(self) -> Result<(), Failure> {
        let message = Message {
            from_node: self.from,
            to_node: self.to,
            payload: self.payload.read()?.into(),
            message_type: self.message_type,
            reply_timeout_ms: self.wait.unwrap_or(0),
            ..Message::default()
        };
        let response = self.server.connect().await?.send_message(message).await?;
        if !response.success {
            return Err(Failure::found(response.message));
        }
        match response.reply {
            Some(answer) => print_bytes(&answer.payload),
            None => {
                say!("{}", response.message);
                Ok(())
            }
        }
    }
}
