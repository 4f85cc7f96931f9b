//! The logger of the `log` crate: passes each record to the node or, in native tests, to the mock
//! host, which filters them. Events of `tracing` arrive as records.

use log::{LevelFilter, Log, Metadata, Record};
use std::borrow::Cow;

struct Logger;

impl Log for Logger {
    /// `tracing` also logs when a span is entered, left and closed; these records are dropped. One
    /// record remains for each span with fields, which has their values.
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

/// Installs the logger. Called before any code of the plugin runs. An already installed logger, for
/// example one of a native test, is kept.
pub(crate) fn install() {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
}
