//! `hostel schedules`: creates, shows, lists, pauses, resumes, runs and deletes schedules.

use super::{
    connection::ConnectionArgs,
    error::CliError,
    json::priority,
    metadata::MetadataArgs,
    output::{print_field, print_json, print_table},
    payload::Payload,
    task_options::milliseconds,
};
use crate::{
    proto::{
        distributed::Priority as WirePriority,
        hostel::v1::{ListSchedulesRequest, Schedule, ScheduleSpec},
    },
    schedule::{Missed, Overlap},
    task::Priority,
};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug, Args)]
pub struct Schedules {
    #[command(subcommand)]
    command: SchedulesCommand,
}

#[derive(Debug, Subcommand)]
enum SchedulesCommand {
    Create(Box<Create>),
    /// List schedules with their next five times
    List {
        #[command(flatten)]
        connection: ConnectionArgs,
        #[arg(long)]
        json: bool,
    },
    /// Show one schedule
    Get {
        #[command(flatten)]
        connection: ConnectionArgs,
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Pause a schedule until it is resumed; times that pass meanwhile are not made up for
    Pause {
        #[command(flatten)]
        connection: ConnectionArgs,
        name: String,
    },
    /// End the pause of a schedule
    Resume {
        #[command(flatten)]
        connection: ConnectionArgs,
        name: String,
    },
    /// Submit a task of a schedule now, also while it is paused, and print its id
    Run {
        #[command(flatten)]
        connection: ConnectionArgs,
        name: String,
    },
    /// Delete a schedule; tasks that were submitted stay
    Delete {
        #[command(flatten)]
        connection: ConnectionArgs,
        name: String,
        /// Also one that cannot be read, or one of the configuration of a node, which makes it again at its
        /// next start
        #[arg(long)]
        force: bool,
    },
}

/// Create a schedule: a task that is submitted again and again
///
/// The task for each time has the id schedule:NAME:TIME. Prints what the schedule is and when it fires.
#[derive(Debug, Args)]
struct Create {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// The name of the schedule
    name: String,
    /// The type of its tasks, as declared by a plugin
    task_type: String,
    #[command(flatten)]
    payload: Payload,
    /// When: "minute hour day month weekday", with a second before the minute if there are six fields;
    /// or @hourly, @daily, @weekly, @monthly or @yearly
    #[arg(
        long,
        value_name = "PATTERN",
        default_value = "",
        hide_default_value = true
    )]
    cron: String,
    /// The time zone of the pattern, such as Europe/Berlin [default: UTC]
    #[arg(
        long,
        value_name = "ZONE",
        default_value = "",
        hide_default_value = true,
        requires = "cron"
    )]
    time_zone: String,
    /// Instead of a pattern: how long from one task to the next, such as 15m
    #[arg(long, value_name = "TIME", value_parser = milliseconds, conflicts_with = "cron")]
    every: Option<u64>,
    #[command(flatten)]
    metadata: MetadataArgs,
    /// The group of its tasks
    #[arg(
        long,
        value_name = "GROUP",
        default_value = "",
        hide_default_value = true
    )]
    group: String,
    /// The priority of its tasks: high, normal or low
    #[arg(long, value_name = "PRIORITY", default_value_t)]
    priority: Priority,
    /// Run its tasks on this node only
    #[arg(
        long,
        value_name = "NODE",
        default_value = "",
        hide_default_value = true
    )]
    node: String,
    /// Run its tasks on nodes with this label only
    #[arg(
        long,
        value_name = "LABEL",
        default_value = "",
        hide_default_value = true,
        conflicts_with = "node"
    )]
    label: String,
    /// While the task before is open: skip submits none, queue one when that task has ended, allow one
    /// at once
    #[arg(long, value_name = "POLICY", default_value_t)]
    overlap: Overlap,
    /// For times that are more than a minute past because no node ran: skip submits none, once one task
    /// for the latest, all one for each of the latest 1000
    #[arg(long, value_name = "POLICY", default_value_t)]
    missed: Missed,
    /// Submit each task later by up to this
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    jitter: Option<u64>,
    /// Create it paused
    #[arg(long)]
    paused: bool,
    /// Take the place of a schedule of this name
    #[arg(long)]
    replace: bool,
    #[arg(long)]
    json: bool,
}

impl Schedules {
    pub async fn run(self) -> Result<(), CliError> {
        match self.command {
            SchedulesCommand::Create(create) => return create.run().await,
            SchedulesCommand::List { connection, json } => return list(&connection, json).await,
            SchedulesCommand::Get {
                connection,
                name,
                json,
            } => {
                let schedule = connection.connect().await?.get_schedule(&name).await?;
                if json {
                    print_json(&as_json(&schedule));
                } else {
                    show(&schedule);
                }
            }
            SchedulesCommand::Pause { connection, name } => {
                connection.connect().await?.pause_schedule(&name).await?;
                print_line!("{name} is paused");
            }
            SchedulesCommand::Resume { connection, name } => {
                let schedule = connection.connect().await?.resume_schedule(&name).await?;
                print_line!("{name} fires next at {}", next(&schedule));
            }
            SchedulesCommand::Run { connection, name } => {
                let run = connection.connect().await?.run_schedule(&name).await?;
                print_line!("{}", run.task_id);
            }
            SchedulesCommand::Delete {
                connection,
                name,
                force,
            } => {
                let mut client = connection.connect().await?;
                client.delete_schedule(&name, force).await?;
                print_line!("deleted");
            }
        }
        Ok(())
    }
}

