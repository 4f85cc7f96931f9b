//! The `log` facade's logger: hands each record to whatever hosts the plugin. What is kept is for
//! the host to decide. Events of `tracing` come here too, as records.

use log::{LevelFilter, Log, Metadata, Record};
use std::borrow::Cow;

struct Logger;

impl Log for Logger {
    /// `tracing` also tells when a span is entered, left and closed; nobody asked for that. One line
    /// remains for each span that has fields, with their values.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !metadata.target().starts_with("tracing::span")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = match record.args().as_str() {
            Some(message) => Cow::Borrowed(message),
            None => Cow::Owned(record.args().to_string()),
        };
        #[cfg(target_family = "wasm")]
        crate::guest::log(record.level(), record.target(), &message);
        #[cfg(not(target_family = "wasm"))]
        crate::mock::node::capture(record.level(), record.target(), message.into_owned());
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
