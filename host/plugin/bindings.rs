//! The plugin contract of `wit/hostel.wit` as Rust types. Generated; nothing else lives here.

wasmtime::component::bindgen!({
    path: "wit",
    world: "plugin",
    // Payloads are lent to the guest, not copied for it.
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: {
        "hostel:plugin/messaging": async,
        "wasi:keyvalue/store": async,
        "wasi:keyvalue/atomics": async,
        "wasi:keyvalue/batch": async,
    },
    exports: { default: async },
});

pub use exports::hostel::plugin::{component, manifest, message_handler, task_handler};
pub use hostel::plugin::messaging;
pub use wasi::logging::logging::Level;