impl Create {
    async fn run(self) -> Result<(), CliError> {
        if self.cron.is_empty() && self.every.is_none() {
            return Err(CliError::usage("a schedule needs --cron or --every"));
        }
        let metadata = self.metadata.get()?;
        let spec = ScheduleSpec {
            name: self.name,
            cron: self.cron,
            time_zone: self.time_zone,
            every_ms: self.every.unwrap_or_default(),
            task_type: self.task_type,
            payload: self.payload.read()?.into(),
            metadata,
            group: self.group,
            priority: WirePriority::from(self.priority).into(),
            node: self.node,
            label: self.label,
            overlap: self.overlap.to_string(),
            missed: self.missed.to_string(),
            jitter_ms: self.jitter.unwrap_or_default(),
            paused: self.paused,
        };
        let mut client = self.connection.connect().await?;
        let created = client.create_schedule(spec, self.replace).await?;
        let schedule = created.schedule.unwrap_or_default();
        if self.json {
            let mut value = as_json(&schedule);
            value["outcome"] = created.outcome.into();
            print_json(&value);
        } else {
            print_field("outcome", &created.outcome);
            show(&schedule);
        }
        Ok(())
    }
}

async fn list(connection: &ConnectionArgs, json: bool) -> Result<(), CliError> {
    let mut client = connection.connect().await?;
    let (mut schedules, mut request) = (Vec::new(), ListSchedulesRequest::default());
    loop {
        let page = client.list_schedules(request.clone()).await?;
        schedules.extend(page.schedules);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    if json {
        print_json(&schedules.iter().map(as_json).collect());
        return Ok(());
    }
    let rows: Vec<_> = schedules
        .iter()
        .map(|schedule| {
            let spec = schedule.spec.clone().unwrap_or_default();
            let last = match schedule.last_fired_ms {
                0 => "-".into(),
                ms => time(ms),
            };
            vec![
                spec.name.clone(),
                when(&spec),
                spec.task_type,
                schedule.origin.clone(),
                last,
                next(schedule),
            ]
        })
        .collect();
    print_table(&["NAME", "WHEN", "TYPE", "ORIGIN", "LAST", "NEXT"], &rows);
    Ok(())
}

fn show(schedule: &Schedule) {
    let spec = schedule.spec.clone().unwrap_or_default();
    print_field("name", &spec.name);
    print_field("when", &when(&spec));
    print_field("task_type", &spec.task_type);
    print_field("payload", &format!("{} bytes", spec.payload.len()));
    let mut metadata: Vec<_> = spec.metadata.iter().collect();
    metadata.sort();
    for (key, value) in metadata {
        print_field("metadata", &format!("{key}={value}"));
    }
    for (name, value) in [
        ("group", &spec.group),
        ("node", &spec.node),
        ("label", &spec.label),
    ] {
        if !value.is_empty() {
            print_field(name, value);
        }
    }
    print_field("priority", &priority(spec.priority));
    print_field("overlap", &spec.overlap);
    print_field("missed", &spec.missed);
    if spec.jitter_ms > 0 {
        print_field("jitter", &length(spec.jitter_ms));
    }
    print_field("origin", &schedule.origin);
    if !schedule.nodes.is_empty() {
        print_field("nodes", &schedule.nodes.join(", "));
    }
    print_field("fired", &schedule.fired.to_string());
    print_field("skipped", &schedule.skipped.to_string());
    if !schedule.last_task_id.is_empty() {
        print_field("last_task_id", &schedule.last_task_id);
    }
    if schedule.waiting_ms > 0 {
        print_field("waiting", &time(schedule.waiting_ms));
    }
    print_field("next", &next(schedule));
}

/// The pattern with its zone, or the interval.
fn when(spec: &ScheduleSpec) -> String {
    match spec.every_ms {
        0 => format!("{} ({})", spec.cron, spec.time_zone),
        ms => format!("every {}", length(ms)),
    }
}

fn length(ms: u64) -> String {
    format!("{:?}", Duration::from_millis(ms))
}

/// The next times.
fn next(schedule: &Schedule) -> String {
    if schedule.paused {
        return "paused".into();
    }
    let times: Vec<_> = schedule.next_ms.iter().map(|&ms| time(ms)).collect();
    times.join(" ")
}

fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok();
    let time = time.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| ms.to_string(), |time| time.to_string())
}

fn as_json(schedule: &Schedule) -> Value {
    let spec = schedule.spec.clone().unwrap_or_default();
    json!({
        "name": spec.name,
        "cron": spec.cron,
        "time_zone": spec.time_zone,
        "every_ms": spec.every_ms,
        "task_type": spec.task_type,
        "payload_bytes": spec.payload.len(),
        "payload": std::str::from_utf8(&spec.payload).map_or(Value::Null, Value::from),
        "metadata": spec.metadata,
        "group": spec.group,
        "priority": priority(spec.priority),
        "node": spec.node,
        "label": spec.label,
        "overlap": spec.overlap,
        "missed": spec.missed,
        "jitter_ms": spec.jitter_ms,
        "origin": schedule.origin,
        "nodes": schedule.nodes,
        "paused": schedule.paused,
        "next_ms": schedule.next_ms,
        "next": schedule.next_ms.iter().map(|&ms| time(ms)).collect::<Vec<_>>(),
        "last_fired_ms": schedule.last_fired_ms,
        "last_task_id": schedule.last_task_id,
        "waiting_ms": schedule.waiting_ms,
        "fired": schedule.fired,
        "skipped": schedule.skipped,
    })
}
