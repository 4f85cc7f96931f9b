//! The list of cases.

use super::{contract, helpers::Store, model};
use std::pin::Pin;

type Run = fn(Store) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One sentence of the contract.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    name: &'static str,
    run: Run,
}

impl Case {
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Opens a store, runs the case on it, and closes it.
    pub async fn run<F>(&self, open: impl FnOnce() -> F)
    where
        F: Future<Output = Store>,
    {
        let store = open().await;
        (self.run)(store.clone()).await;
        store.close().await;
    }
}

macro_rules! cases {
    ($($module:ident::$name:ident,)*) => {
        const CASES: &[Case] = &[$(Case {
            name: stringify!($name),
            run: |store| Box::pin($module::$name(store)),
        }),*];
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
    contract::a_batch_is_all_or_nothing,
    contract::empty_calls_have_empty_answers,
    model::random_operations_match_the_model,
}

/// Returns the cases, in no order that matters.
pub fn cases() -> impl Iterator<Item = Case> {
    CASES.iter().copied()
}
