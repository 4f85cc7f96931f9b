//! The long-lived parts of a node: how they are started and stopped together, the components of
//! plugins as supervised actors, and the routing of messages to them.

mod actor;
mod actor_loop;
mod actor_state;
mod components;
mod composite;
mod delivery_error;
mod first_scan;
mod guarded;
mod messenger;
mod node_inbox;
mod refusal_log;
mod registration;
mod restart_policy;
mod router;
mod start_error;
mod status;

pub use components::Components;
pub use composite::Composite;
pub use delivery_error::{DeliveryError, IdTaken, RequestError};
pub use first_scan::FirstScan;
pub use node_inbox::NodeInbox;
pub use registration::NodeRegistration;
pub use router::{ANSWER, OwnedId, Router};
pub use status::{State, Status};
