//! Whether the limits of a node go together with each other and with the machine below it. Says what
//! does not, at start; changes nothing.

use super::{
    gate::{Gate, Kind},
    machine,
};
use hostel_config::Plugins;

/// Logs what an operator should look at.
pub fn warn(plugins: &Plugins, gate: &Gate) {
    let shares = [Kind::Task, Kind::Component].map(|kind| gate.total_bytes(kind));
    for warning in warnings(plugins, shares, machine::memory_bytes()) {
        tracing::warn!("{warning}");
    }
}

/// For shares of tasks and components, and for the memory that machine or cgroup has, where that is
/// known.
fn warnings(plugins: &Plugins, [tasks, components]: [usize; 2], has: Option<usize>) -> Vec<String> {
    let mut warnings = Vec::new();
    let given = plugins.max_total_memory_bytes;
    if let Some(has) = has.filter(|&has| given > has) {
        warnings.push(format!(
            "plugins may have {given} bytes of memory together (plugins.max_total_memory_bytes), and \
             this machine or its cgroup has {has}: the kernel may end the node before that limit holds; \
             lower it, or set it to 0 for three quarters of what there is"
        ));
    }
    let one = plugins.sandbox.max_memory_bytes.max(1);
    let (at_once, max_tasks) = (tasks / one, plugins.max_tasks);
    if at_once < max_tasks {
        warnings.push(format!(
            "{at_once} of {max_tasks} tasks (plugins.max_tasks) can run at once: each may have {one} \
             bytes of memory (plugins.sandbox.max_memory_bytes), and all together {tasks} \
             (plugins.max_total_memory_bytes less plugins.max_component_memory_bytes)"
        ));
    }
    if components < one && plugins.max_components > 0 {
        warnings.push(format!(
            "no component with the usual limit can run: it may have {one} bytes of memory \
             (plugins.sandbox.max_memory_bytes), and all components together only {components} \
             (plugins.max_component_memory_bytes)"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_config::Config;

    const MIB: usize = 1 << 20;

    #[test]
    fn limits_that_go_together_are_no_news() {
        let plugins = Config::default().plugins;
        let none = warnings(&plugins, [64 * 64 * MIB, 1024 * MIB], Some(8192 * MIB));
        assert_eq!(none, Vec::<String>::new());
    }

    #[test]
    fn what_does_not_go_together_is_named_with_its_settings() {
        let mut plugins = Config::default().plugins;
        plugins.max_total_memory_bytes = 200 * MIB;
        let found = warnings(&plugins, [160 * MIB, 40 * MIB], Some(150 * MIB));
        let [total, tasks, components] = &found[..] else {
            panic!("{found:?}");
        };
        assert!(total.contains("plugins.max_total_memory_bytes"), "{total}");
        assert!(
            tasks.starts_with("2 of 64 tasks (plugins.max_tasks)"),
            "{tasks}"
        );
        assert!(
            components.contains("plugins.max_component_memory_bytes"),
            "{components}"
        );
        assert_eq!(warnings(&plugins, [160 * MIB, 40 * MIB], None).len(), 2);
    }
}
