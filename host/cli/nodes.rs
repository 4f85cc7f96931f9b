//! `hostel nodes`: lists the nodes of the cluster as one of them sees it, shows the health of a node,
//! and drains nodes.

use super::{
    connection::ConnectionArgs,
    error::CliError,
    output::{ago, print_json, print_note, print_table},
};
use crate::proto::hostel::v1::{
    Fault, GetHealthResponse, ListNodesResponse, Node, NodePlugin, PartHealth,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Args)]
pub struct Nodes {
    #[command(subcommand)]
    command: NodesCommand,
}

#[derive(Debug, Subcommand)]
enum NodesCommand {
    /// List the live nodes of the cluster and what each of them runs
    ///
    /// If nodes serve different versions of a plugin, a line below the table lists them. If the list is
    /// stale because etcd cannot be reached, a line on stderr says since when.
    List {
        #[command(flatten)]
        connection: ConnectionArgs,
        #[arg(long)]
        json: bool,
    },
    /// Show the health of a node: its parts and their faults
    ///
    /// The exit code is 1 if the node cannot do its work.
    Health {
        #[command(flatten)]
        connection: ConnectionArgs,
        #[arg(long)]
        json: bool,
    },
    /// Make a node lease no further tasks
    ///
    /// It finishes the tasks that run; others wait for another node that handles their type, or for
    /// `undrain`. Its components keep running, and it still answers clients and accepts submissions.
    /// Any node of the cluster can be called. With etcd, a drained node stays drained after a restart;
    /// a single node does not.
    Drain {
        #[command(flatten)]
        connection: ConnectionArgs,
        /// The id of the node
        node: String,
    },
    /// Make a drained node lease tasks again
    Undrain {
        #[command(flatten)]
        connection: ConnectionArgs,
        /// The id of the node, which need not be live
        node: String,
    },
}

impl Nodes {
    pub async fn run(self) -> Result<(), CliError> {
        match self.command {
            NodesCommand::List { connection, json } => {
                list(&connection.connect().await?.list_nodes().await?, json);
            }
            NodesCommand::Health { connection, json } => {
                return health(&connection.connect().await?.get_health().await?, json);
            }
            NodesCommand::Drain { connection, node } => {
                connection.connect().await?.drain_node(&node).await?;
                print_line!(
                    "{node} is drained: it finishes its running tasks and leases no new ones"
                );
            }
            NodesCommand::Undrain { connection, node } => {
                connection.connect().await?.undrain_node(&node).await?;
                print_line!("{node} is not drained: it leases tasks");
            }
        }
        Ok(())
    }
}

/// Prints the nodes in the view of one of them.
pub fn list(seen: &ListNodesResponse, json: bool) {
    if json {
        print_json(&json!({
            "nodes": seen.nodes.iter().map(as_json).collect::<Vec<_>>(),
            "drained_absent": seen.drained_absent,
            "stale_since_ms": seen.stale.then_some(seen.stale_since_ms),
        }));
    } else {
        let rows: Vec<_> = seen.nodes.iter().map(row).collect();
        let heads = [
            "NODE",
            "STATE",
            "ADDRESS",
            "VERSION",
            "CAPACITY",
            "LABELS",
            "TASK TYPES",
            "PLUGINS",
            "COMPONENTS",
        ];
        print_table(&heads, &rows);
        let different = version_differences(&seen.nodes);
        if !different.is_empty() {
            print_line!("");
            print_line!("Different versions:");
            different.iter().for_each(|line| print_line!("{line}"));
        }
        if !seen.drained_absent.is_empty() {
            print_line!("");
            print_line!("Drained and not live: {}", seen.drained_absent.join(", "));
        }
    }
    if seen.stale {
        let since = ago(seen.stale_since_ms);
        print_note(format_args!(
            "hostel: this list is stale: the node has not reached etcd for {since}"
        ));
    }
}

/// Prints the health of a node: a line for each part, and one more for each further fault.
fn health(seen: &GetHealthResponse, json: bool) -> Result<(), CliError> {
    if json {
        print_json(&json!({
            "node": seen.node_id,
            "serving": seen.serving,
            "parts": seen.parts.iter().map(part_json).collect::<Vec<_>>(),
        }));
    } else {
        let rows: Vec<_> = seen.parts.iter().flat_map(part_rows).collect();
        print_table(&["PART", "STATE", "FAULT", "SINCE", "REASON"], &rows);
    }
    if seen.serving {
        Ok(())
    } else {
        let message = format!("{} cannot do its work", seen.node_id);
        Err(CliError::failed(message))
    }
}

