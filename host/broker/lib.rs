//! Messages between nodes, components and clients: the contract of a broker (`MessageBroker`) and its two
//! backends. Messages are stored nowhere, so a message is never the only copy of a task.

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod local;
mod message;
mod message_broker;
mod open;
mod redis;
mod subscription;
mod topics;

pub use self::redis::RedisBroker;
#[cfg(fuzzing)]
pub use self::redis::fuzz;
pub use error::Error;
pub use local::LocalBroker;
pub use message::{InvalidMessage, Message, ReplyTo, Topic};
pub use message_broker::{MessageBroker, Published};
pub use open::open;
pub use subscription::{Attachment, Inbox, Overflow, Received, Refusal, Subscription};
