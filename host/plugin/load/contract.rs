//! The interfaces of `hostel:plugin` in a component: which of them it exports, and whether they have
//! the types that the node expects. Patch versions of the package are interchangeable.

use crate::{
    diagnostic::Diagnostic,
    sandbox::{
        bindings::{component, manifest, message_handler, task_handler},
        imports::{compatible, split},
        store_state::StoreState,
    },
};
use wasmtime::{
    Engine, Store,
    component::{Component, Instance, InstancePre},
};

/// The version of `hostel:plugin` that this node is built with.
pub(super) const VERSION: &str = "0.1.0";
const MANIFEST: &str = "hostel:plugin/manifest";
pub(super) const TASK_HANDLER: &str = "hostel:plugin/task-handler";
const COMPONENT: &str = "hostel:plugin/component";
const MESSAGE_HANDLER: &str = "hostel:plugin/message-handler";
const PACKAGE: &str = "hostel:plugin/";

/// Which interfaces of `hostel:plugin` a component exports.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exports {
    pub manifest: bool,
    pub task_handler: bool,
    /// `component` and `message-handler`, which are exported together or not at all.
    pub component: bool,
}

/// The exports of a plugin's component.
pub struct ComponentIndices {
    pub component: component::GuestIndices,
    pub message_handler: message_handler::GuestIndices,
}

/// The names of all exports in the package `hostel:plugin`, with their versions.
pub fn names(engine: &Engine, component: &Component) -> Vec<String> {
    let component_type = component.component_type();
    let exports = component_type.exports(engine);
    exports
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.starts_with(PACKAGE))
        .collect()
}

/// The interfaces among the exports called `names`, and the diagnostics of those that are unknown.
pub fn exports(names: &[String]) -> (Exports, Vec<Diagnostic>) {
    let mut exports = Exports::default();
    let mut diagnostics = Vec::new();
    let (mut component, mut message_handler) = (false, false);
    for name in names {
        let (interface, version) = split(name);
        match interface {
            _ if !compatible(VERSION, version) => diagnostics.push(unknown(name)),
            MANIFEST => exports.manifest = true,
            TASK_HANDLER => exports.task_handler = true,
            COMPONENT => component = true,
            MESSAGE_HANDLER => message_handler = true,
            _ => diagnostics.push(unknown(name)),
        }
    }
    exports.component = component && message_handler;
    if component != message_handler {
        let half = if component {
            COMPONENT
        } else {
            MESSAGE_HANDLER
        };
        diagnostics.push(Diagnostic::new(format!(
            "exports {half} alone: a component exports both {COMPONENT} and {MESSAGE_HANDLER}"
        )));
    }
    if !exports.manifest && diagnostics.is_empty() {
        diagnostics.push(Diagnostic::new(format!(
            "does not export {MANIFEST}@{VERSION}, so it is no Hostel plugin: write one with \
             hostel-sdk, or export that interface"
        )));
    }
    (exports, diagnostics)
}

fn unknown(name: &str) -> Diagnostic {
    Diagnostic::new(format!(
        "exports {name}, which this node does not know (of hostel:plugin it knows the version \
         {VERSION} and patches of it, and there manifest, task-handler, component and \
         message-handler): rebuild with a hostel-sdk of this node's version, or update the node"
    ))
}

/// A diagnostic for each interface in `instance` whose types differ from the node's.
pub fn misfits(
    store: &mut Store<StoreState>,
    pre: &InstancePre<StoreState>,
    instance: &Instance,
    exports: Exports,
) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut check = |interface, loaded: wasmtime::Result<()>| {
        diagnostics.extend(loaded.err().map(|error| misfit(interface, &error)));
    };
    if exports.manifest {
        let indices = manifest::GuestIndices::new(pre);
        let loaded = indices.and_then(|indices| indices.load(&mut *store, instance));
        check(MANIFEST, loaded.map(drop));
    }
    if exports.task_handler {
        let indices = task_handler::GuestIndices::new(pre);
        let loaded = indices.and_then(|indices| indices.load(&mut *store, instance));
        check(TASK_HANDLER, loaded.map(drop));
    }
    if exports.component {
        let indices = component::GuestIndices::new(pre);
        let loaded = indices.and_then(|indices| indices.load(&mut *store, instance));
        check(COMPONENT, loaded.map(drop));
        let indices = message_handler::GuestIndices::new(pre);
        let loaded = indices.and_then(|indices| indices.load(&mut *store, instance));
        check(MESSAGE_HANDLER, loaded.map(drop));
    }
    diagnostics
}

pub fn handler_indices(
    pre: &InstancePre<StoreState>,
) -> Result<task_handler::GuestIndices, Diagnostic> {
    task_handler::GuestIndices::new(pre).map_err(|error| misfit(TASK_HANDLER, &error))
}

pub fn component_indices(pre: &InstancePre<StoreState>) -> Result<ComponentIndices, Diagnostic> {
    Ok(ComponentIndices {
        component: component::GuestIndices::new(pre).map_err(|error| misfit(COMPONENT, &error))?,
        message_handler: message_handler::GuestIndices::new(pre)
            .map_err(|error| misfit(MESSAGE_HANDLER, &error))?,
    })
}

fn misfit(interface: &str, error: &wasmtime::Error) -> Diagnostic {
    Diagnostic::new(format!(
        "its {interface} differs from the node's: {error:#}; rebuild with a hostel-sdk of this \
         node's version"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::imports::PROVIDED;

    fn check(names: &[&str]) -> (Exports, Vec<String>) {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let (exports, diagnostics) = exports(&names);
        (
            exports,
            diagnostics.iter().map(Diagnostic::to_string).collect(),
        )
    }

    #[test]
    fn a_patch_version_is_accepted_and_another_version_is_named() {
        let (exports, diagnostics) = check(&[
            "hostel:plugin/manifest@0.1.1",
            "hostel:plugin/task-handler@0.1.27",
        ]);
        assert!(exports.manifest && exports.task_handler && diagnostics.is_empty());
        for other in ["manifest@0.2.0", "manifest@1.1.0", "manifest", "new@0.1.0"] {
            let (_, diagnostics) = check(&[&format!("hostel:plugin/{other}")]);
            assert_eq!(diagnostics.len(), 1, "{diagnostics:?}");
            assert!(diagnostics[0].contains(other), "{diagnostics:?}");
            assert!(
                diagnostics[0].contains("update the node"),
                "{diagnostics:?}"
            );
        }
    }

    #[test]
    fn the_imports_that_the_node_provides_are_of_its_version() {
        for interface in ["messaging", "tasks"] {
            let import = format!("{PACKAGE}{interface}@{VERSION}");
            assert!(PROVIDED.contains(&import.as_str()), "{import}");
        }
    }

    #[test]
    fn half_a_component_is_named() {
        let (exports, diagnostics) = check(&[
            "hostel:plugin/manifest@0.1.0",
            "hostel:plugin/component@0.1.0",
        ]);
        assert!(!exports.component);
        assert!(
            diagnostics[0].contains("hostel:plugin/component alone"),
            "{diagnostics:?}"
        );
    }
}
