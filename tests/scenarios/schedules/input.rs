//! What a node refuses, and how much it takes.

use super::{create, every, get};
use crate::support::{backend::Backend, eventually, plugins::showcase};
use futures_util::{StreamExt, stream};
use hostel::proto::hostel::v1::{ListSchedulesRequest, ScheduleSpec};
use std::collections::BTreeSet;
use tonic::Code;
use tonic_types::StatusExt;

pub async fn bad_input_is_refused(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let refused = async |spec: ScheduleSpec| {
        let refused = node.client().create_schedule(spec, false).await;
        let status = refused.expect_err("a refusal");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let details = status.get_details_bad_request().expect("details");
        let fields = details.field_violations.into_iter();
        fields.map(|violation| violation.field).collect::<Vec<_>>()
    };
    let cron = |pattern: &str, zone: &str| ScheduleSpec {
        every_ms: 0,
        cron: pattern.into(),
        time_zone: zone.into(),
        ..every("report", 1)
    };
    for (spec, fields) in [
        (cron("0 0 30 2 *", ""), vec!["cron"]),
        (cron("* * * *", ""), vec!["cron"]),
        (cron("@often", ""), vec!["cron"]),
        (cron("@daily", "Mars/Olympus"), vec!["time_zone"]),
        (cron("0 0 31 6 *", "Nowhere"), vec!["time_zone", "cron"]),
        (every("report", 99), vec!["every_ms"]),
        (every("report", u64::MAX), vec!["every_ms"]),
        (every(&"x".repeat(65), 1000), vec!["name"]),
        (every("a b", 1000), vec!["name"]),
        (
            ScheduleSpec {
                jitter_ms: 1000,
                overlap: "perhaps".into(),
                missed: "never".into(),
                payload: vec![0; (64 << 10) + 1].into(),
                ..every("report", 1000)
            },
            vec!["overlap", "missed", "jitter_ms", "payload"],
        ),
        (
            ScheduleSpec {
                priority: 7,
                ..every("report", 1000)
            },
            vec!["priority"],
        ),
        (
            ScheduleSpec {
                priority: -1,
                overlap: "perhaps".into(),
                task_type: "a b".into(),
                ..every("report", 99)
            },
            vec!["every_ms", "task_type", "priority", "overlap"],
        ),
        (ScheduleSpec::default(), vec!["name", "cron", "task_type"]),
    ] {
        assert_eq!(refused(spec.clone()).await, fields, "{spec:?}");
    }
    for name in ["", "a b", "../a"] {
        let found = node.client().get_schedule(name).await;
        assert_eq!(found.expect_err("a refusal").code(), Code::InvalidArgument);
    }
    let mut client = node.client();
    for status in [
        client.get_schedule("absent").await.expect_err("none"),
        client.pause_schedule("absent").await.expect_err("none"),
        client.resume_schedule("absent").await.expect_err("none"),
        client.run_schedule("absent").await.expect_err("none"),
        client
            .delete_schedule("absent", true)
            .await
            .expect_err("none"),
    ] {
        assert_eq!(status.code(), Code::NotFound, "{status}");
    }
    // The same schedule again is the same; another one of its name needs to be told.
    create(&node, every("report", 60_000)).await;
    let again = client.create_schedule(every("report", 60_000), false).await;
    assert_eq!(again.expect("the same").outcome, "existing");
    let other = every("report", 120_000);
    let taken = client.create_schedule(other.clone(), false).await;
    assert_eq!(taken.expect_err("a refusal").code(), Code::AlreadyExists);
    let replaced = client.create_schedule(other, true).await;
    assert_eq!(replaced.expect("replaced").outcome, "replaced");
    assert_eq!(
        get(&node, "report").await.spec.expect("a spec").every_ms,
        120_000
    );
    // A run is a task of its own, and the same run is the same task.
    let run = client.run_schedule("report").await.expect("a run");
    assert!(run.task_id.starts_with("schedule:report:run:") && !run.existing);
    let ended = client.wait_for_task(&run.task_id).await.expect("a task");
    assert_eq!(&ended.result[..], b"hello");
    assert_eq!(get(&node, "report").await.fired, 0);
}

pub async fn a_thousand_schedules_fire(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let names: Vec<String> = (0..1000).map(|number| format!("s{number:04}")).collect();
    // All fire at the same times.
    let created = stream::iter(&names).map(async |name| {
        let spec = ScheduleSpec {
            cron: "*/10 * * * * *".into(),
            every_ms: 0,
            ..every(name, 1)
        };
        create(&node, spec).await;
    });
    created.buffer_unordered(32).collect::<Vec<()>>().await;
    eventually("all have fired", async || {
        let (mut listed, mut fired) = (Vec::new(), 0);
        let mut request = ListSchedulesRequest::default();
        loop {
            let page = node.client().list_schedules(request.clone()).await.ok()?;
            for schedule in page.schedules {
                let spec = schedule.spec.expect("a spec");
                assert!(spec.payload.is_empty());
                listed.push(spec.name);
                fired += usize::from(schedule.fired > 0);
            }
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(listed, names);
        (fired == names.len()).then_some(())
    })
    .await;
    // Each has its own tasks.
    let mut client = node.client();
    let tasks = client.list_tasks(hostel::proto::hostel::v1::ListTasksRequest {
        page_size: 1000,
        ..Default::default()
    });
    let tasks = tasks.await.expect("a page").tasks;
    let ids: BTreeSet<_> = tasks.iter().map(|task| &task.task_id).collect();
    assert_eq!(ids.len(), 1000);
}
