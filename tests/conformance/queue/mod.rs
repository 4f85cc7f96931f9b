//! The contract of `TaskQueue`, one case a sentence. Every case gets a fresh, empty queue whose
//! `max_open_tasks` is `MAX_OPEN`. Nothing here knows an engine, and nothing asserts on speed: a
//! lease that has to run out is short and is waited for; one that must not is an hour long.

mod ending;
mod leasing;
mod looking;
mod model;
mod routing;
mod submitting;
mod suspects;

use bytes::Bytes;
use hostel::{
    queue::{
        Cancel, Changes, Error, Filter, Finish, Finished, LeaseToken, Leased, Page, Renewal,
        Requeue, Submitted, TaskQueue, Want, WantedType, WantedTypes, Watch,
    },
    task::{
        Name, Outcome, Ran, Resources, State, StateKind, Submission, SubmissionLimits, Target,
        Task, TaskId, UnixMs,
    },
};
use std::{
    collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration, time::SystemTime,
};

pub type Case = for<'q> fn(&'q dyn TaskQueue) -> Pin<Box<dyn Future<Output = ()> + Send + 'q>>;

/// What the engine under test is opened with.
pub const MAX_OPEN: usize = 3000;

const HOUR: Duration = Duration::from_secs(3600);

macro_rules! cases {
    ($($name:path),* $(,)?) => {
        /// Each case with its name.
        pub const CASES: &[(&str, Case)] =
            &[$((stringify!($name), |queue| Box::pin($name(queue)))),*];
    };
}

cases![
    ending::a_task_goes_from_submit_to_result,
    submitting::submitting_again_answers_the_same_task,
    submitting::submitting_other_content_is_a_conflict,
    submitting::one_batch_obeys_the_same_rules,
    submitting::content_comes_back_byte_for_byte,
    submitting::a_full_queue_says_so_and_recovers,
    leasing::leases_come_oldest_first_over_all_types,
    leasing::each_type_keeps_its_own_maximum,
    leasing::a_task_is_leased_to_one_holder,
    leasing::a_stale_token_changes_nothing,
    leasing::a_fence_never_comes_twice,
    ending::a_retry_waits_and_keeps_its_error,
    ending::a_release_costs_no_attempt,
    ending::a_failure_is_kept_and_can_be_requeued,
    ending::only_failed_and_cancelled_are_requeued,
    ending::a_waiting_task_is_cancelled_at_once,
    ending::a_running_task_is_asked_to_end,
    ending::an_asked_task_is_not_tried_again,
    ending::an_asked_task_may_still_end_its_own_way,
    leasing::a_lease_runs_out_and_its_holder_may_still_be_first,
    leasing::renewing_holds_a_lease,
    leasing::what_is_left_out_hides_no_other_lost_lease,
    leasing::next_due_says_how_long_to_wait,
    leasing::what_has_no_room_is_passed_by,
    leasing::a_type_with_fewer_left_gives_no_more,
    leasing::of_many_types_the_oldest_come_first,
    suspects::one_suspect_is_handed_out_at_a_time,
    suspects::a_suspect_stays_one_until_it_is_requeued,
    suspects::a_waiting_suspect_is_cancelled,
    routing::a_task_waits_for_its_node_or_label,
    routing::lanes_of_one_type_share_its_maximum,
    routing::what_a_target_asks_for_is_part_of_the_task,
    routing::a_limit_over_all_nodes_counts_who_runs,
    looking::pages_hold_every_task_once,
    looking::filters_choose_by_state_and_type,
    looking::a_bad_page_token_is_refused,
    looking::counts_follow_every_step,
    looking::purge_forgets_what_ended,
    looking::a_purged_id_can_be_used_again,
    looking::watchers_see_every_state,
    looking::empty_questions_have_empty_answers,
    looking::many_callers_lose_and_double_nothing,
    model::random_operations_match_the_model,
];

pub fn name(given: &str) -> Name {
    Name::parse("name", given).unwrap()
}

pub fn task(id: &str, task_type: &str, payload: &[u8]) -> Submission {
    task_with(id, task_type, payload, &[])
}

