//! Schedules of the configuration.

use super::{create, every, get, wait_for};
use crate::support::{
    backend::Backend,
    eventually,
    node::{Node, hostel},
    plugins::showcase,
};
use hostel::proto::hostel::v1::{ListSchedulesRequest, Schedule, ScheduleSpec};
use rustix::process::Signal;
use tonic::Code;

const SCHEDULES: &str = r#"
[schedule.kept]
every_ms = 250
task_type = "echo"
payload = "hello"
overlap = "allow"

[schedule.kept.metadata]
department = "finance"

[schedule.withdrawn]
cron = "30 3 * * MON-FRI"
time_zone = "Europe/Berlin"
task_type = "echo"
priority = "low"
group = "tenant-1"
missed = "all"
jitter_ms = 5000
"#;

async fn names(node: &Node) -> Vec<String> {
    let request = ListSchedulesRequest::default();
    let listed = node.client().list_schedules(request).await.expect("a list");
    let specs = listed.schedules.into_iter().filter_map(|one| one.spec);
    specs.map(|spec| spec.name).collect()
}

pub async fn the_configuration_declares_schedules(on: Backend) {
    let mut node = on.prepare(&[&showcase("echo")], "").await;
    node.add_settings(SCHEDULES);
    let mut node = node.started().await;
    let kept = wait_for(&node, "kept", |schedule| schedule.fired >= 3).await;
    assert_eq!(kept.origin, "config");
    assert_eq!(kept.nodes, ["test"]);
    assert_eq!(kept.spec.expect("a spec").metadata["department"], "finance");
    let withdrawn = wait_for(&node, "withdrawn", |_| true).await;
    let spec = withdrawn.spec.expect("a spec");
    assert_eq!(
        (spec.cron.as_str(), spec.time_zone.as_str()),
        ("30 3 * * MON-FRI", "Europe/Berlin")
    );
    assert_eq!(
        (spec.group.as_str(), spec.missed.as_str()),
        ("tenant-1", "all")
    );
    assert_eq!(spec.jitter_ms, 5000);
    assert_eq!(withdrawn.next_ms.len(), 5);

    // Clients cannot change them.
    let refused = node
        .client()
        .create_schedule(every("kept", 1000), true)
        .await;
    let refused = refused.expect_err("a refusal");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("configuration of test"),
        "{refused}"
    );
    let refused = node.client().delete_schedule("kept", false).await;
    assert_eq!(
        refused.expect_err("a refusal").code(),
        Code::FailedPrecondition
    );
    node.client()
        .pause_schedule("withdrawn")
        .await
        .expect("paused");

    // A schedule that is no longer there is removed, and another one goes on from where it was.
    create(&node, every("of-a-client", 60_000)).await;
    node.terminate().await;
    let fired = kept.fired;
    node.edit_config(|config| {
        let cut = config.find("[schedule.withdrawn]").expect("a section");
        config.truncate(cut);
        *config = config.replace("every_ms = 250", "every_ms = 200");
    });
    node.restart().await;
    let kept = wait_for(&node, "kept", |schedule| {
        schedule.fired > fired
            && schedule
                .spec
                .as_ref()
                .is_some_and(|spec| spec.every_ms == 200)
    })
    .await;
    assert!(kept.last_fired_ms > 0);
    eventually("the other one is gone", async || {
        (names(&node).await == ["kept", "of-a-client"]).then_some(())
    })
    .await;
    // By force, for nodes that are gone for good.
    node.client()
        .delete_schedule("kept", true)
        .await
        .expect("deleted");
    assert_eq!(names(&node).await, ["of-a-client"]);
}

