//! `hostel tasks`: shows and lists tasks, and changes them (`task_actions`).

use super::{
    connection::ConnectionArgs,
    error::CliError,
    json::{task_json, task_with_result_json},
    output::{ago, print_field, print_json, print_table},
    task_actions::Selection,
    task_progress,
};
use crate::{
    proto::hostel::v1::ListTasksRequest,
    task::{Action, Priority, StateKind, parse_reason},
};
use clap::{Args, Subcommand};
use serde_json::Value;

#[derive(Debug, Args)]
pub struct Tasks {
    #[command(subcommand)]
    command: TasksCommand,
}

#[derive(Debug, Subcommand)]
enum TasksCommand {
    /// Show one task
    Get {
        #[command(flatten)]
        connection: ConnectionArgs,
        id: String,
        /// Wait for the end of the task, and show its progress on stderr until then
        #[arg(long)]
        wait: bool,
        #[arg(long)]
        json: bool,
    },
    /// List tasks, newest first
    List {
        #[command(flatten)]
        connection: ConnectionArgs,
        /// Only tasks in this state: pending, running, completed, failed or cancelled
        #[arg(long, value_name = "STATE")]
        state: Option<StateKind>,
        /// Only tasks of this type
        #[arg(
            long = "type",
            value_name = "TYPE",
            default_value = "",
            hide_default_value = true
        )]
        task_type: String,
        /// Only tasks of this group
        #[arg(
            long,
            value_name = "GROUP",
            default_value = "",
            hide_default_value = true
        )]
        group: String,
        /// Only tasks with this tag
        #[arg(
            long,
            value_name = "TAG",
            default_value = "",
            hide_default_value = true
        )]
        tag: String,
        /// The maximum number of tasks
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[arg(long)]
        json: bool,
    },
    /// Cancel tasks: at once if they are pending, by interrupting their handlers if they are running
    Cancel {
        #[command(flatten)]
        selection: Selection,
        /// Why: the error of the cancelled tasks
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Run failed or cancelled tasks again, with all of their attempts
    Requeue {
        #[command(flatten)]
        selection: Selection,
    },
    /// Delete tasks that have ended
    Purge {
        #[command(flatten)]
        selection: Selection,
    },
    /// Change the priority of pending tasks
    SetPriority {
        /// high, normal or low
        priority: Priority,
        #[command(flatten)]
        selection: Selection,
    },
    /// Make pending tasks that are delayed, or wait for their next attempt, due now
    RunNow {
        #[command(flatten)]
        selection: Selection,
    },
}

impl Tasks {
    pub async fn run(self) -> Result<(), CliError> {
        match self.command {
            TasksCommand::Get {
                connection,
                id,
                wait,
                json,
            } => get(&connection, &id, wait, json).await,
            TasksCommand::List {
                connection,
                state,
                task_type,
                group,
                tag,
                limit,
                json,
            } => {
                let filter = ListTasksRequest {
                    status: state.map(|state| state.to_string()).unwrap_or_default(),
                    task_type,
                    group,
                    tag,
                    ..Default::default()
                };
                list(&connection, filter, limit, json).await
            }
            TasksCommand::Cancel { selection, reason } => {
                let reason = parse_reason(&reason).map_err(CliError::usage)?;
                selection.act(&Action::Cancel(reason)).await
            }
            TasksCommand::Requeue { selection } => selection.act(&Action::Requeue).await,
            TasksCommand::Purge { selection } => selection.act(&Action::Purge).await,
            TasksCommand::SetPriority {
                priority,
                selection,
            } => selection.act(&Action::SetPriority(priority)).await,
            TasksCommand::RunNow { selection } => selection.act(&Action::RunNow).await,
        }
    }
}

async fn get(
    connection: &ConnectionArgs,
    id: &str,
    wait: bool,
    json: bool,
) -> Result<(), CliError> {
    let mut client = connection.connect().await?;
    let task = if wait {
        task_progress::wait(&mut client, id).await?
    } else {
        client.get_task_status(id).await?
    };
    if json {
        print_json(&task_with_result_json(&task));
        return Ok(());
    }
    let value = task_json(&task);
    let fields = value.as_object().into_iter().flatten();
    for (name, value) in fields {
        match value {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => print_field(name, text),
            Value::Array(_) if task.tags.is_empty() => {}
            Value::Array(_) => print_field(name, &task.tags.join(", ")),
            Value::Null => {}
            Value::Object(_) => {
                let progress = task.progress.as_ref().map(task_progress::text);
                print_field(name, &progress.unwrap_or_default());
            }
            other if *other == 0 => {}
            other => print_field(name, &other.to_string()),
        }
    }
    if task.status == "completed" {
        print_field("result", &format!("{} bytes", task.result.len()));
    }
    Ok(())
}

async fn list(
    connection: &ConnectionArgs,
    mut filter: ListTasksRequest,
    limit: usize,
    json: bool,
) -> Result<(), CliError> {
    let mut client = connection.connect().await?;
    let mut tasks = Vec::new();
    while tasks.len() < limit {
        filter.page_size = u32::try_from(limit - tasks.len()).unwrap_or(u32::MAX);
        let page = client.list_tasks(filter.clone()).await?;
        tasks.extend(page.tasks);
        filter.page_token = page.next_page_token;
        if filter.page_token.is_empty() {
            break;
        }
    }
    if json {
        print_json(&tasks.iter().map(task_json).collect());
        return Ok(());
    }
    let rows: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            vec![
                task.task_id,
                task.task_type,
                task.status,
                task.attempts.to_string(),
                ago(task.submitted_at_ms),
                first_line(&task.error),
            ]
        })
        .collect();
    print_table(&["ID", "TYPE", "STATE", "ATTEMPTS", "AGE", "ERROR"], &rows);
    Ok(())
}

fn first_line(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(80)
        .collect()
}