fn part_rows(part: &PartHealth) -> Vec<Vec<String>> {
    let row = |state: &str, rest: [String; 3]| {
        let mut row = vec![part.name.clone(), state.to_owned()];
        row.extend(rest);
        row
    };
    if part.faults.is_empty() {
        return vec![row(&part.state, Default::default())];
    }
    let rows = part.faults.iter().map(|fault| {
        let rest = [
            fault.kind.clone(),
            ago(fault.since_ms),
            fault.reason.clone(),
        ];
        row(&fault.severity, rest)
    });
    rows.collect()
}

fn part_json(part: &PartHealth) -> Value {
    let fault = |fault: &Fault| {
        json!({
            "kind": fault.kind,
            "severity": fault.severity,
            "reason": fault.reason,
            "since_ms": fault.since_ms,
        })
    };
    json!({
        "name": part.name,
        "state": part.state,
        "vital": part.vital,
        "faults": part.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

fn state(node: &Node) -> &'static str {
    if node.drained { "drained" } else { "ready" }
}

fn row(node: &Node) -> Vec<String> {
    let plugins = node.plugins.iter();
    let plugins: Vec<_> = plugins
        .map(|p| format!("{}@{}", p.name, p.version))
        .collect();
    vec![
        node.id.clone(),
        state(node).to_owned(),
        node.address.clone(),
        node.version.clone(),
        node.capacity.to_string(),
        node.labels.join(","),
        node.task_types.join(","),
        plugins.join(","),
        node.components.join(","),
    ]
}

fn as_json(node: &Node) -> Value {
    let plugin = |plugin: &NodePlugin| {
        json!({
            "name": plugin.name,
            "version": plugin.version,
            "sha256": plugin.sha256,
        })
    };
    json!({
        "id": node.id,
        "state": state(node),
        "address": node.address,
        "version": node.version,
        "capacity": node.capacity,
        "labels": node.labels,
        "task_types": node.task_types,
        "plugins": node.plugins.iter().map(plugin).collect::<Vec<_>>(),
        "components": node.components,
    })
}

/// Returns a line for each plugin that nodes serve in different versions. Different files of the same
/// version are distinguished by their hashes.
fn version_differences(nodes: &[Node]) -> Vec<String> {
    // By plugin, then by version and hash.
    let mut served = BTreeMap::<&str, BTreeMap<(&str, &str), Vec<&str>>>::new();
    for node in nodes {
        for plugin in &node.plugins {
            let files = served.entry(&plugin.name).or_default();
            let ids = files.entry((&plugin.version, &plugin.sha256)).or_default();
            ids.push(&node.id);
        }
    }
    served.retain(|_, files| files.len() > 1);
    let mut lines = Vec::new();
    for (plugin, files) in served {
        let files_of = |version| files.keys().filter(|(other, _)| *other == version).count();
        let parts = files.iter().map(|(&(version, sha256), ids)| {
            let hash = if files_of(version) > 1 {
                format!(" ({})", sha256.get(..12).unwrap_or(sha256))
            } else {
                String::new()
            };
            format!("{version}{hash} on {}", ids.join(", "))
        });
        let parts: Vec<String> = parts.collect();
        lines.push(format!("  {plugin}: {}", parts.join("; ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_versions_are_listed() {
        let node = |id: &str, plugins: &[(&str, &str, &str)]| Node {
            id: id.into(),
            plugins: plugins
                .iter()
                .map(|&(name, version, sha256)| NodePlugin {
                    name: name.into(),
                    version: version.into(),
                    sha256: sha256.into(),
                })
                .collect(),
            ..Node::default()
        };
        let first = ("0123456789abcdef", "fedcba9876543210");
        let nodes = [
            node("a", &[("echo", "1.0.0", "x"), ("same", "1.0.0", "y")]),
            node("b", &[("echo", "1.1.0", "z"), ("same", "1.0.0", "y")]),
            node("c", &[("echo", "1.0.0", "x"), ("text", "1.0.0", first.0)]),
            node("d", &[("text", "1.0.0", first.1)]),
        ];
        assert_eq!(
            version_differences(&nodes),
            [
                "  echo: 1.0.0 on a, c; 1.1.0 on b",
                "  text: 1.0.0 (0123456789ab) on c; 1.0.0 (fedcba987654) on d",
            ]
        );
        assert!(version_differences(&nodes[..1]).is_empty());
    }
}
