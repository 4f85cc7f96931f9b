//! Submits one task and prints its result. Run it beside a node that serves:
//! `cargo run --release --example submit -- echo hello`.

use anyhow::Context;
use hostel::{DistributedClient, proto::distributed::Task};
use std::{env, io::Write};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = env::var("HOSTEL_SERVER").unwrap_or("127.0.0.1:50051".into());
    let mut arguments = env::args().skip(1);
    let task = Task {
        task_type: arguments.next().context("a task type")?,
        payload: arguments.next().unwrap_or_default().into(),
        ..Task::default()
    };

    let mut client = DistributedClient::connect(&server).await?;
    let status = client.submit_and_wait(task).await?;

    anyhow::ensure!(status.status == "completed", "{}", status.error);
    Ok(std::io::stdout().write_all(&status.result)?)
}
