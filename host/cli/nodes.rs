//! `hostel nodes`: who is in the cluster, as the node that is asked sees it, and who of them shall
//! take no new task.

use super::{
    Server,
    exit::Failure,
    output::{ago, note, print_json, print_table},
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
    /// Where nodes serve different versions of one plugin, a line under the table says which. When the
    /// answer is older than it should be, because etcd is away, a line on stderr says since when.
    List {
        #[command(flatten)]
        server: Server,
        #[arg(long)]
        json: bool,
    },
    /// Show the health of the node that is asked: its parts and what is wrong with them
    ///
    /// Ends with 1 when the node cannot do its work.
    Health {
        #[command(flatten)]
        server: Server,
        #[arg(long)]
        json: bool,
    },
    /// Let a node take no new task
    ///
    /// It finishes the tasks that run; others wait, for another node that handles their type or for
    /// the undrain. Its components go on, and it still answers clients and takes submissions. Any
    /// node may be asked. With etcd a drained node is still drained after its restart; a node by
    /// itself is not.
    Drain {
        #[command(flatten)]
        server: Server,
        /// The id of the node
        node: String,
    },
    /// Let a drained node take tasks again, at once
    Undrain {
        #[command(flatten)]
        server: Server,
        /// The id of the node, which need not be there
        node: String,
    },
}

impl Nodes {
    pub async fn run(self) -> Result<(), Failure> {
        match self.command {
            NodesCommand::List { server, json } => {
                list(&server.connect().await?.list_nodes().await?, json);
            }
            NodesCommand::Health { server, json } => {
                return health(&server.connect().await?.get_health().await?, json);
            }
            NodesCommand::Drain { server, node } => {
                server.connect().await?.drain_node(&node).await?;
                say!("{node} is drained: it finishes what runs and takes no new task");
            }
            NodesCommand::Undrain { server, node } => {
                server.connect().await?.undrain_node(&node).await?;
                say!("{node} is not drained: it takes tasks");
            }
        }
        Ok(())
    }
}

/// The nodes that one of them sees.
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
        let different = differences(&seen.nodes);
        if !different.is_empty() {
            say!("");
            say!("Not the same everywhere:");
            different.iter().for_each(|line| say!("{line}"));
        }
        if !seen.drained_absent.is_empty() {
            say!("");
            say!("Drained and not there: {}", seen.drained_absent.join(", "));
        }
    }
    if seen.stale {
        let since = ago(seen.stale_since_ms);
        note(format_args!(
            "hostel: this is stale: the node has not reached etcd for {since}"
        ));
    }
}

/// The health of one node: a line for each part, and one more for each further fault.
fn health(seen: &GetHealthResponse, json: bool) -> Result<(), Failure> {
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
    match seen.serving {
        true => Ok(()),
        false => Err(Failure::found(format!(
            "{} cannot do its work",
            seen.node_id
        ))),
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
    match node.drained {
        true => "drained",
        false => "ready",
    }
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

/// A line for each plugin of which nodes serve different code: which versions, and where. Two files
/// of one version are told apart by their hashes.
fn differences(nodes: &[Node]) -> Vec<String> {
    // By plugin, then by version and hash.
    let mut served = BTreeMap::<&str, BTreeMap<(&str, &str), Vec<&str>>>::new();
    for node in nodes {
        for plugin in &node.plugins {
            let files = served.entry(&plugin.name).or_default();
            let there = files.entry((&plugin.version, &plugin.sha256)).or_default();
            there.push(&node.id);
        }
    }
    served.retain(|_, files| files.len() > 1);
    let mut lines = Vec::new();
    for (plugin, files) in served {
        let twins = |version| files.keys().filter(|(other, _)| *other == version).count();
        let parts = files.iter().map(|(&(version, sha256), there)| {
            let file = match twins(version) {
                1 => String::new(),
                _ => format!(" ({})", sha256.get(..12).unwrap_or(sha256)),
            };
            format!("{version}{file} on {}", there.join(", "))
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
    fn different_code_is_pointed_out() {
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
            differences(&nodes),
            [
                "  echo: 1.0.0 on a, c; 1.1.0 on b",
                "  text: 1.0.0 (0123456789ab) on c; 1.0.0 (fedcba987654) on d",
            ]
        );
        assert!(differences(&nodes[..1]).is_empty());
    }
}
