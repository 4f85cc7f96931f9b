//! `hostel submit`: one task in, its id or its result out.

use super::{
    Server,
    exit::Failure,
    payload::{Payload, print_bytes},
};
use crate::proto::distributed::{Task, TaskStatus};
use clap::Args;

/// Submit a task
///
/// Prints the task's id once the task is durable, or with --wait the result, byte for byte.
#[derive(Debug, Args)]
pub struct Submit {
    #[command(flatten)]
    server: Server,
    /// The task type, as a plugin declares it
    task_type: String,
    #[command(flatten)]
    payload: Payload,
    /// The task's id and idempotency key [default: made up]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    /// Metadata for the handler; may be given many times
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = key_value)]
    metadata: Vec<(String, String)>,
    /// Have it run by this node only
    #[arg(
        long,
        value_name = "NODE",
        default_value = "",
        hide_default_value = true
    )]
    node: String,
    /// Have it run by nodes with this label only
    #[arg(
        long,
        value_name = "LABEL",
        default_value = "",
        hide_default_value = true,
        conflicts_with = "node"
    )]
    label: String,
    /// Wait for the task's end and print its result
    #[arg(long)]
    wait: bool,
}

impl Submit {
    pub async fn run(self) -> Result<(), Failure> {
        let task = Task {
            task_id: self.id.clone(),
            task_type: self.task_type.clone(),
            payload: self.payload.read()?.into(),
            metadata: self.metadata.iter().cloned().collect(),
            wait_ms: 0,
            node: self.node.clone(),
            label: self.label.clone(),
        };
        let mut client = self.server.connect().await?;
        if self.wait {
            return print_result(&client.submit_and_wait(task).await?);
        }
        let id = client.submit_task(task).await?;
        say!("{id}");
        Ok(())
    }
}

/// The result on stdout and nothing else, or why there is none.
fn print_result(status: &TaskStatus) -> Result<(), Failure> {
    if status.status != "completed" {
        let TaskStatus {
            task_id,
            status,
            error,
            ..
        } = status;
        return Err(Failure::found(format!("task {task_id} {status}: {error}")));
    }
    print_bytes(&status.result)
}

fn key_value(given: &str) -> Result<(String, String), String> {
    match given.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("{given:?} is not KEY=VALUE")),
    }
}
