//! Which tasks a command is about: the filters of `hostel tasks list`.

use super::task_options::moment;
use crate::{proto::hostel::v1::ListTasksRequest, task::StateKind};
use clap::Args;

/// The filters. All of them together select a task.
#[derive(Debug, Args)]
#[group(skip)]
pub struct TaskFilterArgs {
    /// Only tasks in this state: pending, running, completed, failed or cancelled
    #[arg(long, value_name = "STATE")]
    state: Option<StateKind>,
    /// Only tasks of this type
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    task_type: String,
    /// Only tasks of this group
    #[arg(
        long,
        value_name = "GROUP",
        default_value = "",
        hide_default_value = true
    )]
    group: String,
    /// Only tasks with this tag
    #[arg(
        long,
        value_name = "TAG",
        default_value = "",
        hide_default_value = true
    )]
    tag: String,
    /// Only tasks that this node runs, or else whose latest attempt it ran
    #[arg(
        long,
        value_name = "NODE",
        default_value = "",
        hide_default_value = true
    )]
    node: String,
    /// Only tasks whose latest attempt this plugin ran
    #[arg(
        long,
        value_name = "PLUGIN",
        default_value = "",
        hide_default_value = true
    )]
    plugin: String,
    /// Only tasks whose latest attempt this version of a plugin ran
    #[arg(
        long,
        value_name = "VERSION",
        default_value = "",
        hide_default_value = true
    )]
    plugin_version: String,
    /// Only tasks that were submitted at this time or later: RFC 3339, milliseconds since the Unix epoch, or
    /// how long ago, such as 1h
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    since: Option<u64>,
    /// Only tasks that were submitted before this time
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    until: Option<u64>,
    /// Only tasks that ended at this time or later
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    finished_since: Option<u64>,
    /// Only tasks that ended before this time
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    finished_until: Option<u64>,
}

impl TaskFilterArgs {
    /// Returns a request for the first page.
    pub fn into_request(self) -> ListTasksRequest {
        ListTasksRequest {
            status: self
                .state
                .map(|state| state.to_string())
                .unwrap_or_default(),
            task_type: self.task_type,
            group: self.group,
            tag: self.tag,
            node: self.node,
            plugin: self.plugin,
            plugin_version: self.plugin_version,
            submitted_after_ms: self.since.unwrap_or_default(),
            submitted_before_ms: self.until.unwrap_or_default(),
            finished_after_ms: self.finished_since.unwrap_or_default(),
            finished_before_ms: self.finished_until.unwrap_or_default(),
            ..ListTasksRequest::default()
        }
    }
}
