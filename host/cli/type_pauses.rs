//! Pausing and resuming task types, and the list of the paused ones.

use super::{
    connection::ConnectionArgs,
    error::CliError,
    output::{ago, print_json, print_table},
};
use serde_json::json;

pub async fn pause(
    connection: &ConnectionArgs,
    task_type: &str,
    reason: &str,
) -> Result<(), CliError> {
    let mut client = connection.connect().await?;
    client.pause_type(task_type, reason).await?;
    print_line!("{task_type} is paused");
    Ok(())
}

pub async fn resume(connection: &ConnectionArgs, task_type: &str) -> Result<(), CliError> {
    let mut client = connection.connect().await?;
    if !client.resume_type(task_type).await? {
        let message = format!("{task_type} is not paused");
        return Err(CliError::refused(message));
    }
    print_line!("{task_type} is resumed");
    Ok(())
}

pub async fn list(connection: &ConnectionArgs, json: bool) -> Result<(), CliError> {
    let paused = connection.connect().await?.list_paused_types().await?;
    if json {
        let paused = paused.iter().map(|one| {
            json!({
                "task_type": one.task_type,
                "since_ms": one.since_ms,
                "reason": one.reason,
            })
        });
        print_json(&paused.collect());
        return Ok(());
    }
    let rows: Vec<_> = paused
        .into_iter()
        .map(|one| vec![one.task_type, ago(one.since_ms), one.reason])
        .collect();
    print_table(&["TYPE", "PAUSED", "REASON"], &rows);
    Ok(())
}
