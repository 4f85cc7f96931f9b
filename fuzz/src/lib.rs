//! What the programs in `fuzz_targets` have in common.

pub use libfuzzer_sys;

use hostel_fuzz::Target;
use std::path::Path;

/// A libFuzzer program that runs a target, after a function that is called with each input where one is
/// given.
#[macro_export]
macro_rules! program {
    ($target:expr) => {
        $crate::program!($target, |_| {});
    };
    ($target:expr, $before:expr) => {
        $crate::libfuzzer_sys::fuzz_target!(init: $crate::write_seeds(&$target), |bytes: &[u8]| {
            $before(bytes);
            ($target.check)(bytes);
        });
    };
}

/// Writes the target's seeds where cargo-fuzz looks for its corpus.
pub fn write_seeds(target: &Target) {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    if let Err(error) = target.write_seeds(&corpora.join(target.name)) {
        panic!("the seeds of {} cannot be written: {error}", target.name);
    }
}
