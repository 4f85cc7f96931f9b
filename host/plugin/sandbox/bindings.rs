//! The plugin contract of `wit/hostel.wit` as Rust types, generated, and the error type that one of
//! its interfaces needs.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "plugin",
    // Payloads are lent to the guest, not copied for it.
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: {
        "hostel:plugin/messaging": async,
        "wasi:keyvalue": async | trappable,
    },
    exports: { default: async },
    trappable_error_type: { "wasi:keyvalue/store.error" => KeyValueError },
    with: { "wasi:keyvalue/store.bucket": hostel_keyvalue::Bucket },
});

pub use self::hostel::plugin::messaging;
pub use exports::hostel::plugin::{component, manifest, message_handler, task_handler};
pub use wasi::{keyvalue, logging::logging::Level};

/// Why a call of `wasi:keyvalue` returns no value.
pub enum KeyValueError {
    /// The error that the guest receives.
    Returned(keyvalue::store::Error),
    /// The guest broke a rule of handles.
    Trap(wasmtime::Error),
}
