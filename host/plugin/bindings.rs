//! The plugin contract of `wit/hostel.wit` as Rust types. Generated; nothing else lives here.

wasmtime::component::bindgen!({
    path: "wit",
    world: "plugin",
    // Payloads are lent to the guest, not copied for it.
    ownership: Borrowing { duplicate_if_necessary: true },
    exports: { default: async },
});

pub use exports::hostel::plugin::{manifest, task_handler};
pub use wasi::logging::logging::Level;
