//! The suites of discovery and broker, run against the engines of one machine.

use super::{broker, discovery};
use crate::support;
use hostel::{broker::LocalBroker, config::Config, discovery::LocalDiscovery};
use libtest_mimic::Trial;
use std::sync::Arc;

pub fn trials() -> Vec<Trial> {
    let brokers = broker::CASES.iter().map(|&(name, case)| {
        support::trial_needing(&format!("broker::local::{name}"), true, move || {
            case(Arc::new(LocalBroker::default()))
        })
    });
    let discoveries = discovery::CASES.iter().map(|&(name, case)| {
        support::trial_needing(&format!("discovery::local::{name}"), true, move || {
            case(Arc::new(LocalDiscovery::new(&Config::default().limits)))
        })
    });
    brokers.chain(discoveries).collect()
}
