//! The health of a node: each part reports and clears its faults here, and the gRPC health service, the log
//! and `hostel nodes health` read them. `background` supervises the background tasks, whose unexpected end
//! is a fault as well.

mod background;
mod part;
mod registry;
mod report;

pub use background::{Background, BackgroundThread};
pub use part::{Fault, Faults, Part, Severity};
pub use report::Health;
