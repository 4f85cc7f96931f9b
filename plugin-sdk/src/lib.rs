//! What a plugin author depends on: typed functions become task types of a Hostel node, and a struct
//! becomes a component of it.
//!
//! This file holds the tutorial and the list of public names; the code is in the modules. Nothing
//! here or below may need WIT, `unsafe` or a build script of an author.
//!
//! # A plugin from nothing
//!
//! Have the target once, and make a library:
//!
//! ```text
//! rustup target add wasm32-wasip2
//! cargo new --lib shout && cd shout
//! ```
//!
//! `Cargo.toml`. The name, the version and the description of the package are those of the plugin;
//! the profile makes a small file, which loads faster:
//!
//! ```toml
//! [package]
//! name = "shout"
//! version = "0.1.0"
//! edition = "2024"
//! description = "Says it louder"
//!
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! hostel-sdk = { path = "../hostel/plugin-sdk" }
//! serde = { version = "1", features = ["derive"] }   # only where you derive
//!
//! [profile.release]
//! lto = true
//! codegen-units = 1
//! strip = true
//! ```
//!
//! `src/lib.rs`. A handler is a function from the payload to the result. It may take the [`Task`]
//! as a second argument, log, read its configuration, and fail; `?` works on any error:
//!
//! ```
//! use hostel_sdk::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     item: String,
//!     price: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Receipt {
//!     line: String,
//!     cents: u64,
//! }
//!
//! // Text in, text out. Bytes that are not UTF-8 never get here.
//! fn shout(text: String) -> Result<String> {
//!     let mark = config::get("mark")?.unwrap_or("!".into());
//!     Ok(text.to_uppercase() + &mark)
//! }
//!
//! // JSON in, JSON out, and the task: its id, metadata, attempt and timeout.
//! fn bill(Json(order): Json<Order>, task: &Task) -> Result<Json<Receipt>> {
//!     log::info!("attempt {} of {}", task.attempt(), task.max_attempts());
//!     // With `?` alone the task would be tried again; no later attempt can read this price.
//!     let euros: f64 = order.price.parse().permanent()?;
//!     let discount = task.metadata_as::<f64>("discount")?.unwrap_or(0.0);
//!     let cents = (euros * (1.0 - discount) * 100.0).round() as u64;
//!     Ok(Json(Receipt { line: order.item, cents }))
//! }
//!
//! hostel_sdk::plugin! {
//!     task("shout", shout).description("Text in capitals"),
//!     task("bill", bill)
//!         .description("Prices an order")
//!         .timeout(Duration::from_secs(10))
//!         .attempts(3)
//!         .backoff(Duration::from_secs(1), Duration::from_secs(60))
//!         .concurrency(4),
//! }
//!
//! // In your file these are `#[test]` functions in a `mod tests`.
//! # fn main() -> Result<()> {
//! let host = MockHost::new(plugin()).config("mark", "?").metadata("discount", "0.5");
//! assert_eq!(host.run("shout", "who is there")?, b"WHO IS THERE?");
//!
//! let receipt = host.run("bill", r#"{"item": "tea", "price": "3.00"}"#)?;
//! assert_eq!(receipt, br#"{"line":"tea","cents":150}"#);
//! assert_eq!(host.logs()[0].message, "attempt 1 of 5");
//!
//! let error = host.run("bill", r#"{"item": "tea", "price": "free"}"#).unwrap_err();
//! assert!(error.is_permanent());
//! assert_eq!(error.message(), "invalid float literal");
//! # plugin().check().expect("a good manifest");
//! # Ok(())
//! # }
//! ```
//!
//! Test natively (the macro adds a test of the manifest to yours), build, drop the file in:
//!
//! ```text
//! cargo test
//! cargo build --release --target wasm32-wasip2
//! cp target/wasm32-wasip2/release/shout.wasm /where/the/node/looks/plugins/
//! hostel submit shout --payload 'who is there' --wait
//! ```
//!
//! # A component
//!
//! A task is run and forgotten. A [`Component`] lives as long as its node: one instance, with its
//! state in `&mut self`, that handles one message after the other. It is addressed by the plugin's
//! name, and listens to topics besides. A plugin has tasks, a component, or both:
//!
//! ```
//! use hostel_sdk::prelude::*;
//!
//! struct Visitors {
//!     count: u64,
//!     store: kv::Store,
//! }
//!
//! impl Component for Visitors {
//!     // Besides the plugin's name.
//!     const TOPICS: &'static [&'static str] = &["door.opened"];
//!     // As for tasks: a name comes in, a text goes back.
//!     type In = String;
//!     type Out = String;
//!
//!     fn start() -> Result<Self> {
//!         let store = kv::open("visitors")?;
//!         let Json(count) = store.get("count")?.unwrap_or_default();
//!         Ok(Self { count, store })
//!     }
//!
//!     fn on_message(&mut self, name: String, message: &Message) -> Result<String> {
//!         tracing::info!(sender = message.sender(), "{name} is here");
//!         // Saved before it is answered: the instance may end at any time after that.
//!         self.store.set("count", Json(self.count + 1))?;
//!         self.count += 1;
//!         if self.count % 100 == 0 {
//!             messaging::publish("visitors.milestone", "count", Json(self.count))?;
//!         }
//!         Ok(format!("Welcome, {name}. You are number {}.", self.count))
//!     }
//! }
//!
//! // A task asks the component. In a node that runs the plugin `visitors`, that is its name.
//! fn greet(name: String, task: &Task) -> Result<String> {
//!     let visitors = env!("CARGO_PKG_NAME");
//!     Ok(messaging::request(visitors, "visit", name, task.timeout() / 2)?)
//! }
//!
//! hostel_sdk::plugin! {
//!     component = Visitors,
//!     task("greet", greet),
//! }
//!
//! # fn main() -> Result<()> {
//! let host = MockHost::new(plugin());
//! let answer = host.send("visit", "Ann")?;
//! assert_eq!(answer.as_deref(), Some(&b"Welcome, Ann. You are number 1."[..]));
//! assert_eq!(host.run("greet", "Bob")?, b"Welcome, Bob. You are number 2.");
//!
//! // What a crash leaves is what was saved.
//! host.restart()?;
//! let answer = host.send_to("door.opened", "visit", "Cat")?;
//! assert_eq!(answer.as_deref(), Some(&b"Welcome, Cat. You are number 3."[..]));
//! assert_eq!(host.published(), []);
//! # plugin().check().expect("a good manifest");
//! # Ok(())
//! # }
//! ```
//!
//! An `Err` is an answer that says what went wrong, and the instance goes on; a task that asked fails
//! for good with one that is permanent. A panic, or taking too
//! long, ends the instance; the node makes it anew with `start`, and the next message is handled by
//! that. When a newer version of the plugin is put in place, it starts before the old one stops, and
//! takes over between two messages. What must outlive all this is saved with [`kv`] before
//! `on_message` returns.
//!
//! `type Out = ()` never answers, and `Option<T>` sometimes does. What others answer to a message
//! that was [published](messaging::publish) arrives at [`Component::on_answer`].
//!
//! # What holds in the sandbox
//!
//! Every attempt runs in an instance of its own: statics start fresh and nothing is kept from one
//! task to the next. There are no files, no environment and no network. A panic ends the attempt,
//! which may then be tried again; its message and place go to the node's log and to the task's error. A node that is told to
//! stop an attempt stops it between two instructions, so a handler need not watch the time.
//!
//! What is said through `log`, `tracing` or `println!` arrives in the node's log. (A span of `tracing`
//! says its name once, if it has fields; entering and leaving it is not told.)
//!
//! # What goes in and out
//!
//! | in Rust | in: the payload | out: the result |
//! |---|---|---|
//! | `Vec<u8>` | as it is, not copied | as it is, not copied |
//! | `String` | UTF-8, or a permanent error | UTF-8 |
//! | [`Json<T>`] | JSON, or a permanent error | JSON without white space |
//! | `()` | empty, or a permanent error | empty |
//!
//! Types of your own implement [`Input`] and [`Output`].

mod component;
pub mod config;
mod error;
mod handler;
pub mod kv;
mod macros;
mod message;
pub mod messaging;
#[cfg(not(target_family = "wasm"))]
pub mod mock;
mod payload;
mod plugin;
mod task;
mod task_type;

#[cfg(target_family = "wasm")]
mod guest;
mod logger;

pub use component::Component;
pub use error::{Result, ResultExt, TaskError};
pub use handler::Handler;
pub use message::Message;
pub use payload::{Answer, Input, Json, Output};
pub use plugin::Plugin;
pub use task::Task;
pub use task_type::{TaskType, task};

// Re-exported so that a plugin logs, and builds JSON by hand, without a dependency of its own.
pub use {log, serde_json, tracing};

/// What a plugin file imports: `use hostel_sdk::prelude::*;`.
pub mod prelude {
    #[cfg(not(target_family = "wasm"))]
    pub use crate::mock::MockHost;
    pub use crate::{
        Component, Json, Message, Result, ResultExt, Task, TaskError, config, kv, log, messaging,
        task, tracing,
    };
    pub use std::time::Duration;
}

/// What [`plugin!`] expands to needs these; nobody else does.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_family = "wasm")]
    pub use crate::guest::{Source, describes, handles_tasks, is_component};
}
