//! What the commands of `hostel tasks` that change tasks have in common: which tasks, and what they print of how
//! far they have come.

use super::{
    connection::ConnectionArgs,
    error::CliError,
    output::{Progress, print_json},
};
use crate::{
    proto::{
        distributed::Priority as WirePriority,
        hostel::v1::{
            ActOnTasksProgress, ActOnTasksRequest, CancelTasks, PurgeTasks, RequeueTasks,
            RunTasksNow, SetTaskPriority, TaskFilter, TaskLeftAlone,
            act_on_tasks_request::Action as WireAction,
        },
    },
    task::{Action, Priority, StateKind},
};
use clap::Args;
use serde_json::json;

/// How many of the tasks that are as they were an error names.
const NAMED: usize = 20;

/// The tasks that a command is for.
#[derive(Debug, Args)]
pub struct Selection {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// The ids of the tasks
    #[arg(
        value_name = "ID",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    ids: Vec<String>,
    /// Instead of ids: all tasks that the command is for and the filter matches
    #[arg(long)]
    all: bool,
    /// Only tasks in this state, which has to be one that the command is for
    #[arg(
        long,
        alias = "status",
        value_name = "STATE",
        requires = "all",
        conflicts_with = "ids"
    )]
    state: Option<StateKind>,
    /// Only tasks of this type
    #[arg(
        long = "type",
        value_name = "TYPE",
        requires = "all",
        conflicts_with = "ids"
    )]
    task_type: Option<String>,
    /// Only tasks of this group
    #[arg(long, value_name = "GROUP", requires = "all", conflicts_with = "ids")]
    group: Option<String>,
    /// Only tasks with this tag
    #[arg(long, value_name = "TAG", requires = "all", conflicts_with = "ids")]
    tag: Option<String>,
    /// At most so many tasks
    #[arg(long, value_name = "NUMBER", requires = "all", conflicts_with = "ids")]
    limit: Option<u64>,
    /// Count the tasks, and change none
    #[arg(long)]
    dry_run: bool,
    #[arg(long)]
    json: bool,
}

