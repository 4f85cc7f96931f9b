//! The `plugin!` macro. It has to expand in the plugin's crate, which has the exports and the Cargo
//! package. Everything else is in functions.

/// Turns the crate into a plugin with task types, a component, or both. Use it once, with the prelude
/// in scope.
///
/// ```text
/// hostel_sdk::plugin! { task("name", handler), … }
/// hostel_sdk::plugin! { component = Type }
/// hostel_sdk::plugin! { component = Type, task("name", handler), … }
/// ```
///
/// It defines `pub fn plugin() -> Plugin` with the name, version and description of the Cargo
/// package, exports the interfaces that the plugin implements, and adds a native test that checks the
/// plugin as a node does.
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

/// Handles the task types in groups of four, each as an expression of its own, so that the compiler names
/// the one that is wrong. Each group is a level of expansion, of which the compiler allows 128, and a
/// plugin may have 256 task types. `component = Type` would be an expression, too, so it is looked for in
/// each place of a group.
#[doc(hidden)]
#[macro_export]
macro_rules! __tasks {
    ([$($part:tt)*] [$($world:ident)+] component = $($rest:tt)*) => {
        ::core::compile_error! {
            "in plugin!, `component = Type` comes first and once, before the task types: \
             `plugin! { component = Type, task(\"name\", handler) }`"
        }
    };
    ([$($part:tt)*] [$($world:ident)+] $a:expr, component = $($rest:tt)*) => {
        $crate::__tasks! { [] [$($world)+] component = $($rest)* }
    };
    ([$($part:tt)*] [$($world:ident)+] $a:expr, $b:expr, component = $($rest:tt)*) => {
        $crate::__tasks! { [] [$($world)+] component = $($rest)* }
    };
    (
        [$($part:tt)*] [$($world:ident)+]
        $a:expr, $b:expr, $c:expr, component = $($rest:tt)*
    ) => {
        $crate::__tasks! { [] [$($world)+] component = $($rest)* }
    };
    (
        [$($part:tt)*] [$($world:ident)+]
        $a:expr, $b:expr, $c:expr, $d:expr, $($rest:tt)+
    ) => {
        $crate::__tasks! {
            [$($part)* .with($a) .with($b) .with($c) .with($d)] [$($world)+] $($rest)+
        }
    };
    ([$($part:tt)*] [$($world:ident)+] $task_type:expr, $($rest:tt)+) => {
        $crate::__tasks! { [$($part)* .with($task_type)] [$($world)+] $($rest)+ }
    };
    ([$($part:tt)*] [$($world:ident)+] $task_type:expr $(,)?) => {
        $crate::__plugin! { [$($part)* .with($task_type)] $($world)+ }
    };
}

/// The common part of all forms: the calls that add the parts of the plugin, and the worlds that it
/// exports.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin {
    ([$($part:tt)+] $($world:ident)+) => {
        /// Returns the plugin, for the node and for tests.
        #[allow(dead_code)]
        pub fn plugin() -> $crate::Plugin {
            $crate::Plugin::new(
                env!("CARGO_PKG_NAME"),
                env!("CARGO_PKG_VERSION"),
                env!("CARGO_PKG_DESCRIPTION"),
            )
            $($part)+
        }

        #[cfg(target_family = "wasm")]
        const _: () = {
            struct ThisPlugin;

            impl $crate::__private::PluginSource for ThisPlugin {
                fn plugin() -> $crate::Plugin {
                    plugin()
                }
            }

            $($crate::__private::$world::export! {
                ThisPlugin with_types_in $crate::__private::$world
            })+
        };

        #[cfg(test)]
        #[test]
        fn the_node_accepts_this_plugin() {
            if let Err(faults) = plugin().check() {
                panic!("a node would reject this plugin:\n{faults}");
            }
        }
    };
}
