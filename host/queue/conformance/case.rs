//! The lists of cases.

pub use super::helpers::MAX_OPEN_TASKS;
use super::{
    actions, finishing, following, groups, history, leasing, limits, model, options, pauses,
    priorities, progress, reading, routing, searching, starting, submitting, suspects, unique,
    usage,
};
use crate::task_queue::TaskQueue;
use std::sync::Arc;

/// One rule of the contract. It closes the queue that it ran on.
pub type Case = hostel_runtime::conformance::Case<Arc<dyn TaskQueue>>;

macro_rules! cases {
    ($list:ident: $($module:ident::$name:ident,)*) => {
        const $list: &[Case] = &[$(Case::new(
            stringify!($name),
            |queue| Box::pin(async move {
                $module::$name(&*queue).await;
                queue.close().await;
            }),
        )),*];
    };
}

cases! {
    CASES:
    finishing::a_task_goes_from_submit_to_result,
    submitting::submitting_again_answers_the_same_task,
    submitting::submitting_other_content_is_a_conflict,
    submitting::comparing_answers_as_submitting_again_and_stores_nothing,
    submitting::one_batch_obeys_the_same_rules,
    submitting::content_comes_back_byte_for_byte,
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
    suspects::a_suspect_stays_one_until_it_is_requeued,
    suspects::a_pending_suspect_is_cancelled,
    routing::the_target_is_part_of_the_task,
    starting::a_delayed_task_waits_until_it_is_due,
    starting::a_start_in_the_past_is_due_now,
    starting::a_delayed_task_is_cancelled_and_requeued,
    starting::a_task_that_did_not_begin_in_time_fails,
    starting::an_expired_task_is_requeued_without_its_deadline,
    starting::only_the_first_attempt_has_to_begin_in_time,
    starting::expired_tasks_fail_in_steps,
    unique::a_key_is_held_while_its_task_is_open,
    unique::a_key_belongs_to_one_type,
    unique::the_same_id_is_compared_as_always,
    unique::a_key_is_held_for_its_time,
    unique::a_purge_ends_no_time_of_a_key,
    unique::a_requeued_task_takes_its_key_if_it_is_free,
    unique::concurrent_submissions_make_one_task,
    limits::a_cluster_wide_limit_is_exact,
    limits::an_expired_lease_keeps_its_place_until_it_is_ended,
    limits::renewals_keep_a_place,
    limits::groups_are_limited_one_by_one,
    limits::a_limit_of_a_node_counts_its_own_tasks,
    limits::a_group_at_its_limit_holds_up_no_other,
    limits::thousands_of_groups_have_their_own_limits,
    limits::a_rate_allows_its_burst_and_then_waits,
    limits::no_more_begin_than_the_rate_allows,
    limits::a_rate_of_a_group_holds_up_no_other,
    limits::a_type_with_too_many_pending_tasks_refuses_others,
    limits::a_group_with_too_many_pending_tasks_refuses_others,
    options::options_come_back_as_given,
    options::options_are_part_of_the_content,
    progress::a_renewal_stores_the_progress_of_its_attempt,
    progress::a_stale_token_reports_no_progress,
    progress::progress_is_kept_until_the_next_attempt,
    progress::a_task_to_be_cancelled_still_reports_progress,
    actions::each_task_of_a_batch_has_its_answer,
    actions::the_reason_of_a_cancellation_is_the_error_of_the_task,
    actions::purged_tasks_leave_nothing_behind,
    actions::a_task_that_waits_for_its_time_can_run_now,
    actions::a_suspect_can_be_hastened,
    actions::ended_tasks_are_kept_by_type_and_state,
    pauses::no_task_of_a_paused_type_is_leased,
    pauses::a_pause_may_get_another_reason,
    pauses::the_number_of_paused_types_is_bounded,
    history::each_attempt_is_in_the_history,
    history::the_first_attempt_is_in_the_history_however_it_ends,
    history::the_reason_of_a_cancellation_outlives_a_requeue,
    history::a_stale_or_repeated_finish_adds_no_attempt,
    history::the_latest_attempts_are_kept_and_the_others_counted,
    history::details_have_sizes_and_what_fits,
    following::changes_follow_their_cursor,
    following::no_change_is_missed_while_tasks_flow,
    following::other_texts_are_no_cursors,
    searching::a_search_selects_by_what_executed_a_task,
    searching::a_search_selects_by_time,
    searching::pages_of_a_search_end,
    usage::what_runs_and_when_a_rate_allows_more,
    reading::a_status_has_no_payload_and_leaves_out_a_large_result,
    reading::a_bad_page_token_is_refused,
    reading::counts_follow_every_transition,
    reading::a_purged_id_can_be_used_again,
    reading::watchers_see_every_state,
    reading::empty_calls_have_empty_answers,
    reading::concurrent_callers_lose_and_duplicate_nothing,
}

cases! {
    ORDERED:
    submitting::a_full_queue_refuses_and_recovers,
    leasing::leases_come_oldest_first_over_all_types,
    leasing::each_type_keeps_its_own_maximum,
    leasing::tasks_that_do_not_fit_are_passed_over,
    leasing::the_remaining_tasks_of_a_type_limit_a_lease,
    leasing::the_oldest_come_first_among_many_types,
    suspects::one_suspect_is_leased_at_a_time,
    routing::a_task_waits_for_its_node_or_label,
    routing::routes_of_one_type_share_its_maximum,
    routing::a_cluster_wide_limit_counts_running_tasks,
    priorities::each_priority_has_its_share_of_the_leases,
    priorities::turns_of_an_absent_priority_go_to_the_highest,
    priorities::a_priority_that_cannot_be_leased_gives_way,
    priorities::a_task_keeps_its_priority_when_it_is_tried_again,
    groups::groups_take_turns,
    groups::a_flood_of_a_group_delays_others_by_one_turn,
    groups::a_group_whose_tasks_are_not_due_has_no_turn,
    groups::a_task_keeps_its_group_when_it_is_tried_again,
    groups::a_group_without_tasks_left_is_out_of_the_round,
    groups::groups_take_turns_within_a_priority,
    groups::each_route_has_its_own_turns,
    actions::a_priority_can_be_changed_while_a_task_waits,
    unique::a_full_queue_answers_with_the_task_of_the_key,
    starting::a_late_task_gives_its_place_to_no_other,
    options::filters_select_by_group_and_tag,
    options::a_result_ttl_counts_instead_of_the_age,
    searching::a_pending_task_has_a_place,
    reading::pages_hold_every_task_once,
    reading::filters_select_by_state_and_type,
    reading::purge_deletes_ended_tasks,
    model::random_operations_match_the_model,
}

/// The cases of every queue, in no order that matters.
pub fn cases() -> impl Iterator<Item = Case> {
    CASES.iter().copied()
}

/// The cases that expect one order and exact limits over all tasks. A queue with several shards provides
/// them within a shard only.
pub fn ordered_cases() -> impl Iterator<Item = Case> {
    ORDERED.iter().copied()
}
