//! The smallest useful plugin: one task type, declared with its defaults.

use hostel_sdk::prelude::*;

fn shout(text: String) -> String {
    text.to_uppercase()
}

hostel_sdk::plugin! {
    task("shout", shout)
        .description("Text in capitals")
        .timeout(Duration::from_secs(10))
        .attempts(3),
}