pub async fn sighup_takes_over_schedules(on: Backend) {
    let mut node = on.prepare(&[&showcase("echo")], "").await;
    node.add_settings(SCHEDULES);
    let mut node = node.started().await;
    wait_for(&node, "kept", |schedule| schedule.fired >= 1).await;
    wait_for(&node, "withdrawn", |_| true).await;
    create(&node, every("of-a-client", 60_000)).await;
    node.edit_config(|config| {
        let cut = config.find("[schedule.withdrawn]").expect("a section");
        config.truncate(cut);
        *config = config.replace("every_ms = 250", "every_ms = 200");
        config.push_str("\n[schedule.added]\ncron = \"@daily\"\ntask_type = \"echo\"\n");
    });
    node.signal(Signal::HUP);
    eventually("the schedules are those of the file", async || {
        (names(&node).await == ["added", "kept", "of-a-client"]).then_some(())
    })
    .await;
    let changed = |schedule: &Schedule| {
        let spec = schedule.spec.as_ref();
        spec.is_some_and(|spec| spec.every_ms == 200)
    };
    let kept = wait_for(&node, "kept", changed).await;
    assert_eq!(kept.origin, "config");
    let fired = kept.fired;
    wait_for(&node, "kept", |schedule| schedule.fired > fired).await;
    assert!(!node.log().contains("need a restart"), "{}", node.log());

    // A configuration with faults changes nothing.
    node.edit_config(|config| *config = config.replace("@daily", "0 0 30 2 *"));
    node.signal(Signal::HUP);
    eventually("the log has the fault", async || {
        let log = node.log();
        (log.contains("is not reloaded") && log.contains("never fires")).then_some(())
    })
    .await;
    assert_eq!(names(&node).await, ["added", "kept", "of-a-client"]);
}

pub async fn a_name_that_is_taken_is_reported(on: Backend) {
    let mut node = on.start(&[&showcase("echo")], "").await;
    let mine = ScheduleSpec {
        payload: "of a client".into(),
        ..every("report", 60_000)
    };
    create(&node, mine).await;
    node.terminate().await;
    node.add_settings("\n[schedule.report]\ncron = \"@daily\"\ntask_type = \"echo\"\n");
    node.restart().await;
    let text = eventually("health names it", async || {
        let health = node.client().get_health().await.ok()?;
        let text = format!("{health:?}");
        text.contains("not in force").then_some(text)
    })
    .await;
    assert!(
        text.contains("report") && text.contains("hostel schedules delete"),
        "{text}"
    );
    let schedule = get(&node, "report").await;
    assert_eq!(schedule.origin, "api");
    assert_eq!(&schedule.spec.expect("a spec").payload[..], b"of a client");
}

/// Each fault is named with its setting, and the node does not start.
pub async fn bad_schedules_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("hostel.toml");
    let config = r#"
[schedule.never]
cron = "0 0 30 2 *"
task_type = "echo"

[schedule.nowhere]
cron = "0 0 * * *"
time_zone = "Europe/Berln"
task_type = "echo"
node = "a"
label = "b"

[schedule.both]
cron = "@daily"
every_ms = 1000
task_type = "a b"
overlap = "perhaps"

[schedule.neither]
task_type = "echo"

[schedule.fast]
every_ms = 99
task_type = "echo"

[schedule.untyped]
cron = "@daily"
"#;
    std::fs::write(&file, config).expect("a file");
    let ran = hostel()
        .args(["config", "check", "--config"])
        .arg(&file)
        .output()
        .expect("hostel runs");
    assert_eq!(ran.status.code(), Some(2), "{ran:?}");
    let text = String::from_utf8_lossy(&ran.stderr) + String::from_utf8_lossy(&ran.stdout);
    for part in [
        "schedule.never.cron",
        "never fires",
        "schedule.nowhere.time_zone",
        "did you mean Europe/Berlin?",
        "schedule.nowhere.label",
        "schedule.both.every_ms",
        "schedule.both.task_type",
        "schedule.both.overlap",
        "schedule.neither.task_type",
        "needs cron or every_ms",
        "schedule.fast.every_ms",
        "schedule.untyped.task_type",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}
