//! The Lua scripts (`scripts/*.lua`). Each begins with `scripts/common.lua`, which documents the keys and
//! fields.

use redis::Script;
use std::time::Duration;

/// Converts a time to milliseconds for a script. The result is small enough to be added to the clock in a
/// double.
pub(super) fn ms(time: Duration) -> u64 {
    const MAX: u64 = 1 << 41;
    u64::try_from(time.as_millis()).unwrap_or(MAX).min(MAX)
}

/// Declares the scripts, each with the macro that gives its first line.
macro_rules! scripts {
    ($($name:ident: $runs:ident,)*) => {
        /// Every script of the queue.
        pub(super) struct Scripts {
            $(pub $name: Script,)*
        }

        impl Default for Scripts {
            fn default() -> Self {
                Self {
                    $($name: Script::new(concat!(
                        $runs!(),
                        include_str!("scripts/common.lua"),
                        include_str!(concat!("scripts/", stringify!($name), ".lua")),
                    )),)*
                }
            }
        }
    };
}

/// The script also runs while the memory of Redis is full: it makes room, or is needed for that.
macro_rules! always {
    () => {
        "#!lua flags=allow-oom\n"
    };
}

/// The script changes nothing, so it also runs on a replica and while the memory is full.
macro_rules! reading {
    () => {
        "#!lua flags=no-writes\n"
    };
}

/// Redis refuses the script's writes while its memory is full.
macro_rules! with_room {
    () => {
        ""
    };
}

scripts![
    open: always,
    submit: with_room,
    key_reserve: with_room,
    key_settle: always,
    key_due: always,
    key_holders: always,
    register_types: always,
    lease: always,
    renew: always,
    finish: always,
    expired: always,
    expire: always,
    cancel: always,
    requeue: always,
    purge: always,
    reconcile: always,
    compare: reading,
    next_due: reading,
    list: reading,
];

#[cfg(test)]
mod tests {
    use hostel_task::SUSPECT_AFTER;

    #[test]
    fn scripts_and_policy_agree_on_suspects() {
        let common = include_str!("scripts/common.lua");
        let line = format!("local SUSPECT_AFTER = {SUSPECT_AFTER}\n");
        assert!(common.contains(&line), "{line}");
    }
}
