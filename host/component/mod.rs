//! The living parts of a node, what holds them together, and how messages find them.

mod announcer;
mod components;
mod composite;
mod failures;
mod first_scan;
mod life;
mod messenger;
mod reception;
mod refusal_log;
mod router;
mod status;
mod supervised;

pub use announcer::Announcer;
pub use components::Components;
pub use composite::Composite;
pub use first_scan::FirstScan;
pub use reception::Reception;
pub use router::{ANSWER, Residence, Router, Taken, Unanswered, Undelivered};
pub use status::{State, Status};
