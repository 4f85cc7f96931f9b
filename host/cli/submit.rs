//! `hostel submit`: submits a task and prints its id or its result. With `--many` it is `many`.

use super::{
    connection::ConnectionArgs,
    error::CliError,
    json::task_with_result_json,
    many::{self, ManyArgs},
    metadata::MetadataArgs,
    output::{print_bytes, print_hint, print_json, print_note},
    payload::Payload,
    task_options::TaskOptionArgs,
    task_progress,
};
use crate::proto::distributed::{Task, TaskStatus};
use clap::Args;
use serde_json::json;
use uuid::Uuid;

/// Submit a task, or many
///
/// Prints the id of the task once it is stored durably, or with --wait the result, byte for byte. Stderr
/// gets the durability if it is a terminal, and with --wait the progress that the handler reports, as a bar
/// on a terminal. With --many it submits all tasks of a file and prints
/// how many were accepted.
#[derive(Debug, Args)]
#[command(after_help = many::HELP)]
pub struct Submit {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// The task type, as declared by a plugin
    #[arg(required_unless_present = "many")]
    task_type: Option<String>,
    #[command(flatten)]
    payload: Payload,
    /// The id of the task and its idempotency key, until the node deletes the task
    /// (queue.keep_completed_ms after its end) [default: generated]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    #[command(flatten)]
    metadata: MetadataArgs,
    /// Run the task on this node only
    #[arg(
        long,
        value_name = "NODE",
        default_value = "",
        hide_default_value = true
    )]
    node: String,
    /// Run the task on nodes with this label only
    #[arg(
        long,
        value_name = "LABEL",
        default_value = "",
        hide_default_value = true,
        conflicts_with = "node"
    )]
    label: String,
    #[command(flatten)]
    options: TaskOptionArgs,
    #[command(flatten)]
    many: ManyArgs,
    /// Wait for the end of the task and print its result
    #[arg(long)]
    wait: bool,
    /// Print JSON: the id, whether the task existed, its durability; with --wait also the task and its
    /// result
    #[arg(long)]
    json: bool,
}

impl Submit {
    pub async fn run(mut self) -> Result<(), CliError> {
        if let Some(path) = self.many.many.take() {
            let (wait, json) = (self.wait, self.json);
            return self.many.run(path, &self.connection, wait, json).await;
        }
        // A rule of the parser would not hold, since --many conflicts with the other arguments.
        if self.many.batch.is_some() {
            return Err(CliError::usage("--batch is for --many only"));
        }
        let metadata = self.metadata.get()?;
        // Generated here, so that an error can name the task.
        let id = if self.id.is_empty() {
            Uuid::now_v7().to_string()
        } else {
            self.id.clone()
        };
        let task = self.options.set(Task {
            task_id: id.clone(),
            task_type: self.task_type.clone().unwrap_or_default(),
            payload: self.payload.read()?.into(),
            metadata,
            node: self.node.clone(),
            label: self.label.clone(),
            ..Task::default()
        });
        let mut client = self.connection.connect().await?;
        let response = if self.wait {
            task_progress::submit(&mut client, task).await
        } else {
            client.submit(task).await
        };
        let mut response = response.map_err(|status| CliError::submission(&id, status))?;
        let status = response.status.take();
        if response.task_id != id {
            print_note(format_args!(
                "hostel: no task was made: the task {} has the unique key",
                response.task_id
            ));
        } else if !self.json {
            print_hint(format_args!("hostel: {}", durability(&response.durability)));
        }
        match status {
            Some(status) if self.json => {
                let mut value = task_with_result_json(&status);
                value["existing"] = response.existing.into();
                value["durability"] = response.durability.into();
                print_json(&value);
                completed(&status)
            }
            Some(status) => {
                completed(&status)?;
                Ok(print_bytes(&status.result)?)
            }
            None if self.json => {
                print_json(&json!({
                    "task_id": response.task_id,
                    "existing": response.existing,
                    "durability": response.durability,
                }));
                Ok(())
            }
            None => {
                print_line!("{}", response.task_id);
                Ok(())
            }
        }
    }
}

/// Describes a durability. Newer nodes may return further ones, older nodes none.
fn durability(durability: &str) -> String {
    let description = match durability {
        "memory" => "the task is in the memory of Redis, and lost with it unless a snapshot has it",
        "periodic" => {
            "the task is on disk within about a second (half a minute with appendfsync no)"
        }
        "synced" => "the task is on disk",
        "replicated" => "as many replicas as the node requires have the task",
        _ => "the node does not know the durability of the task",
    };
    if durability.is_empty() {
        format!("accepted: {description}")
    } else {
        format!("accepted ({durability}): {description}")
    }
}

/// Returns an error unless the task has a result.
fn completed(status: &TaskStatus) -> Result<(), CliError> {
    if status.status != "completed" {
        let TaskStatus {
            task_id,
            status,
            error,
            ..
        } = status;
        return Err(CliError::failed(format!(
            "task {task_id} {status}: {error}"
        )));
    }
    Ok(())
}
