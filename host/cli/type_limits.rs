//! The list of task types with their limits, and changes of the limits.

use super::{
    connection::ConnectionArgs,
    error::CliError,
    output::{print_field, print_json, print_note, print_table},
};
use crate::proto::hostel::v1::{
    GroupLimits, Limit as LimitInForce, Limits, ListTypesRequest, SetLimitsRequest, TypeStatus,
};
use clap::Args;
use serde_json::{Map, Value, json};

/// Change the limits of a task type or of its groups, on all nodes
///
/// They are kept with the queue, win over the configuration and over what the plugin declares, and are in
/// force on all nodes within about a second. `none` lifts a limit that those give. Prints the limits that are
/// in force then.
#[derive(Debug, Args)]
pub struct Limit {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// The type of the tasks, as declared by a plugin
    task_type: String,
    /// Change the limits of this group of the type
    #[arg(
        long,
        value_name = "GROUP",
        default_value = "",
        hide_default_value = true
    )]
    group: String,
    /// Change the limits of each group of the type
    #[arg(long, conflicts_with = "group")]
    each_group: bool,
    /// How many tasks run on one node at the same time
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "",
        hide_default_value = true
    )]
    max_concurrency: String,
    /// How many tasks run on all nodes together at the same time
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "",
        hide_default_value = true
    )]
    max_cluster_concurrency: String,
    /// How often tasks begin on all nodes together, such as 100/s, 5000/h or "60/m burst 10"
    #[arg(
        long,
        value_name = "RATE",
        default_value = "",
        hide_default_value = true
    )]
    max_rate: String,
    /// How many tasks may be pending; while there are as many, submissions are refused
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "",
        hide_default_value = true
    )]
    max_pending: String,
    /// Forget the limits that were set at run time before
    #[arg(long)]
    reset: bool,
    #[arg(long)]
    json: bool,
}

impl Limit {
    pub async fn run(self) -> Result<(), CliError> {
        let request = SetLimitsRequest {
            task_type: self.task_type,
            group: self.group,
            each_group: self.each_group,
            max_concurrency: self.max_concurrency,
            max_cluster_concurrency: self.max_cluster_concurrency,
            max_rate: self.max_rate,
            max_pending: self.max_pending,
            reset: self.reset,
        };
        let mut client = self.connection.connect().await?;
        let status = client.set_limits(request).await?;
        if status.nodes.is_empty() {
            print_note(format_args!("no live node runs {} now", status.name));
        }
        if self.json {
            print_json(&as_json(&status));
        } else {
            show(&status);
        }
        Ok(())
    }
}

/// Lists all types, or one with its groups.
pub async fn list(
    connection: &ConnectionArgs,
    task_type: Option<String>,
    json: bool,
) -> Result<(), CliError> {
    let mut client = connection.connect().await?;
    let is_one = task_type.is_some();
    let mut request = ListTypesRequest {
        task_type: task_type.unwrap_or_default(),
        ..ListTypesRequest::default()
    };
    let mut types: Vec<TypeStatus> = Vec::new();
    loop {
        let page = client.list_types(request.clone()).await?;
        for status in page.types {
            match types.last_mut() {
                // Another page of its groups.
                Some(last) if last.name == status.name => last.groups.extend(status.groups),
                _ => types.push(status),
            }
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    if json {
        print_json(&types.iter().map(as_json).collect());
    } else if is_one {
        types.iter().for_each(show);
    } else {
        let rows: Vec<_> = types.iter().map(row).collect();
        let heads = ["TYPE", "PENDING", "RUNNING", "FAILED", "NODES", "LIMITS"];
        print_table(&heads, &rows);
    }
    Ok(())
}

fn row(status: &TypeStatus) -> Vec<String> {
    let mut limits = texts("", status.limits.as_ref());
    limits.extend(texts("group.", status.each_group.as_ref()));
    match status.limited_groups {
        0 => {}
        1 => limits.push("1 group of its own".into()),
        count => limits.push(format!("{count} groups of their own")),
    }
    let limits = if limits.is_empty() {
        "-".into()
    } else {
        limits.join(", ")
    };
    vec![
        status.name.clone(),
        status.pending.to_string(),
        status.running.to_string(),
        status.failed.to_string(),
        status.nodes.len().to_string(),
        limits,
    ]
}

fn show(status: &TypeStatus) {
    print_field("type", &status.name);
    let nodes = if status.nodes.is_empty() {
        "none".into()
    } else {
        status.nodes.join(", ")
    };
    print_field("nodes", &nodes);
    for (state, count) in [
        ("pending", status.pending),
        ("running", status.running),
        ("completed", status.completed),
        ("failed", status.failed),
        ("cancelled", status.cancelled),
    ] {
        print_field(state, &count.to_string());
    }
    for text in texts("", status.limits.as_ref()) {
        print_field("limit", &text);
    }
    for text in texts("", status.each_group.as_ref()) {
        print_field("each_group", &text);
    }
    for GroupLimits { group, limits } in &status.groups {
        for text in texts("", limits.as_ref()) {
            print_field("group", &format!("{group}: {text}"));
        }
    }
}

/// The limits that are given, by their names.
fn given(limits: Option<&Limits>) -> impl Iterator<Item = (&'static str, &LimitInForce)> {
    let all = limits.map(|limits| {
        [
            ("max_concurrency", limits.max_concurrency.as_ref()),
            (
                "max_cluster_concurrency",
                limits.max_cluster_concurrency.as_ref(),
            ),
            ("max_rate", limits.max_rate.as_ref()),
            ("max_pending", limits.max_pending.as_ref()),
        ]
    });
    let all = all.into_iter().flatten();
    all.filter_map(|(name, limit)| Some((name, limit?)))
}

/// The limits in words, each with its origin.
fn texts(prefix: &str, limits: Option<&Limits>) -> Vec<String> {
    given(limits)
        .map(|(name, LimitInForce { value, origin })| format!("{prefix}{name} {value} ({origin})"))
        .collect()
}

fn limits_json(limits: Option<&Limits>) -> Value {
    let limits = given(limits).map(|(name, limit)| {
        let LimitInForce { value, origin } = limit;
        (name.to_owned(), json!({ "value": value, "origin": origin }))
    });
    Value::Object(limits.collect::<Map<_, _>>())
}

fn as_json(status: &TypeStatus) -> Value {
    let groups = status.groups.iter().map(|GroupLimits { group, limits }| {
        json!({ "group": group, "limits": limits_json(limits.as_ref()) })
    });
    json!({
        "type": status.name,
        "nodes": status.nodes,
        "pending": status.pending,
        "running": status.running,
        "completed": status.completed,
        "failed": status.failed,
        "cancelled": status.cancelled,
        "limits": limits_json(status.limits.as_ref()),
        "each_group": limits_json(status.each_group.as_ref()),
        "limited_groups": status.limited_groups,
        "groups": groups.collect::<Value>(),
    })
}
