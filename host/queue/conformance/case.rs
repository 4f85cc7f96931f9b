//! The list of cases.

pub use super::helpers::MAX_OPEN_TASKS;
use super::{finishing, leasing, model, reading, routing, submitting, suspects};
use crate::task_queue::TaskQueue;
use std::{pin::Pin, sync::Arc};

type Run = for<'q> fn(&'q dyn TaskQueue) -> Pin<Box<dyn Future<Output = ()> + Send + 'q>>;

/// One sentence of the contract.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    name: &'static str,
    total_order: bool,
    run: Run,
}

impl Case {
    /// The name of the case.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the case expects one order and exact limits over all tasks. A backend with several
    /// shards provides them within a shard only.
    pub fn requires_total_order(&self) -> bool {
        self.total_order
    }

    /// Opens a queue, runs the case on it, and closes it.
    pub async fn run<F>(&self, open: impl FnOnce() -> F)
    where
        F: Future<Output = Arc<dyn TaskQueue>>,
    {
        let queue = open().await;
        (self.run)(&*queue).await;
        queue.close().await;
    }
}

macro_rules! cases {
    ($($module:ident::$name:ident $($total_order:ident)?,)*) => {
        const CASES: &[Case] = &[$(Case {
            name: stringify!($name),
            total_order: cases!(@ $($total_order)?),
            run: |queue| Box::pin($module::$name(queue)),
        }),*];
    };
    (@ total_order) => { true };
    (@) => { false };
}

cases! {
    finishing::a_task_goes_from_submit_to_result,
    submitting::submitting_again_answers_the_same_task,
    submitting::submitting_other_content_is_a_conflict,
    submitting::comparing_answers_as_submitting_again_and_stores_nothing,
    submitting::one_batch_obeys_the_same_rules,
    submitting::content_comes_back_byte_for_byte,
    submitting::a_full_queue_refuses_and_recovers total_order,
    leasing::leases_come_oldest_first_over_all_types total_order,
    leasing::each_type_keeps_its_own_maximum total_order,
    leasing::a_task_is_leased_to_one_holder,
    leasing::a_stale_token_changes_nothing,
    leasing::a_fence_is_never_used_twice,
    finishing::a_retry_waits_and_keeps_its_error,
    finishing::a_release_costs_no_attempt,
    finishing::a_failure_is_kept_and_can_be_requeued,
    finishing::only_failed_and_cancelled_tasks_are_requeued,
    finishing::a_pending_task_is_cancelled_at_once,
    finishing::a_running_task_is_cancelled_through_its_holder,
    finishing::a_task_to_be_cancelled_is_not_retried,
    finishing::a_task_to_be_cancelled_may_still_complete_or_fail,
    leasing::the_holder_of_an_expired_lease_may_finish_first,
    leasing::renewing_extends_a_lease,
    leasing::excluded_types_hide_no_other_expired_lease,
    leasing::next_due_returns_how_long_to_wait,
    leasing::tasks_that_do_not_fit_are_passed_over total_order,
    leasing::the_remaining_tasks_of_a_type_limit_a_lease total_order,
    leasing::the_oldest_come_first_among_many_types total_order,
    suspects::one_suspect_is_leased_at_a_time total_order,
    suspects::a_suspect_stays_one_until_it_is_requeued,
    suspects::a_pending_suspect_is_cancelled,
    routing::a_task_waits_for_its_node_or_label total_order,
    routing::routes_of_one_type_share_its_maximum total_order,
    routing::the_target_is_part_of_the_task,
    routing::a_cluster_wide_limit_counts_running_tasks total_order,
    reading::a_status_has_no_payload_and_leaves_out_a_large_result,
    reading::pages_hold_every_task_once total_order,
    reading::filters_select_by_state_and_type total_order,
    reading::a_bad_page_token_is_refused,
    reading::counts_follow_every_transition,
    reading::purge_deletes_ended_tasks total_order,
    reading::a_purged_id_can_be_used_again,
    reading::watchers_see_every_state,
    reading::empty_calls_have_empty_answers,
    reading::concurrent_callers_lose_and_duplicate_nothing,
    model::random_operations_match_the_model total_order,
}

/// Returns the cases, in no order that matters.
pub fn cases() -> impl Iterator<Item = Case> {
    CASES.iter().copied()
}
