//! Guests: compiling, checking, keeping and running WebAssembly plugins. The only module that names
//! wasmtime. Knows nothing of queues, nodes or gRPC; what a guest may reach upward is a trait here
//! that `node.rs` wires.
