//! Service discovery: the nodes of a cluster with what they can run, and the services that clients
//! register. The contract (`ServiceDiscovery`) and its two backends.

mod address;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod etcd;
mod local;
mod open;
mod record;
mod service_discovery;

pub use address::advertised_address;
pub use error::{Error, NODE_SERVICE};
pub use etcd::EtcdServiceDiscovery;
#[cfg(fuzzing)]
pub use etcd::fuzz;
pub use local::LocalDiscovery;
pub use open::open;
pub use record::{MAX_SERVICE_BYTES, MAX_TTL, MIN_TTL, NodeRecord, PluginRecord, ServiceInfo};
pub use service_discovery::ServiceDiscovery;
