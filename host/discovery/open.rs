//! Selects the discovery that the configuration names.

use super::{
    error::Error, etcd::EtcdServiceDiscovery, local::LocalDiscovery,
    service_discovery::ServiceDiscovery,
};
use hostel_runtime::health::Health;
use std::sync::Arc;

/// Creates the discovery that the configuration names. It connects at its first use, and reports its
/// faults to `health`. The data directory must exist.
pub fn open(
    config: &hostel_config::Config,
    health: &Health,
) -> Result<Arc<dyn ServiceDiscovery>, Error> {
    Ok(match &config.discovery {
        hostel_config::Discovery::Local => Arc::new(LocalDiscovery::new(&config.limits)),
        hostel_config::Discovery::Etcd(etcd) => {
            let discovery =
                EtcdServiceDiscovery::open_reporting(etcd, &config.limits, health.clone())?;
            Arc::new(discovery.with_data_dir(&config.node.data_dir)?)
        }
    })
}
