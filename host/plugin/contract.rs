//! Our own interfaces in a component: which of them it exports, and whether they have the shape that
//! the node expects. Versions of `hostel:plugin` that differ in their patch stand in for each other.

use super::{
    Fault,
    bindings::{component, manifest, message_handler, task_handler},
    generation::ComponentIndices,
    guest::Guest,
    imports::{compatible, split},
};
use wasmtime::{
    Engine, Store,
    component::{Component, Instance, InstancePre},
};

/// The version of `hostel:plugin` that the node is built with.
const VERSION: &str = "0.1.0";
const MANIFEST: &str = "hostel:plugin/manifest";
const TASK_HANDLER: &str = "hostel:plugin/task-handler";
const COMPONENT: &str = "hostel:plugin/component";
const MESSAGE_HANDLER: &str = "hostel:plugin/message-handler";
const OURS: &str = "hostel:plugin/";

/// Which of our interfaces a component has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exports {
    pub manifest: bool,
    pub task_handler: bool,
    /// `component` and `message-handler`, which go together.
    pub component: bool,
}

/// The names of all exports in our package, with their versions.
pub fn names(engine: &Engine, component: &Component) -> Vec<String> {
    let component_type = component.component_type();
    let exports = component_type.exports(engine);
    exports
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.starts_with(OURS))
        .collect()
}

/// What the exports called `names` come to, and what is wrong with them.
pub fn exports(names: &[String]) -> (Exports, Vec<Fault>) {
    let mut exports = Exports::default();
    let mut faults = Vec::new();
    let (mut life, mut messages) = (false, false);
    for name in names {
        let (interface, version) = split(name);
        match interface {
            _ if !compatible(VERSION, version) => faults.push(unknown(name)),
            MANIFEST => exports.manifest = true,
            TASK_HANDLER => exports.task_handler = true,
            COMPONENT => life = true,
            MESSAGE_HANDLER => messages = true,
            _ => faults.push(unknown(name)),
        }
    }
    exports.component = life && messages;
    if life != messages {
        let half = if life { COMPONENT } else { MESSAGE_HANDLER };
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

/// Every interface of ours in `instance` that has another shape than the node expects.
pub fn misfits(
    store: &mut Store<Guest>,
    pre: &InstancePre<Guest>,
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

pub fn handler_indices(pre: &InstancePre<Guest>) -> Result<task_handler::GuestIndices, Fault> {
    task_handler::GuestIndices::new(pre).map_err(|error| misfit(TASK_HANDLER, &error))
}

pub fn component_indices(pre: &InstancePre<Guest>) -> Result<ComponentIndices, Fault> {
    Ok(ComponentIndices {
        life: component::GuestIndices::new(pre).map_err(|error| misfit(COMPONENT, &error))?,
        messages: message_handler::GuestIndices::new(pre)
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

    fn check(names: &[&str]) -> (Exports, Vec<String>) {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let (exports, faults) = exports(&names);
        (exports, faults.iter().map(Fault::to_string).collect())
    }

    #[test]
    fn a_patch_of_the_package_is_taken_and_another_version_is_named() {
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
