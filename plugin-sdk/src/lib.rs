//! Plugins for Hostel, written in Rust. Typed functions become task types of a node, and a struct
//! becomes a component.
//!
// This file has the tutorial and the list of public names; the code is in the modules. A plugin needs
// no WIT, no `unsafe` and no build script.
//! # A first plugin
//!
//! Install the target once, and create a library:
//!
//! ```text
//! rustup target add wasm32-wasip2
//! cargo new --lib shout && cd shout
//! ```
//!
//! `Cargo.toml`. The name, the version and the description of the package become those of the plugin.
//! The profile makes a small file, which loads faster:
//!
//! ```toml
//! [package]
//! name = "shout"
//! version = "0.1.0"
//! edition = "2024"
//! description = "Turns text into capitals"
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
//! `src/lib.rs`. A handler is a function from the payload to the result. It can take the [`Task`] as
//! a second argument, write log records, read its configuration, and fail; `?` converts any error:
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
//! // Text in, text out. A payload that is not UTF-8 fails before the handler is called.
//! fn shout(text: String) -> Result<String> {
//!     let mark = config::get("mark")?.unwrap_or("!".into());
//!     Ok(text.to_uppercase() + &mark)
//! }
//!
//! // JSON in, JSON out, and the task with its id, metadata, attempt and timeout.
//! fn bill(Json(order): Json<Order>, task: &Task) -> Result<Json<Receipt>> {
//!     log::info!("attempt {} of {}", task.attempt(), task.max_attempts());
//!     // `?` alone would retry the task, but no later attempt can parse this price.
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
//! Run the tests natively (the macro adds one that checks the plugin), build the file, and copy it
//! into the plugins directory of a node:
//!
//! ```text
//! cargo test
//! cargo build --release --target wasm32-wasip2
//! cp target/wasm32-wasip2/release/shout.wasm /path/to/plugins/
//! hostel submit shout --payload 'who is there' --wait
//! ```
//!
//! # A component
//!
//! Each task runs in a new instance. A [`Component`] is one instance that lives as long as its node
//! and keeps its state in `&mut self`. It handles one message at a time, is addressed by the plugin's
//! name, and can subscribe to topics. A plugin has task types, a component, or both:
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
//!     // Subscriptions besides the plugin's name.
//!     const TOPICS: &'static [&'static str] = &["door.opened"];
//!     // As for tasks: the types of the payload and of the answer.
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
//!         // Saved before the answer, because the instance may end at any time after it.
//!         self.store.set("count", Json(self.count + 1))?;
//!         self.count += 1;
//!         if self.count % 100 == 0 {
//!             messaging::publish("visitors.milestone", "count", Json(self.count))?;
//!         }
//!         Ok(format!("Welcome, {name}. You are number {}.", self.count))
//!     }
//! }
//!
//! // A task sends a request to the component, whose id is the name of the plugin.
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
//! // A crash loses the memory and keeps the store.
//! host.restart()?;
//! let answer = host.send_to("door.opened", "visit", "Cat")?;
//! assert_eq!(answer.as_deref(), Some(&b"Welcome, Cat. You are number 3."[..]));
//! assert_eq!(host.published(), []);
//! # plugin().check().expect("a good manifest");
//! # Ok(())
//! # }
//! ```
//!
//! An `Err` is sent as an answer, and the instance continues. If the error is permanent, a task that
//! sent the request fails permanently. A panic or a timeout ends the instance; the node creates a new
//! one with `start`, which handles the next message. A newer version of the plugin takes over between two
//! messages. It starts before the old one stops, unless there is no memory for both. Save state that must
//! survive with [`kv`] before `on_message` returns.
//!
//! `type Out = ()` never answers, and `Option<T>` answers with `Some`. Answers to a
//! [published](messaging::publish) message arrive at [`Component::on_answer`].
//!
//! # Progress and cancellation
//!
//! A handler that takes a while reports with [`Task::progress`] how far it has come. Clients see the latest
//! report, and `hostel submit --wait` shows it as a bar. A handler that asks with [`Task::is_cancelled`] now
//! and then has a moment to clean up when its task is cancelled; one that does not ask is interrupted at once.
//!
//! ```
//! use hostel_sdk::prelude::*;
//!
//! fn import(rows: String, task: &Task) -> Result<()> {
//!     let total = rows.lines().count() as u64;
//!     for (done, row) in (0..).zip(rows.lines()) {
//!         task.progress(done, total, "rows");
//!         if task.is_cancelled() {
//!             return Err(TaskError::retryable("cancelled"));
//!         }
//!         log::debug!("{row}");
//!     }
//!     Ok(())
//! }
//!
//! hostel_sdk::plugin! {
//!     task("import", import),
//! }
//!
//! # fn main() -> Result<()> {
//! let host = MockHost::new(plugin());
//! host.run("import", "tea\ncoffee")?;
//! assert_eq!(host.progress()[1].done, 1);
//!
//! let host = MockHost::new(plugin()).cancel_after(1);
//! assert!(host.run("import", "tea\ncoffee").is_err());
//! # plugin().check().expect("a good manifest");
//! # Ok(())
//! # }
//! ```
//!
//! # The sandbox
//!
//! Each attempt runs in an instance of its own, with freshly initialized statics. There are no files,
//! no environment variables and no network. A panic fails the attempt, which may be retried; its
//! message and location appear in the node's log and in the task's error. The node interrupts an
//! attempt that takes too long, so a handler does not have to watch the time.
//!
//! The output of `log`, `tracing` and `println!` goes to the node's log. A span of `tracing` that has
//! fields is logged once; entering and leaving it is not logged.
//!
//! # Payloads and results
//!
//! | type | payload | result |
//! |---|---|---|
//! | `Vec<u8>` | any bytes, not copied | any bytes, not copied |
//! | `String` | UTF-8, otherwise a permanent error | UTF-8 |
//! | [`Json<T>`] | JSON, otherwise a permanent error | JSON without white space |
//! | `()` | empty, otherwise a permanent error | empty |
//!
//! Other types can implement [`Input`] and [`Output`].
//!
//! # Other languages
//!
//! The contract between a plugin and a node is `wit/hostel.wit` in this package. Any language that
//! compiles to WebAssembly components can implement it.

/// Tests the examples of the readme.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

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

// Re-exported so that a plugin needs no dependency to write log records and to build JSON.
pub use {log, serde_json, tracing};

/// The names that a plugin uses: `use hostel_sdk::prelude::*;`.
pub mod prelude {
    #[cfg(not(target_family = "wasm"))]
    pub use crate::mock::MockHost;
    pub use crate::{
        Component, Json, Message, Result, ResultExt, Task, TaskError, config, kv, log, messaging,
        task, tracing,
    };
    pub use std::time::Duration;
}

/// Names for the expansion of [`plugin!`]; not part of the public interface.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_family = "wasm")]
    pub use crate::guest::{PluginSource, describes, handles_tasks, is_component};
}
