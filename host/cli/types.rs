//! `hostel types`: what operators see of task types, and do to one as a whole.

use super::{connection::ConnectionArgs, error::CliError, type_limits, type_pauses};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct Types {
    #[command(subcommand)]
    command: TypesCommand,
}

#[derive(Debug, Subcommand)]
enum TypesCommand {
    /// List task types with their tasks, nodes and limits
    ///
    /// Behind each limit stands its origin: the manifest of the plugin, the configuration of the node that
    /// answers, or the run time, which wins over both.
    List {
        #[command(flatten)]
        connection: ConnectionArgs,
        /// Show only this type, with the groups that have limits of their own
        task_type: Option<String>,
        #[arg(long)]
        json: bool,
    },
    Limit(Box<type_limits::Limit>),
    /// List the paused task types
    ListPaused {
        #[command(flatten)]
        connection: ConnectionArgs,
        #[arg(long)]
        json: bool,
    },
    /// Begin no task of a type, on any node of the cluster, until it is resumed
    Pause {
        #[command(flatten)]
        connection: ConnectionArgs,
        task_type: String,
        /// Why: shown with the type and with the tasks that wait
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// End the pause of a task type
    Resume {
        #[command(flatten)]
        connection: ConnectionArgs,
        task_type: String,
    },
}

impl Types {
    pub async fn run(self) -> Result<(), CliError> {
        match self.command {
            TypesCommand::List {
                connection,
                task_type,
                json,
            } => type_limits::list(&connection, task_type, json).await,
            TypesCommand::Limit(limit) => limit.run().await,
            TypesCommand::ListPaused { connection, json } => {
                type_pauses::list(&connection, json).await
            }
            TypesCommand::Pause {
                connection,
                task_type,
                reason,
            } => type_pauses::pause(&connection, &task_type, &reason).await,
            TypesCommand::Resume {
                connection,
                task_type,
            } => type_pauses::resume(&connection, &task_type).await,
        }
    }
}
