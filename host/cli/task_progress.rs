//! `--wait`: waits for the end of a task, and shows on stderr how far it has come: as a bar on a terminal, and
//! otherwise as a line for each change, less often.

use super::output::{TaskBar, print_note};
use crate::{
    client::DistributedClient,
    proto::distributed::{Task, TaskProgress, TaskResponse, TaskStatus},
};
use std::time::Duration;
use tonic::Status;

/// How often progress is read for a bar, and for lines.
const BAR_INTERVAL: Duration = Duration::from_secs(1);
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Submits a task and waits for its end. The `status` of the response is set, and has ended.
pub async fn submit(client: &mut DistributedClient, task: Task) -> Result<TaskResponse, Status> {
    let mut shown = Shown::new();
    let interval = shown.interval();
    let response = client.submit_and_follow(task, interval, |status| shown.update(status));
    let response = response.await;
    shown.finish();
    response
}

/// Waits for the end of a task.
pub async fn wait(client: &mut DistributedClient, id: &str) -> Result<TaskStatus, Status> {
    let mut shown = Shown::new();
    shown.update(&client.get_task_status(id).await?);
    let interval = shown.interval();
    let status = client.follow_task(id, interval, |status| shown.update(status));
    let status = status.await;
    shown.finish();
    status
}

/// What is shown of one task.
struct Shown {
    /// `None` if stderr is no terminal.
    bar: Option<TaskBar>,
    latest: Option<TaskProgress>,
}

impl Shown {
    fn new() -> Self {
        Self {
            bar: TaskBar::on_terminal(),
            latest: None,
        }
    }

    fn interval(&self) -> Duration {
        match self.bar {
            Some(_) => BAR_INTERVAL,
            None => LINE_INTERVAL,
        }
    }

    fn update(&mut self, status: &TaskStatus) {
        if self.latest == status.progress {
            return;
        }
        self.latest.clone_from(&status.progress);
        let Some(progress) = &self.latest else {
            // Another attempt has begun, and has not reported anything.
            return;
        };
        let text = text(progress);
        match &self.bar {
            Some(bar) => bar.show(progress.done, progress.total, &text),
            None => print_note(format_args!("hostel: task {}: {text}", status.task_id)),
        }
    }

    fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish();
        }
    }
}

/// Progress in words, such as `30 of 100: rows`. The note has any characters.
pub fn text(progress: &TaskProgress) -> String {
    let TaskProgress { done, total, note } = progress;
    let numbers = match total {
        0 => done.to_string(),
        total => format!("{done} of {total}"),
    };
    if note.is_empty() {
        numbers
    } else {
        format!("{numbers}: {note}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_or_a_note_that_is_missing_is_left_out() {
        let text = |done, total, note: &str| {
            let note = note.to_owned();
            text(&TaskProgress { done, total, note })
        };
        assert_eq!(text(30, 100, "rows"), "30 of 100: rows");
        assert_eq!(text(30, 100, ""), "30 of 100");
        assert_eq!(text(30, 0, "rows"), "30: rows");
        assert_eq!(text(0, 0, ""), "0");
        assert_eq!(text(101, 100, ""), "101 of 100");
    }
}
