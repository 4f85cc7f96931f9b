//! The sandbox's side: the generated bindings. Built for wasm only. What goes out of the plugin is in
//! `imports.rs` and `kv.rs`, what comes in is in `exports.rs`; none of it holds decisions, since
//! native tests do not come through here.

mod exports;
mod imports;
pub(crate) mod kv;
mod panic;

pub(crate) use imports::{config, log, messaging};

use crate::{Plugin, logger};
use std::time::Duration;

/// What has to be in place before any code of the author's runs.
fn prepare() {
    logger::install();
    panic::install();
}

/// Where the exports get the plugin from: `plugin!` implements it in the author's crate.
pub trait Source {
    fn plugin() -> Plugin;
}

// A world for each thing that a plugin can be. The section that tells of a world is part of its
// `export!`, in the author's own crate: a plugin exports what `plugin!` calls that for and nothing
// else. The imports belong to the world that every plugin takes, because the linker leaves out what
// nobody refers to, and a section is referred to by nobody; of the imports those that are called
// are kept.

#[allow(missing_docs, unsafe_op_in_unsafe_fn, clippy::all)]
pub mod describes {
    wit_bindgen::generate!({
        world: "describes",
        path: "../wit",
        pub_export_macro: true,
        generate_all,
    });
}

#[allow(missing_docs, unsafe_op_in_unsafe_fn, clippy::all)]
pub mod handles_tasks {
    wit_bindgen::generate!({ world: "handles-tasks", path: "../wit", pub_export_macro: true });
}

#[allow(missing_docs, unsafe_op_in_unsafe_fn, clippy::all)]
pub mod is_component {
    wit_bindgen::generate!({ world: "is-component", path: "../wit", pub_export_macro: true });
}

/// The contract counts in whole milliseconds; what is too long for it is for ever.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
