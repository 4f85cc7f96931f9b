#![no_main]

#[path = "../../tests/conformance/redis_arguments.rs"]
mod redis_arguments;
#[path = "../../tests/support/servers.rs"]
mod servers;

/// Where `redis_arguments` looks for servers.
mod support {
    pub use crate::servers;
}

/// How long a server may take to start.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(120);

hostel_fuzz_targets::program!(redis_arguments::SCRIPT_ARGUMENTS);
