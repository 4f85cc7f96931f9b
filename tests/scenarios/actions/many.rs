//! Actions on many tasks over gRPC.

use super::{Backend, act, act_on_all, count, to_all, to_ids};
use crate::{
    scenarios::options::{HOUR_MS, busy, has_status, named, start, status},
    support::{eventually, task},
};
use futures_util::stream;
use hostel::{
    DistributedClient,
    proto::{
        distributed::{Priority, Task},
        hostel::v1::{
            ActOnTasksRequest, CancelTasks, ListTasksRequest, PurgeTasks, RequeueTasks,
            RunTasksNow, SetTaskPriority, TaskFilter, act_on_tasks_request::Action,
            submit_many_response::Event,
        },
    },
};
use std::collections::BTreeMap;
use tonic::Code;
use tonic_types::StatusExt;

fn cancel(reason: &str) -> Action {
    Action::Cancel(CancelTasks {
        reason: reason.into(),
    })
}

fn of_group(group: &str) -> TaskFilter {
    TaskFilter {
        group: group.into(),
        ..TaskFilter::default()
    }
}

/// Submits tasks that are due in an hour.
async fn submit_delayed(client: &mut DistributedClient, group: &str, number: usize) {
    let group = group.to_owned();
    let tasks = (0..number).map(move |n| Task {
        group: group.clone(),
        delay_ms: HOUR_MS,
        ..named(&format!("{group}-{n}"), task("sample", ""))
    });
    let mut answers = client.submit_many(stream::iter(tasks));
    let mut accepted = 0;
    while let Some(answer) = answers.next().await {
        let event = answer.expect("an answer").event;
        assert!(matches!(event, Some(Event::Accepted(_))), "{event:?}");
        accepted += 1;
    }
    assert_eq!(accepted, number);
}

pub async fn a_filter_selects_tasks_and_the_count_grows(on: Backend) {
    let node = start(on, "").await;
    let mut client = node.client();
    submit_delayed(&mut client, "many", 1200).await;
    submit_delayed(&mut client, "few", 3).await;
    let of_many = || ListTasksRequest {
        status: "pending".into(),
        group: "many".into(),
        page_size: 1000,
        ..ListTasksRequest::default()
    };
    let all = || to_all(of_group("many"), cancel("not needed any more"));
    let dry_run = ActOnTasksRequest {
        dry_run: true,
        ..all()
    };
    let counted = act_on_all(&client, dry_run).await;
    assert_eq!((counted.matched, counted.done), (1200, 1200));
    assert_eq!(count(&client, of_many()).await, 1200);
    let limited = ActOnTasksRequest { limit: 7, ..all() };
    let some = act_on_all(&client, limited).await;
    assert_eq!((some.matched, some.done), (7, 7));
    assert_eq!(count(&client, of_many()).await, 1193);

    let (steps, ended) = act(&client, all()).await;
    ended.expect("the end");
    assert!(steps.len() >= 3, "{steps:?}");
    let mut before = 0;
    for step in &steps {
        assert!(
            step.matched > before && step.matched - before <= 500,
            "{step:?}"
        );
        assert_eq!(step.done, step.matched);
        assert!(step.left_alone.is_empty());
        before = step.matched;
    }
    assert_eq!(before, 1193);
    assert_eq!(count(&client, of_many()).await, 0);
    let cancelled = status(&mut client, "many-1199").await;
    assert_eq!(cancelled.status, "cancelled");
    assert_eq!(cancelled.error, "not needed any more");
    // Others are as they were, and once more there is nothing to do.
    assert_eq!(status(&mut client, "few-0").await.status, "pending");
    let (steps, ended) = act(&client, all()).await;
    assert!(steps.is_empty() && ended.is_ok(), "{steps:?} {ended:?}");
    let ids = to_ids(&["few-0", "absent", "many-0"], cancel(""));
    let some = act_on_all(&client, ids).await;
    assert_eq!((some.matched, some.done), (3, 1));
    let left: BTreeMap<_, _> = some
        .left_alone
        .iter()
        .map(|task| (task.task_id.as_str(), task.status.as_str()))
        .collect();
    let expected = BTreeMap::from([("absent", ""), ("many-0", "cancelled")]);
    assert_eq!(left, expected);
}

pub async fn running_tasks_are_cancelled_with_a_reason(on: Backend) {
    let settings = "[plugin.busy.limits]\nmax_cpu_ms = 3600000\n\
                    [plugin.busy.task.busy]\ntimeout_ms = 3600000\n";
    let node = start(on, settings).await;
    let mut client = node.client();
    for id in ["one", "two"] {
        client.submit_task(busy(id, u32::MAX)).await.unwrap();
        has_status(&client, id, "running").await;
    }
    let of_busy = TaskFilter {
        task_type: "busy".into(),
        ..TaskFilter::default()
    };
    let asked = act_on_all(&client, to_all(of_busy, cancel("too slow"))).await;
    assert_eq!((asked.matched, asked.done, asked.requested), (2, 0, 2));
    for id in ["one", "two"] {
        let ended = client.wait_for_task(id).await.unwrap();
        assert_eq!((&*ended.status, &*ended.error), ("cancelled", "too slow"));
    }
    // The call for one task has a reason, too.
    client.submit_task(busy("three", u32::MAX)).await.unwrap();
    has_status(&client, "three", "running").await;
    let outcome = client.cancel_task_with_reason("three", "as well").await;
    assert_eq!(outcome.unwrap(), "asked");
    let ended = client.wait_for_task("three").await.unwrap();
    assert_eq!((&*ended.status, &*ended.error), ("cancelled", "as well"));
}

