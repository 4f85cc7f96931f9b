//! The scripts, each with what all of them begin with. What they do stands in `script/*.lua`; the keys
//! and fields they share, in `script/common.lua`. Calls nothing.

use redis::Script;

macro_rules! scripts {
    ($($name:ident: $runs:ident,)*) => {
        pub(super) struct Scripts {
            $(pub $name: Script,)*
        }

        impl Default for Scripts {
            fn default() -> Self {
                Self {
                    $($name: Script::new(concat!(
                        $runs!(),
                        include_str!("script/common.lua"),
                        include_str!(concat!("script/", stringify!($name), ".lua")),
                    )),)*
                }
            }
        }
    };
}

/// Runs also while the memory of Redis is full: it makes room, or is needed for that.
macro_rules! always {
    () => {
        "#!lua flags=allow-oom\n"
    };
}

/// The same, on a replica too, for it changes nothing.
macro_rules! reading {
    () => {
        "#!lua flags=no-writes\n"
    };
}

/// Redis refuses what it writes while its memory is full.
macro_rules! with_room {
    () => {
        ""
    };
}

scripts![
    open: always,
    submit: with_room,
    want: always,
    lease: always,
    renew: always,
    finish: always,
    expired: always,
    cancel: always,
    requeue: always,
    purge: always,
    mend: always,
    due: reading,
    list: reading,
];

#[cfg(test)]
mod tests {
    use hostel_task::SUSPECT_AFTER;

    #[test]
    fn scripts_and_policy_agree_on_suspects() {
        let common = include_str!("script/common.lua");
        let said = format!("local SUSPECT_AFTER = {SUSPECT_AFTER}\n");
        assert!(common.contains(&said), "{said}");
    }
}
