//! The Lua scripts (`scripts/*.lua`). Each begins with `scripts/shared/base.lua` and with the other shared
//! parts that it needs. `layout.md` documents the keys and records.

use redis::Script;
use std::time::Duration;

/// Converts a time to milliseconds for a script. The result is small enough to be added to the clock in a
/// double.
pub(super) fn ms(time: Duration) -> u64 {
    const MAX: u64 = 1 << 41;
    u64::try_from(time.as_millis()).unwrap_or(MAX).min(MAX)
}

/// Declares the scripts, each with the macro that gives its first line and the shared parts before it.
macro_rules! scripts {
    ($($name:ident: $runs:ident [$($part:ident)*],)*) => {
        /// Every script of the queue.
        pub(super) struct Scripts {
            $(pub $name: Script,)*
        }

        impl Default for Scripts {
            fn default() -> Self {
                Self {
                    $($name: Script::new(concat!(
                        $runs!(),
                        include_str!("scripts/shared/base.lua"),
                        $($part!(),)*
                        include_str!(concat!("scripts/", stringify!($name), ".lua")),
                    )),)*
                }
            }
        }
    };
}

/// What only some calls need.
macro_rules! library {
    () => {
        include_str!("scripts/shared/library.lua")
    };
}

/// Whether the memory has room for new tasks.
macro_rules! memory {
    () => {
        include_str!("scripts/shared/memory.lua")
    };
}

/// Rates of task types and of their groups.
macro_rules! rates {
    () => {
        include_str!("scripts/shared/rates.lua")
    };
}

/// What is stored of a task.
macro_rules! reading_tasks {
    () => {
        include_str!("scripts/shared/reading.lua")
    };
}

/// Which events are kept.
macro_rules! trimming {
    () => {
        include_str!("scripts/shared/trimming.lua")
    };
}

/// A lease request, from the 10th argument on.
macro_rules! request_at_10 {
    () => {
        concat!(
            "local REQUEST = 10\n",
            include_str!("scripts/shared/request.lua")
        )
    };
}

/// A lease request, from the 3rd argument on.
macro_rules! request_at_3 {
    () => {
        concat!(
            "local REQUEST = 3\n",
            include_str!("scripts/shared/request.lua")
        )
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
    open: always [],
    migrate: always [library],
    submit: with_room [library memory],
    key_reserve: with_room [],
    key_settle: always [],
    key_due: always [],
    key_holders: always [library],
    register_types: always [library],
    lease: always [library request_at_10],
    renew: always [],
    finish: always [library],
    expired: always [library trimming],
    expire: always [library],
    act: always [library],
    purge: always [library],
    reconcile: always [library],
    compare: reading [library],
    next_due: reading [request_at_3],
    counts: reading [library],
    list: reading [library reading_tasks],
    read: reading [library reading_tasks],
    permits_take: always [rates],
    permits_give: always [rates],
    running: reading [],
    waiting_groups: reading [library],
    pending: reading [],
    place: reading [library],
    changes: always [],
];

#[cfg(test)]
mod tests {
    use hostel_task::{PERMIT, SUSPECT_AFTER};

    #[test]
    fn scripts_and_policy_agree_on_the_unit_of_rates() {
        let rates = include_str!("scripts/shared/rates.lua");
        assert!(rates.contains(&format!("local PERMIT = {PERMIT}\n")));
    }

    #[test]
    fn scripts_and_policy_agree_on_suspects() {
        let library = include_str!("scripts/shared/library.lua");
        let line = format!("local SUSPECT_AFTER = {SUSPECT_AFTER}\n");
        assert!(library.contains(&line), "{line}");
    }
}
