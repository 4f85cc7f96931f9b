//! The SDK as a plugin author uses it: errors of the compiler, interfaces of the built file, and the
//! published package.

mod errors;
mod interfaces;
mod package;

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    [errors::trials(), interfaces::trials(), package::trials()]
        .into_iter()
        .flatten()
        .collect()
}
