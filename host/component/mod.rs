//! The living parts of a node, and what holds them together.

mod announcer;
mod composite;

pub use announcer::Announcer;
pub use composite::Composite;
