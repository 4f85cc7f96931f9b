//! The list of cases.

use super::{contract, helpers::Store, model};

/// One rule of the contract. It closes the store that it ran on.
pub type Case = hostel_runtime::conformance::Case<Store>;

macro_rules! cases {
    ($($module:ident::$name:ident,)*) => {
        const CASES: &[Case] = &[$(Case::new(
            stringify!($name),
            |store| Box::pin(async move {
                $module::$name(store.clone()).await;
                store.close().await;
            }),
        )),*];
    };
}

cases! {
    contract::values_come_back_byte_for_byte,
    contract::changes_are_applied_in_their_order,
    contract::plugins_and_stores_are_separate,
    contract::numbers_are_text,
    contract::concurrent_increments_are_all_counted,
    contract::pages_hold_every_key_once,
    contract::every_limit_is_enforced_and_names_its_setting,
    contract::names_of_stores_are_charged,
    contract::a_batch_is_all_or_nothing,
    contract::empty_calls_have_empty_answers,
    model::random_operations_match_the_model,
}

/// Returns the cases, in no order that matters.
pub fn cases() -> impl Iterator<Item = Case> {
    CASES.iter().copied()
}
