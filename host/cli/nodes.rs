//! `hostel nodes`: who is in the cluster, as the node that is asked sees it.

use super::{
    Server,
    exit::Failure,
    output::{print_json, print_table},
};
use crate::proto::distributed::Node;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub struct Nodes {
    #[command(subcommand)]
    command: NodesCommand,
}

#[derive(Debug, Subcommand)]
enum NodesCommand {
    /// List the live nodes of the cluster and what each of them runs
    List {
        #[command(flatten)]
        server: Server,
        #[arg(long)]
        json: bool,
    },
}

/// The metadata under which a node says what it is; lists have commas between their items.
const VERSION: &str = "version";
const LISTS: [&str; 3] = ["task_types", "plugins", "components"];

impl Nodes {
    pub async fn run(self) -> Result<(), Failure> {
        let NodesCommand::List { server, json } = self.command;
        let mut client = server.connect().await?;
        let mut nodes = client.discover(crate::discovery::NODE_SERVICE).await?;
        nodes.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        if json {
            print_json(&nodes.iter().map(as_json).collect());
            return Ok(());
        }
        let rows: Vec<_> = nodes.iter().map(row).collect();
        let heads = [
            "NODE",
            "ADDRESS",
            "VERSION",
            "TASK TYPES",
            "PLUGINS",
            "COMPONENTS",
        ];
        print_table(&heads, &rows);
        Ok(())
    }
}

fn said<'a>(node: &'a Node, key: &str) -> &'a str {
    node.metadata.get(key).map_or("", String::as_str)
}

fn row(node: &Node) -> Vec<String> {
    let mut row = vec![
        node.node_id.clone(),
        node.address.clone(),
        said(node, VERSION).to_owned(),
    ];
    row.extend(LISTS.map(|key| said(node, key).to_owned()));
    row
}

fn as_json(node: &Node) -> Value {
    let list = |key| -> Vec<&str> {
        let items = said(node, key).split(',');
        items.filter(|item| !item.is_empty()).collect()
    };
    json!({
        "id": node.node_id,
        "address": node.address,
        "version": said(node, VERSION),
        LISTS[0]: list(LISTS[0]),
        LISTS[1]: list(LISTS[1]),
        LISTS[2]: list(LISTS[2]),
    })
}