impl Selection {
    /// Does it to the tasks, and prints how many there were.
    pub async fn act(self, action: &Action) -> Result<(), CliError> {
        if self.limit == Some(0) {
            return Err(CliError::usage("--limit has to be at least 1"));
        }
        let (dry_run, json) = (self.dry_run, self.json);
        let (connection, request) = self.request(action);
        let is_filter = request.filter.is_some();
        let mut client = connection.connect().await?;
        let mut steps = client.act_on_tasks(request).await?;
        let bar = Progress::new(None);
        let mut total = Total::default();
        let failure = loop {
            match steps.message().await {
                Ok(Some(step)) => {
                    total.add(step);
                    bar.show(|| total.text(action, dry_run));
                }
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        bar.finish();
        let text = total.text(action, dry_run);
        if let Some(status) = failure {
            return Err(CliError::from(status).with(&format!("; so far {text}")));
        }
        let is_single = !is_filter && total.last.matched == 1;
        if json {
            print_json(&total.json());
        } else if is_single && total.last.requested == 1 {
            print_line!("requested: the handler is being interrupted");
        } else if is_single && total.last.done == 1 && !dry_run {
            print_line!("{}", past(action));
        } else if is_filter || total.changed() > 0 {
            print_line!("{text}");
        }
        if is_filter || total.left_alone.is_empty() {
            return Ok(());
        }
        Err(CliError::refused(total.refusal(action)))
    }

    fn request(self, action: &Action) -> (ConnectionArgs, ActOnTasksRequest) {
        let filter = self.all.then(|| TaskFilter {
            status: self
                .state
                .map(|state| state.to_string())
                .unwrap_or_default(),
            task_type: self.task_type.unwrap_or_default(),
            group: self.group.unwrap_or_default(),
            tag: self.tag.unwrap_or_default(),
        });
        let request = ActOnTasksRequest {
            task_ids: self.ids,
            filter,
            action: Some(wire(action)),
            limit: self.limit.unwrap_or(0),
            dry_run: self.dry_run,
        };
        (self.connection, request)
    }
}

/// What the steps have done together.
#[derive(Default)]
struct Total {
    /// The numbers after the last step.
    last: ActOnTasksProgress,
    /// The first of the tasks that are as they were.
    left_alone: Vec<TaskLeftAlone>,
    /// How many there are.
    left_alone_count: usize,
}

impl Total {
    fn add(&mut self, mut step: ActOnTasksProgress) {
        let left_alone = std::mem::take(&mut step.left_alone);
        self.left_alone_count += left_alone.len();
        let room = NAMED.saturating_sub(self.left_alone.len());
        self.left_alone.extend(left_alone.into_iter().take(room));
        self.last = step;
    }

    fn changed(&self) -> u64 {
        self.last.done + self.last.requested
    }

    fn text(&self, action: &Action, dry_run: bool) -> String {
        let would = if dry_run { "would be " } else { "" };
        let mut text = format!("{} {would}{}", self.last.done, past(action));
        if self.last.requested > 0 {
            let requested = self.last.requested;
            text += &format!(", {requested} requested: their handlers are being interrupted");
        }
        if self.left_alone_count > 0 {
            text += &format!(", {} left as they were", self.left_alone_count);
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let left_alone = self.left_alone.iter();
        let left_alone: Vec<_> = left_alone
            .map(|task| json!({ "task_id": task.task_id, "status": task.status }))
            .collect();
        json!({
            "matched": self.last.matched,
            "done": self.last.done,
            "requested": self.last.requested,
            "left_alone_count": self.left_alone_count,
            "left_alone": left_alone,
        })
    }

    /// Why some tasks are as they were, a line for each.
    fn refusal(&self, action: &Action) -> String {
        let states: Vec<_> = action.states().iter().map(|state| state.as_str()).collect();
        let states = match states.split_last() {
            Some((last, others)) if !others.is_empty() => {
                format!("{} and {last}", others.join(", "))
            }
            _ => states.join(", "),
        };
        let lines = self.left_alone.iter().map(|task| {
            let id = &task.task_id;
            match task.status.as_str() {
                "" => format!("no task has the id {id}"),
                status => {
                    format!(
                        "task {id} is {status}; only {states} tasks can be {}",
                        past(action)
                    )
                }
            }
        });
        let mut lines: Vec<_> = lines.collect();
        let more = self.left_alone_count - self.left_alone.len();
        if more > 0 {
            lines.push(format!("and {more} more are as they were"));
        }
        lines.join("\n")
    }
}

/// What has become of a task that the action was done to.
fn past(action: &Action) -> &'static str {
    match action {
        Action::Cancel(_) => "cancelled",
        Action::Requeue => "requeued",
        Action::Purge => "purged",
        Action::SetPriority(Priority::High) => "given high priority",
        Action::SetPriority(Priority::Normal) => "given normal priority",
        Action::SetPriority(Priority::Low) => "given low priority",
        Action::RunNow => "made due now",
    }
}

fn wire(action: &Action) -> WireAction {
    match action {
        Action::Cancel(reason) => WireAction::Cancel(CancelTasks {
            reason: reason.as_deref().unwrap_or_default().into(),
        }),
        Action::Requeue => WireAction::Requeue(RequeueTasks {}),
        Action::Purge => WireAction::Purge(PurgeTasks {}),
        Action::SetPriority(priority) => WireAction::SetPriority(SetTaskPriority {
            priority: WirePriority::from(*priority).into(),
        }),
        Action::RunNow => WireAction::RunNow(RunTasksNow {}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_done_is_named_and_bounded() {
        let mut total = Total::default();
        let left_alone = |number: usize| TaskLeftAlone {
            task_id: format!("t{number}"),
            status: if number == 0 { "" } else { "running" }.into(),
        };
        total.add(ActOnTasksProgress {
            matched: 40,
            done: 10,
            requested: 0,
            left_alone: (0..30).map(left_alone).collect(),
        });
        let text = total.text(&Action::Purge, false);
        assert_eq!(text, "10 purged, 30 left as they were");
        let refusal = total.refusal(&Action::Purge);
        let lines: Vec<_> = refusal.lines().collect();
        assert_eq!(lines.len(), NAMED + 1);
        assert_eq!(lines[0], "no task has the id t0");
        let other = "task t1 is running; only completed, failed and cancelled tasks can be purged";
        assert_eq!(lines[1], other);
        assert_eq!(lines[NAMED], "and 10 more are as they were");
    }
}
