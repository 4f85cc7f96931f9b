//! The scripts, each with what all of them begin with. What they do stands in `script/*.lua`; the keys
//! and fields they share, in `script/common.lua`. Calls nothing.

use redis::Script;

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        pub(super) struct Scripts {
            $(pub $name: Script,)*
        }

        impl Default for Scripts {
            fn default() -> Self {
                Self {
                    $($name: Script::new(concat!(
                        include_str!("script/common.lua"),
                        include_str!(concat!("script/", stringify!($name), ".lua")),
                    )),)*
                }
            }
        }
    };
}

scripts![
    open, submit, lease, renew, finish, expired, cancel, requeue, purge, due, list, mend
];
