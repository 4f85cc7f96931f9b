//! `hostel tasks`: lists tasks, and changes them (`task_actions`). `task_reads` has the commands that show one task,
//! or the changes of tasks.

use super::{
    connection::ConnectionArgs,
    error::CliError,
    json::task_json,
    output::{ago, print_json, print_table},
    task_actions::Selection,
    task_filter::TaskFilterArgs,
    task_reads,
};
use crate::{
    proto::hostel::v1::ListTasksRequest,
    task::{Action, Priority, parse_reason},
};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct Tasks {
    #[command(subcommand)]
    command: TasksCommand,
}

#[derive(Debug, Subcommand)]
enum TasksCommand {
    /// Show one task with its attempts
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
    List(Box<List>),
    /// Explain what a pending task waits for
    Explain {
        #[command(flatten)]
        connection: ConnectionArgs,
        id: String,
        #[arg(long)]
        json: bool,
    },
    Watch(Box<task_reads::Watch>),
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

/// List tasks, newest first
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    filter: TaskFilterArgs,
    /// The maximum number of tasks
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[arg(long)]
    json: bool,
}

impl List {
    async fn run(self) -> Result<(), CliError> {
        let filter = self.filter.into_request();
        list(&self.connection, filter, self.limit, self.json).await
    }
}

impl Tasks {
    pub async fn run(self) -> Result<(), CliError> {
        match self.command {
            TasksCommand::Get {
                connection,
                id,
                wait,
                json,
            } => task_reads::get(&connection, &id, wait, json).await,
            TasksCommand::List(list) => list.run().await,
            TasksCommand::Explain {
                connection,
                id,
                json,
            } => task_reads::explain(&connection, &id, json).await,
            TasksCommand::Watch(watch) => watch.run().await,
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
