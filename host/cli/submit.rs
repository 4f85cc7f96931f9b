//! `hostel submit`: one task in, its id or its result out.

use super::{Server, exit::Failure};
use crate::proto::distributed::{Task, TaskStatus};
use anyhow::Context;
use clap::Args;
use std::{
    io::{IsTerminal, Read, Write},
    path::PathBuf,
};

/// Submit a task
///
/// Prints the task's id once the task is durable, or with --wait the result, byte for byte.
#[derive(Debug, Args)]
pub struct Submit {
    #[command(flatten)]
    server: Server,
    /// The task type, as a plugin declares it
    task_type: String,
    /// `-` reads the payload from stdin
    #[arg(value_name = "-", value_parser = ["-"], conflicts_with_all = ["payload", "file"])]
    stdin: Option<String>,
    /// The payload, as text
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    payload: Option<String>,
    /// The file that holds the payload
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The task's id and idempotency key [default: made up]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    /// Metadata for the handler; may be given many times
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = key_value)]
    metadata: Vec<(String, String)>,
    /// Wait for the task's end and print its result
    #[arg(long)]
    wait: bool,
}

impl Submit {
    pub async fn run(self) -> Result<(), Failure> {
        let task = Task {
            task_id: self.id.clone(),
            task_type: self.task_type.clone(),
            payload: self
                .read_payload()
                .map_err(|error| Failure::usage(format!("{error:#}")))?
                .into(),
            metadata: self.metadata.iter().cloned().collect(),
            wait_ms: 0,
        };
        let mut client = self.server.connect().await?;
        if self.wait {
            return print_result(&client.submit_and_wait(task).await?);
        }
        let id = client.submit_task(task).await?;
        say!("{id}");
        Ok(())
    }

    fn read_payload(&self) -> anyhow::Result<Vec<u8>> {
        if let Some(text) = &self.payload {
            return Ok(text.clone().into_bytes());
        }
        if let Some(file) = &self.file {
            return std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        }
        let mut payload = Vec::new();
        if self.stdin.is_some() {
            std::io::stdin().read_to_end(&mut payload)?;
        }
        Ok(payload)
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
    let mut out = std::io::stdout().lock();
    let written = out.write_all(&status.result).and_then(|()| {
        // A person's prompt should not stick to the result; a program gets the bytes alone.
        if std::io::stdout().is_terminal() && !status.result.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
        out.flush()
    });
    written
        .context("cannot write the result")
        .map_err(Failure::node)
}

fn key_value(given: &str) -> Result<(String, String), String> {
    match given.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("{given:?} is not KEY=VALUE")),
    }
}
