//! Limits of task types and of their groups: from the configuration, over gRPC and by the command line.

use crate::support::{
    backend::{Backend, on_both_needing},
    eventually,
    node::Node,
    plugins::{BUSY, guest},
    task,
};
use hostel::{
    DistributedClient,
    plugin::TestGuest,
    proto::{
        distributed::Task,
        hostel::v1::{Limit, ListTasksRequest, ListTypesRequest, SetLimitsRequest, TypeStatus},
    },
};
use libtest_mimic::Trial;
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};
use tonic::Code;
use tonic_types::StatusExt;

pub fn trials() -> Vec<Trial> {
    [
        on_both_needing(
            "type_limits::the_run_time_wins_over_the_configuration",
            true,
            the_run_time_wins_over_the_configuration,
        ),
        on_both_needing(
            "type_limits::groups_run_no_more_than_they_may",
            true,
            groups_run_no_more_than_they_may,
        ),
        on_both_needing(
            "type_limits::a_rate_is_kept_over_a_kill",
            true,
            a_rate_is_kept_over_a_kill,
        ),
        on_both_needing(
            "type_limits::a_full_type_says_when_to_try_again",
            true,
            a_full_type_says_when_to_try_again,
        ),
        on_both_needing(
            "type_limits::bad_limits_are_refused_with_all_faults",
            true,
            bad_limits_are_refused_with_all_faults,
        ),
        on_both_needing("type_limits::command_line", true, command_line),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Starts a node whose plugin `busy` works for as many milliseconds as a payload says.
async fn start(on: Backend, settings: &str) -> Node {
    let node = on.prepare(&[], settings).await;
    let busy = TestGuest {
        name: "busy",
        task_types: &["busy"],
        handle: BUSY,
        ..TestGuest::default()
    };
    node.add_wasm("busy.wasm", &guest(&busy));
    node.started().await
}

fn busy(id: &str, group: &str, ms: u32) -> Task {
    Task {
        task_id: id.into(),
        group: group.into(),
        ..task("busy", ms.to_le_bytes())
    }
}

async fn status(client: &mut DistributedClient) -> TypeStatus {
    let request = ListTypesRequest {
        task_type: "busy".into(),
        ..ListTypesRequest::default()
    };
    let page = client.list_types(request).await.expect("the types");
    page.types.into_iter().next().expect("the type")
}

/// The value of a limit and its origin.
fn shown(limit: Option<Limit>) -> (String, String) {
    let limit = limit.expect("a limit");
    (limit.value, limit.origin)
}

fn pair(value: &str, origin: &str) -> (String, String) {
    (value.into(), origin.into())
}

fn request() -> SetLimitsRequest {
    SetLimitsRequest {
        task_type: "busy".into(),
        ..SetLimitsRequest::default()
    }
}

/// The ids of the tasks in a state, with their groups.
async fn tasks(client: &mut DistributedClient, state: &str) -> Vec<(String, String)> {
    let request = ListTasksRequest {
        status: state.into(),
        ..ListTasksRequest::default()
    };
    let listed = client.list_tasks(request).await.expect("the tasks");
    let tasks = listed.tasks.into_iter();
    tasks.map(|task| (task.task_id, task.group)).collect()
}

async fn the_run_time_wins_over_the_configuration(on: Backend) {
    let node = start(on, "[plugin.busy.task.busy]\nmax_concurrency = 2\n").await;
    let mut client = node.client();
    let before = status(&mut client).await.limits.expect("limits");
    assert_eq!(shown(before.max_concurrency), pair("2", "config"));
    assert_eq!(before.max_rate, None);
    let set = SetLimitsRequest {
        max_concurrency: "1".into(),
        max_cluster_concurrency: "none".into(),
        ..request()
    };
    let after = client.set_limits(set).await.expect("limits");
    let limits = after.limits.expect("limits");
    assert_eq!(shown(limits.max_concurrency), pair("1", "run time"));
    assert_eq!(
        shown(limits.max_cluster_concurrency),
        pair("none", "run time")
    );
    for n in 0..4 {
        let task = busy(&format!("t{n}"), "", 100);
        client.submit_task(task).await.expect("accepted");
    }
    eventually("all tasks end", async || {
        let mut client = node.client();
        assert!(tasks(&mut client, "running").await.len() <= 1);
        (tasks(&mut client, "completed").await.len() == 4).then_some(())
    })
    .await;
    let reset = SetLimitsRequest {
        reset: true,
        ..request()
    };
    let after = client.set_limits(reset).await.expect("limits");
    let limits = after.limits.expect("limits");
    assert_eq!(shown(limits.max_concurrency), pair("2", "config"));
}

async fn groups_run_no_more_than_they_may(on: Backend) {
    let settings = "[plugin.busy.task.busy.group]\nmax_cluster_concurrency = 1\n";
    let node = start(on, settings).await;
    let mut client = node.client();
    let set = SetLimitsRequest {
        group: "large".into(),
        max_cluster_concurrency: "2".into(),
        ..request()
    };
    let after = client.set_limits(set).await.expect("limits");
    let of_group = after.groups[0].limits.clone().expect("limits");
    assert_eq!(
        shown(of_group.max_cluster_concurrency),
        pair("2", "run time")
    );
    let each = after.each_group.expect("limits");
    assert_eq!(shown(each.max_cluster_concurrency), pair("1", "config"));
    for n in 0..4 {
        for group in ["small", "large", ""] {
            let task = busy(&format!("t{n}{group}"), group, 60);
            client.submit_task(task).await.expect("accepted");
        }
    }
    eventually("all tasks end", async || {
        let mut client = node.client();
        let running = tasks(&mut client, "running").await;
        let count = |of: &str| running.iter().filter(|(_, group)| group == of).count();
        assert!(count("small") <= 1 && count("large") <= 2, "{running:?}");
        (tasks(&mut client, "completed").await.len() == 12).then_some(())
    })
    .await;
}

async fn a_rate_is_kept_over_a_kill(on: Backend) {
    let settings = "[plugin.busy.task.busy]\nmax_rate = \"2/h burst 3\"\n";
    let mut node = start(on, settings).await;
    let mut client = node.client();
    for n in 0..6 {
        let task = busy(&format!("t{n}"), "", 1);
        client.submit_task(task).await.expect("accepted");
    }
    for _ in 0..2 {
        eventually("the burst ends", async || {
            let ended = tasks(&mut node.client(), "completed").await.len();
            (ended == 3).then_some(())
        })
        .await;
        node.kill();
        node.restart().await;
    }
    // A change is in force at once.
    let set = SetLimitsRequest {
        max_rate: "none".into(),
        ..request()
    };
    let mut client = node.client();
    assert_eq!(tasks(&mut client, "pending").await.len(), 3);
    client.set_limits(set).await.expect("limits");
    eventually("all tasks end", async || {
        let ended = tasks(&mut node.client(), "completed").await.len();
        (ended == 6).then_some(())
    })
    .await;
    // What was set is kept.
    node.kill();
    node.restart().await;
    let limits = status(&mut node.client()).await.limits.expect("limits");
    assert_eq!(shown(limits.max_rate), pair("none", "run time"));
}

async fn a_full_type_says_when_to_try_again(on: Backend) {
    let settings = "[plugins]\nmax_tasks = 1\n[plugin.busy.task.busy]\nmax_pending = 2\n\
                    [plugin.busy.task.busy.group]\nmax_pending = 1\n";
    let node = start(on, settings).await;
    let mut client = node.client();
    let first = busy("first", "", 600_000);
    client.submit_task(first).await.expect("accepted");
    eventually("the first task runs", async || {
        let running = tasks(&mut node.client(), "running").await;
        (running.len() == 1).then_some(())
    })
    .await;
    let in_group = busy("second", "g", 1);
    client
        .submit_task(in_group.clone())
        .await
        .expect("accepted");
    let refused = client.submit_task(busy("third", "g", 1)).await;
    let refused = refused.expect_err("the group is full");
    assert!(refused.message().contains("group"), "{refused}");
    client
        .submit_task(busy("fourth", "", 1))
        .await
        .expect("accepted");
    let refused = client.submit_task(busy("fifth", "", 1)).await;
    let refused = refused.expect_err("the type is full");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("max_pending"), "{refused}");
    let retry = refused.get_details_retry_info().expect("a retry info");
    assert!(
        retry
            .retry_delay
            .is_some_and(|delay| delay <= Duration::from_secs(5))
    );
    // A repeated submission is answered as always.
    client.submit_task(in_group).await.expect("the same task");
    client.cancel_task("first").await.expect("cancelled");
}

async fn bad_limits_are_refused_with_all_faults(on: Backend) {
    let node = start(on, "").await;
    let mut client = node.client();
    let set = SetLimitsRequest {
        task_type: "no type".into(),
        group: "g g".into(),
        each_group: true,
        max_concurrency: "0".into(),
        max_cluster_concurrency: "-1".into(),
        max_rate: "NaN/s".into(),
        max_pending: "99999999999999999999".into(),
        reset: false,
    };
    let refused = client.set_limits(set).await.expect_err("faults");
    let details = refused.get_details_bad_request().expect("a bad request");
    let fields = details.field_violations.iter();
    let fields: BTreeSet<&str> = fields.map(|fault| fault.field.as_str()).collect();
    let expected = [
        "each_group",
        "group",
        "max_cluster_concurrency",
        "max_concurrency",
        "max_pending",
        "max_rate",
        "task_type",
    ];
    assert_eq!(fields, BTreeSet::from(expected));
    let nothing = client.set_limits(request()).await.expect_err("no limit");
    assert_eq!(nothing.code(), Code::InvalidArgument, "{nothing}");
}

/// Runs a command that has to end with `code`, and returns what it printed.
fn run(node: &Node, code: i32, arguments: &[&str]) -> String {
    let arguments: Vec<_> = ["types"].iter().chain(arguments).copied().collect();
    let ran = node.cli(&arguments);
    let [out, err] = [&ran.stdout, &ran.stderr].map(|text| String::from_utf8_lossy(text));
    assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {out}{err}");
    format!("{out}{err}")
}

async fn command_line(on: Backend) {
    let node = start(on, "[plugin.busy.task.busy]\nmax_pending = 100\n").await;
    let listed = run(&node, 0, &["list"]);
    let expected = "busy  0        0        0       1      max_pending 100 (config)";
    assert!(listed.lines().any(|line| line == expected), "{listed}");
    let limit = ["limit", "busy", "--max-rate", "60/m burst 5"];
    let set = run(&node, 0, &limit);
    for line in [
        "type             busy",
        "limit            max_rate 60/m burst 5 (run time)",
        "limit            max_pending 100 (config)",
    ] {
        assert!(set.lines().any(|found| found == line), "{line}: {set}");
    }
    let of_group = ["limit", "busy", "--group", "acme", "--max-concurrency", "2"];
    let set = run(&node, 0, &of_group);
    let line = "group            acme: max_concurrency 2 (run time)";
    assert!(set.lines().any(|found| found == line), "{set}");
    let each = [
        "limit",
        "busy",
        "--each-group",
        "--max-pending",
        "10",
        "--json",
    ];
    let set: Value = serde_json::from_str(&run(&node, 0, &each)).expect("JSON");
    assert_eq!(set["each_group"]["max_pending"]["value"], "10");
    assert_eq!(set["limits"]["max_rate"]["origin"], "run time");
    let one: Value =
        serde_json::from_str(&run(&node, 0, &["list", "busy", "--json"])).expect("JSON");
    assert_eq!(one[0]["groups"][0]["group"], "acme");
    let inherited = &one[0]["groups"][0]["limits"]["max_pending"];
    assert_eq!(inherited["origin"], "each group");
    let reset = run(&node, 0, &["limit", "busy", "--reset"]);
    assert!(!reset.contains("max_rate"), "{reset}");
    let unknown = run(&node, 0, &["limit", "later", "--max-rate", "1/s"]);
    assert!(unknown.contains("no live node runs later now"), "{unknown}");
    let refused = run(&node, 4, &["limit", "busy", "--max-rate", "0/s"]);
    assert!(refused.contains("UNIT is s, m, h or d"), "{refused}");
    run(&node, 4, &["limit", "busy"]);
    run(
        &node,
        2,
        &["limit", "busy", "--group", "a", "--each-group", "--reset"],
    );
}
