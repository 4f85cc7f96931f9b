//! The conformance suites of discovery and broker, run against the backends of a single node.

use crate::support;
use hostel::{
    broker::{self, LocalBroker, MessageBroker},
    config::Config,
    discovery::{self, LocalDiscovery, ServiceDiscovery},
};
use libtest_mimic::Trial;
use std::sync::Arc;

pub fn trials() -> Vec<Trial> {
    let brokers = broker::conformance::cases().map(|case| {
        let name = format!("broker::local::{}", case.name());
        support::trial_needing(&name, true, async move || case.run(open_broker).await)
    });
    let discoveries = discovery::conformance::cases().map(|case| {
        let name = format!("discovery::local::{}", case.name());
        support::trial_needing(&name, true, async move || case.run(open_discovery).await)
    });
    brokers.chain(discoveries).collect()
}

async fn open_broker() -> Arc<dyn MessageBroker> {
    Arc::new(LocalBroker::default())
}

async fn open_discovery() -> Arc<dyn ServiceDiscovery> {
    Arc::new(LocalDiscovery::new(&Config::default().limits))
}
