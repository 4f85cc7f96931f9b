//! `hostel components`: lists the components of a node and their states.

use super::{
    connection::ConnectionArgs,
    error::CliError,
    output::{ago, print_field, print_json, print_table},
};
use crate::proto::hostel::v1::Component;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub struct Components {
    #[command(subcommand)]
    command: ComponentsCommand,
}

#[derive(Debug, Subcommand)]
enum ComponentsCommand {
    /// List the components of a node, and the errors of those that are down
    List {
        #[command(flatten)]
        connection: ConnectionArgs,
        #[arg(long)]
        json: bool,
    },
}

impl Components {
    pub async fn run(self) -> Result<(), CliError> {
        let ComponentsCommand::List { connection, json } = self.command;
        let components = connection.connect().await?.list_components().await?;
        if json {
            print_json(&components.iter().map(as_json).collect());
            return Ok(());
        }
        let rows: Vec<_> = components.iter().map(row).collect();
        print_table(
            &[
                "COMPONENT",
                "VERSION",
                "STATE",
                "SINCE",
                "HANDLED",
                "FAILED",
                "REFUSED",
                "WAITING",
                "STARTS",
                "TOPICS",
            ],
            &rows,
        );
        for component in components.iter().filter(|one| !one.error.is_empty()) {
            print_line!("");
            print_field(&format!("{}:", component.id), &component.error);
        }
        Ok(())
    }
}

fn row(component: &Component) -> Vec<String> {
    vec![
        component.id.clone(),
        component.version.clone(),
        component.state.clone(),
        ago(component.since_ms),
        component.handled.to_string(),
        component.failed.to_string(),
        component.refused.to_string(),
        component.waiting.to_string(),
        component.starts.to_string(),
        component.topics.join(","),
    ]
}

fn as_json(component: &Component) -> Value {
    json!({
        "id": component.id,
        "version": component.version,
        "sha256": component.sha256,
        "state": component.state,
        "since_ms": component.since_ms,
        "error": component.error,
        "topics": component.topics,
        "handled": component.handled,
        "failed": component.failed,
        "refused": component.refused,
        "waiting": component.waiting,
        "starts": component.starts,
    })
}
