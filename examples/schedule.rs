//! Creates a schedule over gRPC, and shows when it fires.
//!
//! ```sh
//! cargo run --release --example schedule -- http://127.0.0.1:50051 echo
//! ```

use anyhow::Context;
use hostel::{DistributedClient, proto::hostel::v1::ScheduleSpec};
use std::time::{Duration, UNIX_EPOCH};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().context("the address of a node")?;
    let spec = ScheduleSpec {
        name: "morning-report".into(),
        cron: "30 8 * * MON-FRI".into(),
        time_zone: "Europe/Berlin".into(),
        task_type: arguments.next().context("a task type")?,
        overlap: "skip".into(),
        missed: "once".into(),
        ..ScheduleSpec::default()
    };

    let mut client = DistributedClient::connect(&server).await?;
    let created = client.create_schedule(spec, true).await?;
    let schedule = created.schedule.unwrap_or_default();
    println!("{}: {:?}", created.outcome, times(&schedule.next_ms));

    let run = client.run_schedule("morning-report").await?;
    let status = client.wait_for_task(&run.task_id).await?;
    println!("{} {}", run.task_id, status.status);
    client.delete_schedule("morning-report", false).await?;
    Ok(())
}

/// How many minutes from now each time is.
fn times(next_ms: &[u64]) -> Vec<u64> {
    let now = UNIX_EPOCH.elapsed().unwrap_or_default();
    let minutes = next_ms.iter().map(|&ms| Duration::from_millis(ms));
    let minutes = minutes.map(|time| time.saturating_sub(now).as_secs() / 60);
    minutes.collect()
}
