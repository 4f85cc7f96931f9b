//! The conformance suite of the key-value backends. A backend outside this repository runs it in its own
//! tests:
//!
//! ```ignore
//! for case in conformance::cases() {
//!     case.run(|| async { Arc::new(open_a_store(limits()).await) as Arc<dyn KeyValue> }).await;
//! }
//! ```
//!
//! The store under test is opened with `limits()`. Each case uses plugins of its own, so that all cases
//! may share one store. A case panics where the store breaks the contract.

mod case;
mod contract;
mod helpers;
mod model;

pub use case::{Case, cases};
pub use helpers::limits;
