//! Schedules: each time has one task, whatever happens to nodes; what overlaps or was missed follows the
//! policy; the configuration, the API and the command line manage them.

mod cluster;
mod command_line;
mod config;
mod firing;
mod input;

use crate::support::{backend::on_both, eventually, node::Node, trial_needing};
use hostel::{
    DistributedClient,
    proto::{
        distributed::TaskStatus,
        hostel::v1::{CreateScheduleResponse, ListTasksRequest, Schedule, ScheduleSpec},
    },
};
use libtest_mimic::Trial;
use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

pub fn trials() -> Vec<Trial> {
    let on_both = [
        on_both(
            "schedules::each_time_has_one_task",
            firing::each_time_has_one_task,
        ),
        on_both(
            "schedules::firings_that_were_missed_follow_the_policy",
            firing::missed_firings_follow_the_policy,
        ),
        on_both(
            "schedules::firings_that_overlap_follow_the_policy",
            firing::overlapping_firings_follow_the_policy,
        ),
        on_both(
            "schedules::a_full_queue_delays_firings",
            firing::a_full_queue_delays_firings,
        ),
        on_both(
            "schedules::the_configuration_declares_schedules",
            config::the_configuration_declares_schedules,
        ),
        on_both(
            "schedules::sighup_takes_over_schedules",
            config::sighup_takes_over_schedules,
        ),
        on_both(
            "schedules::a_name_that_is_taken_is_reported",
            config::a_name_that_is_taken_is_reported,
        ),
        on_both(
            "schedules::bad_input_is_refused",
            input::bad_input_is_refused,
        ),
        on_both(
            "schedules::a_thousand_schedules_fire",
            input::a_thousand_schedules_fire,
        ),
        on_both("schedules::command_line", command_line::command_line),
    ];
    let mut trials: Vec<_> = on_both.into_iter().flatten().collect();
    trials.push(trial_needing(
        "schedules::bad_schedules_in_the_configuration_are_refused",
        true,
        config::bad_schedules_are_refused,
    ));
    trials.extend(cluster::trials());
    trials
}

/// A schedule of echo tasks that fires every so many milliseconds, whether tasks overlap or not.
fn every(name: &str, ms: u64) -> ScheduleSpec {
    ScheduleSpec {
        name: name.into(),
        every_ms: ms,
        task_type: "echo".into(),
        payload: "hello".into(),
        overlap: "allow".into(),
        ..ScheduleSpec::default()
    }
}

async fn create(node: &Node, spec: ScheduleSpec) -> Schedule {
    let created = node.client().create_schedule(spec, false).await;
    let CreateScheduleResponse { schedule, outcome } = created.expect("a schedule");
    assert_eq!(outcome, "created");
    schedule.expect("a schedule")
}

async fn get(node: &Node, name: &str) -> Schedule {
    let found = node.client().get_schedule(name).await;
    found.expect("a schedule")
}

/// Waits until `is_met` holds of a schedule.
async fn wait_for(node: &Node, name: &str, is_met: impl Fn(&Schedule) -> bool) -> Schedule {
    eventually(&format!("schedule {name} is as expected"), async || {
        let found = node.client().get_schedule(name).await.ok();
        found.filter(|schedule| is_met(schedule))
    })
    .await
}

/// Returns the tasks of a schedule by the time that they are for, in milliseconds since the Unix epoch.
async fn tasks_of(client: &mut DistributedClient, name: &str) -> BTreeMap<u64, TaskStatus> {
    let mut tasks = BTreeMap::new();
    let mut request = ListTasksRequest {
        page_size: 1000,
        ..ListTasksRequest::default()
    };
    loop {
        let page = client.list_tasks(request.clone()).await.expect("a page");
        for task in page.tasks {
            let prefix = format!("schedule:{name}:");
            let Some(time) = task.task_id.strip_prefix(&prefix) else {
                continue;
            };
            let twice = tasks.insert(unix_ms(time), task.clone());
            assert_eq!(twice, None, "{task:?}");
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return tasks;
        }
    }
}

/// Parses a time such as `2026-11-27T03:30:00.25Z`.
fn unix_ms(time: &str) -> u64 {
    let digits = time.strip_suffix('Z').expect(time);
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let numbers: Vec<i64> = seconds
        .split(['-', 'T', ':'])
        .map(|number| number.parse().expect(time))
        .collect();
    let [year, month, day, hour, minute, second] = numbers[..] else {
        panic!("{time}")
    };
    // The days since 1970-01-01 of a date in the Gregorian calendar, by years that begin in March.
    let (year, month) = if month < 3 {
        (year - 1, month + 12)
    } else {
        (year, month)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400;
    let days = days + (153 * (month - 3) + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    let ms: u64 = format!("{fraction:0<3}").parse().expect(time);
    u64::try_from(seconds).expect(time) * 1000 + ms
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.expect("after 1970").as_millis();
    ms.try_into().expect("a time")
}
