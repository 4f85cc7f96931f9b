//! `hostel submit`: one task in, its id or its result out.

use super::{
    Server,
    exit::Failure,
    output::{aside, print_bytes, print_json, task_with_result_json},
    payload::Payload,
};
use crate::proto::distributed::{Task, TaskStatus};
use clap::Args;
use serde_json::json;
use std::collections::HashMap;
use uuid::Uuid;

/// Submit a task
///
/// Prints the task's id once the task is durable, or with --wait the result, byte for byte. On a
/// terminal, stderr says how durable.
#[derive(Debug, Args)]
pub struct Submit {
    #[command(flatten)]
    server: Server,
    /// The task type, as a plugin declares it
    task_type: String,
    #[command(flatten)]
    payload: Payload,
    /// The task's id and idempotency key, until the node forgets the task
    /// (queue.keep_ended_ms after its end) [default: made up]
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
    /// Print JSON: id, whether it existed before, durability; with --wait also the task and its result
    #[arg(long)]
    json: bool,
}

impl Submit {
    pub async fn run(self) -> Result<(), Failure> {
        let metadata: HashMap<_, _> = self.metadata.iter().cloned().collect();
        if metadata.len() < self.metadata.len() {
            return Err(Failure::usage("--meta gives a key more than once"));
        }
        // Made up here, so that a failure can name it.
        let id = match self.id.is_empty() {
            true => Uuid::now_v7().to_string(),
            false => self.id.clone(),
        };
        let task = Task {
            task_id: id.clone(),
            task_type: self.task_type.clone(),
            payload: self.payload.read()?.into(),
            metadata,
            wait_ms: 0,
            node: self.node.clone(),
            label: self.label.clone(),
        };
        let mut client = self.server.connect().await?;
        let response = match self.wait {
            true => client.submit_to_end(task).await,
            false => client.submit(task).await,
        };
        let mut response = response.map_err(|status| Failure::of_task(&id, status))?;
        let status = response.status.take();
        // For people; scripts get what they ask for, and with --json this too.
        if !self.json {
            aside(format_args!("hostel: {}", survives(&response.durability)));
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
                print_bytes(&status.result)
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
                say!("{}", response.task_id);
                Ok(())
            }
        }
    }
}

/// A durability in words. Newer nodes may have further ones.
fn survives(durability: &str) -> String {
    let words = match durability {
        "memory" => "it is in memory only, and lost when its Redis ends",
        "periodic" => "it is on disk within a second or so",
        "synced" => "it is on disk",
        "replicated" => "as many replicas as the node asks for have it",
        _ => "the node cannot tell what it survives",
    };
    match durability {
        // A node of a version that says nothing.
        "" => format!("accepted: {words}"),
        durability => format!("accepted ({durability}): {words}"),
    }
}

/// Why there is no result, where there is none.
fn completed(status: &TaskStatus) -> Result<(), Failure> {
    if status.status != "completed" {
        let TaskStatus {
            task_id,
            status,
            error,
            ..
        } = status;
        return Err(Failure::found(format!("task {task_id} {status}: {error}")));
    }
    Ok(())
}

fn key_value(given: &str) -> Result<(String, String), String> {
    match given.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("{given:?} is not KEY=VALUE")),
    }
}
