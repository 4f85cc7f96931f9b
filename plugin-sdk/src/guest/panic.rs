//! The panic hook: logs the whole message as one record of level critical, which the node reports as
//! the reason of the failure. The standard hook writes lines to stderr, where the node could not tell
//! where the message ends.

use super::describes::wasi::logging::logging;
use std::panic::{PanicHookInfo, set_hook};
use std::sync::Once;

/// Installs the hook. Called before any code of the plugin runs, so that a hook that the plugin sets
/// replaces it.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| set_hook(Box::new(report)));
}

fn report(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("without a message");
    let text = match panic.location() {
        Some(location) => format!("panicked at {location}: {message}"),
        None => format!("panicked: {message}"),
    };
    logging::log(logging::Level::Critical, "panic", &text);
}
