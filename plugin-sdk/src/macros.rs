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
    () => {
        ::core::compile_error! {
            "plugin! is empty: a plugin has task types, as in `plugin! { task(\"name\", handler) }`, \
             a component, as in `plugin! { component = Type }`, or both"
        }
    };
    (component = $component:ty $(,)?) => {
        $crate::__plugin! { [.with_component::<$component>()] describes is_component }
    };
    (component = $component:ty, $($rest:tt)+) => {
        $crate::__tasks! {
            [.with_component::<$component>()] [describes handles_tasks is_component] $($rest)+
        }
    };
    ($($rest:tt)+) => {
        $crate::__tasks! { [] [describes handles_tasks] $($rest)+ }
    };
}

/// Takes one task type after the other, so that what is none is named.
#[doc(hidden)]
#[macro_export]
macro_rules! __tasks {
    ([$($has:tt)*] [$($world:ident)+] component = $($rest:tt)*) => {
        ::core::compile_error! {
            "in plugin!, `component = Type` comes first and once, before the task types: \
             `plugin! { component = Type, task(\"name\", handler) }`"
        }
    };
    ([$($has:tt)*] [$($world:ident)+] $task_type:expr, $($rest:tt)+) => {
        $crate::__tasks! { [$($has)* .with($task_type)] [$($world)+] $($rest)+ }
    };
    ([$($has:tt)*] [$($world:ident)+] $task_type:expr $(,)?) => {
        $crate::__plugin! { [$($has)* .with($task_type)] $($world)+ }
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
