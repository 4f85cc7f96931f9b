//! The limits of one compile process.

use hostel_config as config;
use std::time::Duration;

/// What one compile process may use.
#[derive(Debug, Clone)]
pub struct Limits {
    pub max_memory_bytes: u64,
    pub timeout: Duration,
    /// Processor time of each thread. As long as `timeout`, so that the kernel ends the process if
    /// the node cannot.
    pub max_cpu_seconds: u64,
}

impl Limits {
    pub fn new(plugins: &config::Plugins) -> Self {
        Self {
            max_memory_bytes: plugins.max_compile_memory_bytes,
            timeout: plugins.compile_timeout,
            max_cpu_seconds: plugins.compile_timeout.as_millis().div_ceil(1000) as u64,
        }
    }
}
