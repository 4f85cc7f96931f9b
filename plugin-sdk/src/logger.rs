//! The `log` facade's logger: hands each record to whatever hosts the plugin. What is kept is for
//! the host to decide.

use log::{LevelFilter, Log, Metadata, Record};

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        #[cfg(target_family = "wasm")]
        crate::guest::log(record);
        #[cfg(not(target_family = "wasm"))]
        crate::mock::capture(record);
    }

    fn flush(&self) {}
}

/// Called before any code of the author's runs. Where a logger is already installed, as a native
/// test may have done, that one stays.
pub(crate) fn install() {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
}
