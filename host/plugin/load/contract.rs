//! The interfaces of `hostel:plugin` in a component: which of them it exports, and whether they have
//! the types that the node expects. Patch versions of the package are interchangeable.

use crate::{
    fault::Fault,
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

/// The interfaces among the exports called `names`, and the faults of those that are unknown.
pub fn exports(names: &[String]) -> (Exports, Vec<Fault>) {
    let mut exports = Exports::default();
    let mut faults = Vec::new();
    let (mut component, mut message_handler) = (false, false);
    for name in names {
        let (interface, version) = split(name);
        match interface {
            _ if !compatible(VERSION, version) => faults.push(unknown(name)),
            MANIFEST => exports.manifest = true,
            TASK_HANDLER => exports.task_handler = true,
            COMPONENT => component = true,
            MESSAGE_HANDLER => message_handler = true,
            _ => faults.push(unknown(name)),
        }
    }
    exports.component = component && message_handler;
    if component != message_handler {
        let half = if component {
            COMPONENT
        } else {
            MESSAGE_HANDLER
        };
        faults.push(Fault::new(format!(
            "exports {half} alone: a component exports both {COMPONENT} and {MESSAGE_HANDLER}"
        )));
    }
    if !exports.manifest && faults.is_empty() {
        faults.push(Fault::new(format!(
            "does not export {MANIFEST}@{VERSION}, so it is no Hostel plugin: write one with \
             hostel-sdk, or export that interface"
        )));
    }
    (exports, faults)
}

fn unknown(name: &str) -> Fault {
    Fault::new(format!(
        "exports {name}, which this node does not know (of hostel:plugin it knows the version \
         {VERSION} and patches of it, and there manifest, task-handler, component and \
         message-handler): rebuild with a hostel-sdk of this node's version, or update the node"
    ))
}

/// A fault for each interface in `instance` whose types differ from the node's.
pub fn misfits(
    store: &mut Store<StoreState>,
    pre: &InstancePre<StoreState>,
    instance: &Instance,
    exports: Exports,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut check = |interface, loaded: wasmtime::Result<()>| {
        faults.extend(loaded.err().map(|error| misfit(interface, &error)));
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
    faults
}

pub fn handler_indices(pre: &InstancePre<StoreState>) -> Result<task_handler::GuestIndices, Fault> {
    task_handler::GuestIndices::new(pre).map_err(|error| misfit(TASK_HANDLER, &error))
}

pub fn component_indices(pre: &InstancePre<StoreState>) -> Result<ComponentIndices, Fault> {
    Ok(ComponentIndices {
        component: component::GuestIndices::new(pre).map_err(|error| misfit(COMPONENT, &error))?,
        message_handler: message_handler::GuestIndices::new(pre)
            .map_err(|error| misfit(MESSAGE_HANDLER, &error))?,
    })
}

fn misfit(interface: &str, error: &wasmtime::Error) -> Fault {
    Fault::new(format!(
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
        let (exports, faults) = exports(&names);
        (exports, faults.iter().map(Fault::to_string).collect())
    }

    #[test]
    fn a_patch_version_is_accepted_and_another_version_is_named() {
        let (exports, faults) = check(&[
            "hostel:plugin/manifest@0.1.1",
            "hostel:plugin/task-handler@0.1.27",
        ]);
        assert!(exports.manifest && exports.task_handler && faults.is_empty());
        for other in ["manifest@0.2.0", "manifest@1.1.0", "manifest", "new@0.1.0"] {
            let (_, faults) = check(&[&format!("hostel:plugin/{other}")]);
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(other), "{faults:?}");
            assert!(faults[0].contains("update the node"), "{faults:?}");
        }
    }

    #[test]
    fn the_imports_that_the_node_provides_are_of_its_version() {
        let messaging = format!("{PACKAGE}messaging@{VERSION}");
        assert!(PROVIDED.contains(&messaging.as_str()), "{messaging}");
    }

    #[test]
    fn half_a_component_is_named() {
        let (exports, faults) = check(&[
            "hostel:plugin/manifest@0.1.0",
            "hostel:plugin/component@0.1.0",
        ]);
        assert!(!exports.component);
        assert!(
            faults[0].contains("hostel:plugin/component alone"),
            "{faults:?}"
        );
    }
}
