//! The generated bindings, which are built for wasm only: calls to the node in `imports.rs` and
//! `kv.rs`, calls from the node in `exports.rs`. They contain no decisions, because native tests do
//! not run them.

mod exports;
mod imports;
pub(crate) mod kv;
mod panic;

pub(crate) use imports::{config, log, messaging, tasks};

use crate::{Plugin, logger};
use std::time::Duration;

/// Installs the logger and the panic hook. Called before any code of the plugin runs.
fn prepare() {
    logger::install();
    panic::install();
}

/// Provides the plugin to the exports. `plugin!` implements it in the plugin's crate.
pub trait PluginSource {
    /// Returns what `plugin!` declares.
    fn plugin() -> Plugin;
}

// One world for each set of interfaces that a plugin can implement. The custom section that describes
// a world is part of its `export!` in the plugin's crate, so a plugin exports only the worlds that
// `plugin!` names. All imports belong to `describes`, the world that every plugin uses: nothing refers
// to a custom section, so the linker would drop it from a library. Imports that are not called are
// removed.

#[allow(missing_docs, unsafe_op_in_unsafe_fn, clippy::all)]
pub mod describes {
    wit_bindgen::generate!({
        world: "describes",
        path: "wit",
        pub_export_macro: true,
        generate_all,
    });
}

#[allow(missing_docs, unsafe_op_in_unsafe_fn, clippy::all)]
pub mod handles_tasks {
    wit_bindgen::generate!({ world: "handles-tasks", path: "wit", pub_export_macro: true });
}

#[allow(missing_docs, unsafe_op_in_unsafe_fn, clippy::all)]
pub mod is_component {
    wit_bindgen::generate!({ world: "is-component", path: "wit", pub_export_macro: true });
}

/// Converts a time to the whole milliseconds of the contract. A time that is too long becomes the
/// largest number.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
