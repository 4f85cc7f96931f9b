//! What a panic says, handed to the node whole: a record of level critical is the reason that the node
//! gives for the failure that follows. The standard hook writes lines to stderr, of which a node
//! could not know where the message ends.

use super::describes::wasi::logging::logging;
use std::panic::{PanicHookInfo, set_hook};
use std::sync::Once;

/// Called before any code of the author's runs. A hook that the author sets later stays.
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
