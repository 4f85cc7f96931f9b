//! `hostel types`: what operators do to a task type as a whole.

use super::{connection::ConnectionArgs, error::CliError, type_pauses};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct Types {
    #[command(subcommand)]
    command: TypesCommand,
}

#[derive(Debug, Subcommand)]
enum TypesCommand {
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
