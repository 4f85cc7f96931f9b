//! Selects the broker that the configuration names.

use super::{RedisBroker, error::Error, local::LocalBroker, message_broker::MessageBroker};
use hostel_runtime::health::Health;
use std::sync::Arc;

/// Creates the broker that the configuration names. It connects at its first use, and reports its faults
/// to `health`.
pub fn open(
    config: &hostel_config::Config,
    health: &Health,
) -> Result<Arc<dyn MessageBroker>, Error> {
    Ok(match &config.broker {
        hostel_config::Broker::Local => Arc::new(LocalBroker::default()),
        hostel_config::Broker::Redis(redis) => {
            Arc::new(RedisBroker::open_reporting(redis, health.clone())?)
        }
    })
}
