//! The map of the house. Each floor uses only its own folder and the floors below it; `tests` read
//! the imports and fail when a floor is broken.
//!
//! | floor | modules | what lives there |
//! |---|---|---|
//! | 0 | [`task`], [`lifecycle`], [`config`] | pure values and decisions, the `Component` trait, settings |
//! | 1 | [`queue`], [`discovery`], [`broker`], [`plugin`] | engines behind traits, and the guests |

pub mod broker;
pub mod component;
pub mod config;
pub mod discovery;
pub mod lifecycle;
pub mod plugin;
pub mod queue;
pub mod scheduler;
pub mod task;
pub mod proto;
