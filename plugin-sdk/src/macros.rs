//! `plugin!`: the one thing that has to expand in the author's own crate, because the exports and
//! the Cargo package are there. It stays this thin; all that it does is in ordinary functions.

/// Makes the crate a plugin: `hostel_sdk::plugin! { task("name", handler), … }`, once, with the
/// prelude in scope.
///
/// It defines `pub fn plugin() -> Plugin` with the name, version and description of the Cargo
/// package, exports it to the node, and adds a native test that the node would accept it.
#[macro_export]
macro_rules! plugin {
    ($($task_type:expr),+ $(,)?) => {
        /// The plugin, for the node and for tests.
        #[allow(dead_code)]
        pub fn plugin() -> $crate::Plugin {
            $crate::Plugin::new(
                env!("CARGO_PKG_NAME"),
                env!("CARGO_PKG_VERSION"),
                env!("CARGO_PKG_DESCRIPTION"),
            )
            $(.with($task_type))+
        }

        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Author;

            impl $crate::__private::Source for Author {
                fn plugin() -> $crate::Plugin {
                    plugin()
                }
            }

            $crate::__private::export!(Author with_types_in $crate::__private::bindings);
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
