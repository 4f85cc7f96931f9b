//! `hostel send`: sends a message to a component, a node or a topic, and prints the reply.

use super::{connection::ConnectionArgs, error::CliError, output::print_bytes, payload::Payload};
use crate::proto::distributed::Message;
use clap::Args;

/// The wait for a reply if --wait has no number.
const WAIT_MS: &str = "10000";

/// Send a message to a component, a node or a topic
///
/// Prints the number of receivers, or with --wait the reply, byte for byte. A node replies with its
/// registration as JSON.
#[derive(Debug, Args)]
pub struct Send {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// The id of a component or a node, or a topic
    to: String,
    #[command(flatten)]
    payload: Payload,
    /// The type of the message
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    message_type: String,
    /// The id of the sender, to which replies go without --wait
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    from: String,
    /// Wait for the reply, at most this long; 10000 without a number
    #[arg(long, value_name = "MS", num_args = 0..=1, require_equals = true, default_missing_value = WAIT_MS)]
    wait: Option<u64>,
}

impl Send {
    pub async fn run(self) -> Result<(), CliError> {
        let message = Message {
            from_node: self.from,
            to_node: self.to,
            payload: self.payload.read()?.into(),
            message_type: self.message_type,
            reply_timeout_ms: self.wait.unwrap_or(0),
            ..Message::default()
        };
        let response = self
            .connection
            .connect()
            .await?
            .send_message(message)
            .await?;
        if !response.success {
            return Err(CliError::failed(response.message));
        }
        match response.reply {
            Some(reply) => Ok(print_bytes(&reply.payload)?),
            None => {
                print_line!("{}", response.message);
                Ok(())
            }
        }
    }
}
