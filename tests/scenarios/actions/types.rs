//! Paused task types.

use super::Backend;
use crate::{
    scenarios::options::{has_status, named, start, status},
    support::task,
};
use std::time::Duration;
use tonic::Code;

pub async fn a_paused_type_waits_until_it_is_resumed(on: Backend) {
    let mut node = start(on, "").await;
    let mut client = node.client();
    let pause = client.pause_type("sample", "repairs").await.unwrap();
    assert_eq!((&*pause.task_type, &*pause.reason), ("sample", "repairs"));
    assert!(pause.since_ms > 0);
    let waits = named("waits", task("sample", "x"));
    client.submit_task(waits).await.unwrap();
    // Another type runs.
    let other = client
        .submit_and_wait(task("busy", 1_u32.to_le_bytes()))
        .await;
    assert_eq!(other.unwrap().status, "completed");
    let waiting = status(&mut client, "waits").await;
    assert_eq!(waiting.status, "pending");
    let expected = "the end of the pause of sample (repairs)";
    assert_eq!(waiting.waiting_for, expected);
    // It lasts beyond the node.
    node.kill();
    node.restart().await;
    let mut client = node.client();
    assert_eq!(client.list_paused_types().await.unwrap(), [pause]);
    // Longer than a dispatcher waits by itself.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(status(&mut client, "waits").await.status, "pending");
    assert!(client.resume_type("sample").await.unwrap());
    has_status(&client, "waits", "completed").await;
    assert!(!client.resume_type("sample").await.unwrap());
    assert!(client.list_paused_types().await.unwrap().is_empty());
    for bad in ["", "a b"] {
        let refused = client.pause_type(bad, "").await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let long = client.pause_type("sample", &"x".repeat(1025)).await;
    assert_eq!(long.unwrap_err().code(), Code::InvalidArgument);
}

pub async fn command_line(on: Backend) {
    let node = start(on, "").await;
    let hostel = |arguments: &[&str]| {
        let ran = node.cli(&[&["types"], arguments].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
    };
    let done = |arguments: &[&str]| {
        let (code, out, err) = hostel(arguments);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
        out
    };
    assert_eq!(done(&["list-paused"]), "TYPE  PAUSED  REASON\n");
    let paused = done(&["pause", "sample", "--reason", "tidying up"]);
    assert_eq!(paused, "sample is paused\n");
    let listed = done(&["list-paused"]);
    assert!(
        listed.contains("sample") && listed.contains("tidying up"),
        "{listed}"
    );
    let json: serde_json::Value = serde_json::from_str(&done(&["list-paused", "--json"])).unwrap();
    assert_eq!(json[0]["task_type"], "sample");
    assert_eq!(json[0]["reason"], "tidying up");
    let submit = ["submit", "sample", "--id", "waits"];
    assert!(node.cli(&submit).status.success());
    assert_eq!(status(&mut node.client(), "waits").await.status, "pending");
    assert_eq!(done(&["resume", "sample"]), "sample is resumed\n");
    has_status(&node.client(), "waits", "completed").await;
    let (code, _, err) = hostel(&["resume", "sample"]);
    assert_eq!(code, Some(4));
    assert!(err.contains("sample is not paused"), "{err}");
}