pub async fn ended_tasks_are_requeued_and_purged(on: Backend) {
    let node = start(on, "").await;
    let mut client = node.client();
    for n in 0..4 {
        let fails = Task {
            max_attempts: 1,
            tags: vec!["bad".into()],
            ..named(&format!("trap-{n}"), task("trap", ""))
        };
        let ended = client.submit_and_wait(fails).await.unwrap();
        assert_eq!(ended.status, "failed");
    }
    let good = named("good", task("sample", "x"));
    client.submit_and_wait(good).await.unwrap();
    let bad = || TaskFilter {
        tag: "bad".into(),
        ..TaskFilter::default()
    };
    let requeued = act_on_all(&client, to_all(bad(), Action::Requeue(RequeueTasks {}))).await;
    assert_eq!((requeued.matched, requeued.done), (4, 4));
    for n in 0..4 {
        let ended = client.wait_for_task(&format!("trap-{n}")).await.unwrap();
        assert_eq!((ended.attempts, ended.finishes), (1, 1), "{ended:?}");
    }
    let purge = Action::Purge(PurgeTasks {});
    let purged = act_on_all(&client, to_all(bad(), purge)).await;
    assert_eq!((purged.matched, purged.done), (4, 4));
    let gone = client.get_task_status("trap-0").await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(status(&mut client, "good").await.status, "completed");
    let purge = Action::Purge(PurgeTasks {});
    let purged = act_on_all(&client, to_ids(&["good"], purge)).await;
    assert_eq!(purged.done, 1);
    let gone = client.get_task_status("good").await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

pub async fn waiting_tasks_are_hastened(on: Backend) {
    let node = start(on, "").await;
    let mut client = node.client();
    let backing_off = Task {
        backoff_initial_ms: 7 * 24 * HOUR_MS,
        backoff_max_ms: 7 * 24 * HOUR_MS,
        max_attempts: 2,
        ..named("backs-off", task("trap", ""))
    };
    client.submit_task(backing_off).await.unwrap();
    // The delay is a random part of a week: practically never less than what this takes.
    eventually("it waits for its next attempt", async || {
        let task = status(&mut client.clone(), "backs-off").await;
        (task.status == "pending" && task.attempts == 1).then_some(())
    })
    .await;
    submit_delayed(&mut client, "later", 2).await;
    let low = Action::SetPriority(SetTaskPriority {
        priority: Priority::Low.into(),
    });
    let pending = || TaskFilter {
        status: "pending".into(),
        ..TaskFilter::default()
    };
    let changed = act_on_all(&client, to_all(pending(), low)).await;
    assert_eq!((changed.matched, changed.done), (3, 3));
    let task = status(&mut client, "later-0").await;
    assert_eq!(task.priority(), Priority::Low);
    let run = Action::RunNow(RunTasksNow {});
    let hastened = act_on_all(&client, to_all(pending(), run)).await;
    assert_eq!(hastened.matched, 3);
    for (id, state) in [
        ("later-0", "completed"),
        ("later-1", "completed"),
        ("backs-off", "failed"),
    ] {
        let ended = client.wait_for_task(id).await.unwrap();
        assert_eq!(ended.status, state, "{ended:?}");
        assert_eq!(ended.priority(), Priority::Low);
    }
    // Its content is what was submitted.
    let again = Task {
        group: "later".into(),
        delay_ms: HOUR_MS,
        ..named("later-0", crate::support::task("sample", ""))
    };
    assert!(client.submit(again).await.unwrap().existing);
}

pub async fn bad_requests_are_refused(on: Backend) {
    let node = start(on, "").await;
    let client = node.client();
    let refused = async |request: ActOnTasksRequest| {
        let (steps, ended) = act(&client, request).await;
        assert!(steps.is_empty());
        let status = ended.expect_err("a refusal");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let details = status.get_details_bad_request().expect("details");
        let fields = details.field_violations.into_iter();
        fields.map(|violation| violation.field).collect::<Vec<_>>()
    };
    let of_type = |task_type: &str, status: &str| TaskFilter {
        task_type: task_type.into(),
        status: status.into(),
        ..TaskFilter::default()
    };
    let purge = || Action::Purge(PurgeTasks {});
    for (request, fields) in [
        (ActOnTasksRequest::default(), vec!["action", "filter"]),
        (to_ids(&[], purge()), vec!["filter"]),
        (to_ids(&["a b", "c/d"], purge()), vec!["task_ids"; 2]),
        (to_all(of_type("", "pending"), purge()), vec!["status"]),
        (
            to_all(of_type("a b", "done"), purge()),
            vec!["status", "task_type"],
        ),
        (
            to_all(of_type("", ""), cancel(&"x".repeat(1025))),
            vec!["reason"],
        ),
        (to_ids(&vec!["a"; 10_001], purge()), vec!["task_ids"]),
    ] {
        assert_eq!(refused(request).await, fields);
    }
    let long = client
        .clone()
        .cancel_task_with_reason("a", &"x".repeat(1025))
        .await;
    assert_eq!(long.unwrap_err().code(), Code::InvalidArgument);
}
