//! `plugin!`: the one thing that has to expand in the author's own crate, because the exports and
//! the Cargo package are there. It stays this thin; all that it does is in ordinary functions.

/// Makes the crate a plugin, once, with the prelude in scope: task types, a component, or both.
///
/// ```text
/// hostel_sdk::plugin! { task("name", handler), … }
/// hostel_sdk::plugin! { component = Type }
/// hostel_sdk::plugin! { component = Type, task("name", handler), … }
/// ```
///
/// It defines `pub fn plugin() -> Plugin` with the name, version and description of the Cargo
/// package, exports to the node what the plugin has and no more, and adds a native test that the
/// node would accept it.
#[macro_export]
macro_rules! plugin {
    (component = $component:ty $(,)?) => {
        $crate::__plugin! { [.with_component::<$component>()] describes is_component }
    };
    (component = $component:ty, $($task_type:expr),+ $(,)?) => {
        $crate::__plugin! {
            [.with_component::<$component>() $(.with($task_type))+]
            describes handles_tasks is_component
        }
    };
    ($($task_type:expr),+ $(,)?) => {
        $crate::__plugin! { [$(.with($task_type))+] describes handles_tasks }
    };
}

/// What all forms have in common: what the plugin has, and the worlds that it exports.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin {
    ([$($has:tt)+] $($world:ident)+) => {
        /// The plugin, for the node and for tests.
        #[allow(dead_code)]
        pub fn plugin() -> $crate::Plugin {
            $crate::Plugin::new(
                env!("CARGO_PKG_NAME"),
                env!("CARGO_PKG_VERSION"),
                env!("CARGO_PKG_DESCRIPTION"),
            )
            $($has)+
        }

        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Author;

            impl $crate::__private::Source for Author {
                fn plugin() -> $crate::Plugin {
                    plugin()
                }
            }

            $($crate::__private::$world::export! {
                Author with_types_in $crate::__private::$world
            })+
        };

        #[cfg(test)]
        #[test]
        fn the_node_accepts_this_plugin() {
            if let Err(faults) = plugin().check() {
                panic!("the node would refuse this plugin:\n{faults}");
            }
        }
    };
}
