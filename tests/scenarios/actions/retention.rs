//! How long ended tasks are kept.

use super::Backend;
use crate::{
    scenarios::options::{busy, named, start, status},
    support::{eventually, task},
};
use hostel::proto::distributed::Task;
use tonic::Code;

pub async fn ended_tasks_are_kept_by_type_and_state(on: Backend) {
    let mut node = start(on, "").await;
    node.terminate().await;
    node.set_in("queue", "keep_completed_ms = 1000");
    node.add_settings(
        "\n[plugin.busy.task.busy]\nkeep_completed_ms = 3600000\nkeep_failed_ms = 1000\n",
    );
    node.restart().await;
    let mut client = node.client();
    let completes = named("completes", task("sample", "x"));
    let fails = Task {
        max_attempts: 1,
        ..named("fails", task("trap", ""))
    };
    for (ends, state) in [
        (completes, "completed"),
        (fails, "failed"),
        (busy("longer", 1), "completed"),
    ] {
        let ended = client.submit_and_wait(ends).await.unwrap();
        assert_eq!(ended.status, state, "{ended:?}");
    }
    eventually("the completed task is purged", async || {
        let read = client.clone().get_task_status("completes").await;
        read.is_err_and(|status| status.code() == Code::NotFound)
            .then_some(())
    })
    .await;
    assert_eq!(status(&mut client, "fails").await.status, "failed");
    assert_eq!(status(&mut client, "longer").await.status, "completed");
}