fn task_with(id: &str, task_type: &str, payload: &[u8], pairs: &[(&str, &str)]) -> Submission {
    let limits = SubmissionLimits {
        payload_bytes: 1 << 24,
        metadata_entries: 64,
        metadata_bytes: 1 << 16,
    };
    let metadata: BTreeMap<String, String> = pairs
        .iter()
        .map(|&(key, value)| (key.into(), value.into()))
        .collect();
    let payload = Bytes::copy_from_slice(payload);
    Submission::new(id, task_type, payload, metadata, &limits).unwrap()
}

pub fn want(types: &[(&str, usize)], max: usize, ttl: Duration) -> Want {
    Want {
        node: name("node-1"),
        labels: vec![name("gpu"), name("eu")],
        types: types
            .iter()
            .map(|&(task_type, max)| (name(task_type), wanted(max, 1)))
            .collect::<WantedTypes>()
            .into(),
        left: BTreeMap::new(),
        only: None,
        room: Resources::UNLIMITED,
        max,
        suspect: true,
        ttl,
    }
}

/// A type whose tasks take so many MiB of memory each.
fn wanted(max: usize, mib: usize) -> WantedType {
    WantedType {
        max,
        max_in_cluster: None,
        needs: Resources {
            memory_bytes: mib << 20,
            pool_slots: 1,
        },
    }
}

/// The same, where so many tasks of the type may run on all nodes together.
pub fn limited(mut want: Want, task_type: &str, max: usize) -> Want {
    let types = Arc::make_mut(&mut want.types);
    types.get_mut(&name(task_type)).unwrap().max_in_cluster = Some(max);
    want
}

pub fn ran() -> Ran {
    Ran {
        node: name("node-1"),
        plugin: name("plugin-1"),
        plugin_version: "1.2.3+build 4".into(),
    }
}

async fn submit_one(queue: &dyn TaskQueue, submission: Submission) -> Submitted {
    let answers = queue.submit(vec![submission]).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers[0]
}

async fn create(queue: &dyn TaskQueue, id: &str, task_type: &str) {
    let answer = submit_one(queue, task(id, task_type, b"payload")).await;
    assert_eq!(answer, Submitted::Created, "{id}");
}

async fn lease_some(queue: &dyn TaskQueue, task_type: &str, max: usize) -> Vec<Leased> {
    let want = want(&[(task_type, max)], max, HOUR);
    queue.lease(&want).await.unwrap()
}

async fn lease_one(queue: &dyn TaskQueue, task_type: &str) -> Leased {
    let mut leased = lease_some(queue, task_type, 1).await;
    leased.pop().expect("a task is due")
}

pub async fn finish_one(queue: &dyn TaskQueue, token: &LeaseToken, outcome: Outcome) -> Finished {
    let finish = Finish {
        token: token.clone(),
        outcome,
        ran: Some(ran()),
    };
    let answers = queue.finish(vec![finish]).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers[0]
}

async fn get(queue: &dyn TaskQueue, id: &str) -> Task {
    let found = queue.get(&name(id)).await.unwrap();
    found.unwrap_or_else(|| panic!("{id} is unknown"))
}

async fn kind(queue: &dyn TaskQueue, id: &str) -> StateKind {
    get(queue, id).await.state.kind()
}

fn completed(result: &[u8]) -> Outcome {
    Outcome::Completed {
        result: Bytes::copy_from_slice(result),
    }
}

fn failed(error: &str) -> Outcome {
    Outcome::Failed {
        error: error.into(),
    }
}

fn retry(after: Duration, error: &str) -> Outcome {
    let error = error.into();
    Outcome::Retry { after, error }
}

fn ids(leased: &[Leased]) -> Vec<&str> {
    leased.iter().map(|task| task.token.id.as_str()).collect()
}

/// Waits until the next millisecond, so that two due times differ.
async fn tick() {
    tokio::time::sleep(Duration::from_millis(3)).await;
}

pub async fn list_all(queue: &dyn TaskQueue, filter: &Filter, size: usize) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut after = None;
    loop {
        let listing = queue.list(filter, &Page { size, after }).await.unwrap();
        assert!(listing.tasks.len() <= size);
        tasks.extend(listing.tasks);
        after = listing.next;
        if after.is_none() {
            return tasks;
        }
    }
}

/// When a task waits: its due time.
pub fn due_at(task: &Task) -> Option<UnixMs> {
    match task.state {
        State::Pending { due_at } => Some(due_at),
        _ => None,
    }
}
