//! How much of the machine plugins get: memory, pool slots and compile processes, from the settings
//! and from what the machine has. Warns at start about settings that do not fit together.

use super::host_memory;
use hostel_config::Plugins;
use std::thread;

/// The largest guest takes eight slots (`limiter::MAX_MEMORIES`), and has to fit even if few tasks
/// or components are allowed.
const MIN_SLOTS: usize = 8;
/// Slots for components whose old instance still runs while the new one starts.
const SPARE_COMPONENT_SLOTS: usize = 8;
/// More than any machine has: if the machine's memory is unknown, no guest waits for memory.
const UNKNOWN_BYTES: usize = 1 << 42;

/// A number for tasks, and one for components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    pub tasks: usize,
    pub components: usize,
}

/// The pool slots of a node. Tasks share theirs with plugins that describe themselves while they are
/// loaded.
pub fn slot_counts(plugins: &Plugins) -> Shares {
    let tasks = plugins.max_tasks.saturating_add(max_compiles(plugins));
    let components = plugins.max_components.saturating_add(SPARE_COMPONENT_SLOTS);
    Shares {
        tasks: tasks.max(MIN_SLOTS),
        components: components.max(MIN_SLOTS),
    }
}

/// The pools of slots to try where `wanted` does not fit into the address space: each has half of the
/// one before, and the last one as few as a node can run with.
pub fn smaller_pools(wanted: Shares) -> impl Iterator<Item = Shares> {
    std::iter::successors(Some(wanted), |last| {
        let half = Shares {
            tasks: (last.tasks / 2).max(MIN_SLOTS),
            components: (last.components / 2).max(MIN_SLOTS),
        };
        (half != *last).then_some(half)
    })
}

/// The memory of all guests of a node in bytes.
pub fn memory_shares(plugins: &Plugins) -> Shares {
    let total = match plugins.max_total_memory_bytes {
        0 => host_memory::memory_bytes().map_or(UNKNOWN_BYTES, |bytes| bytes / 4 * 3),
        given => given,
    };
    divide(plugins, total)
}

/// Divides `total` between tasks and components. Unless it is set, the components' share is a
/// quarter; or the memory of one component if a quarter is less than that and a task still fits.
fn divide(plugins: &Plugins, total: usize) -> Shares {
    let one = plugins.sandbox.max_memory_bytes;
    let quarter = total / 4;
    let components = match plugins.max_component_memory_bytes {
        0 if quarter < one && one.saturating_mul(2) <= total => one,
        0 => quarter,
        given => given.min(total),
    };
    Shares {
        tasks: total - components,
        components,
    }
}

/// How many plugins are compiled at the same time.
pub fn max_compiles(plugins: &Plugins) -> usize {
    match plugins.max_compiles {
        0 => {
            let memory = host_memory::memory_bytes().unwrap_or_default() / 2;
            let each = usize::try_from(plugins.max_compile_memory_bytes).unwrap_or(usize::MAX);
            // At least two, so that a file that takes all of its time does not block the others.
            processors().min(memory / each).max(2)
        }
        given => given,
    }
}

pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Logs each setting that an operator should look at.
pub fn warn(plugins: &Plugins) {
    for warning in warnings(
        plugins,
        &memory_shares(plugins),
        host_memory::memory_bytes(),
    ) {
        tracing::warn!("{warning}");
    }
}

/// What does not fit together; `available` is the memory of the machine or its cgroup, if known.
fn warnings(plugins: &Plugins, shares: &Shares, available: Option<usize>) -> Vec<String> {
    let mut warnings = Vec::new();
    let given = plugins.max_total_memory_bytes;
    if let Some(available) = available.filter(|&available| given > available) {
        warnings.push(format!(
            "plugins may have {given} bytes of memory together (plugins.max_total_memory_bytes), and \
             this machine or its cgroup has {available}: the kernel may end the node before that \
             limit is reached; lower it, or set it to 0 for three quarters of the available memory"
        ));
    }
    let one = plugins.sandbox.max_memory_bytes.max(1);
    let (at_once, max_tasks) = (shares.tasks / one, plugins.max_tasks);
    if at_once < max_tasks {
        warnings.push(format!(
            "{at_once} of {max_tasks} tasks (plugins.max_tasks) can run at once: each may have {one} \
             bytes of memory (plugins.sandbox.max_memory_bytes), and all together {} \
             (plugins.max_total_memory_bytes less plugins.max_component_memory_bytes)",
            shares.tasks
        ));
    }
    if shares.components < one && plugins.max_components > 0 {
        warnings.push(format!(
            "no component with the usual limit can run: it may have {one} bytes of memory \
             (plugins.sandbox.max_memory_bytes), and all components together only {} \
             (plugins.max_component_memory_bytes)",
            shares.components
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_config::Config;

    const MIB: usize = 1 << 20;

    fn shares(tasks_mib: usize, components_mib: usize) -> Shares {
        Shares {
            tasks: tasks_mib * MIB,
            components: components_mib * MIB,
        }
    }

    #[test]
    fn limits_that_fit_together_give_no_warning() {
        let plugins = Config::default().plugins;
        let none = warnings(&plugins, &shares(64 * 64, 1024), Some(8192 * MIB));
        assert_eq!(none, Vec::<String>::new());
    }

    #[test]
    fn limits_that_do_not_fit_together_are_named_with_their_settings() {
        let mut plugins = Config::default().plugins;
        plugins.max_total_memory_bytes = 200 * MIB;
        let found = warnings(&plugins, &shares(160, 40), Some(150 * MIB));
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
        assert_eq!(warnings(&plugins, &shares(160, 40), None).len(), 2);
    }

    #[test]
    fn components_have_a_quarter_or_the_memory_of_one() {
        let shares = |total: usize, given: usize| {
            let mut plugins = Config::default().plugins;
            plugins.max_component_memory_bytes = given * MIB;
            let Shares { tasks, components } = divide(&plugins, total * MIB);
            [tasks / MIB, components / MIB]
        };
        assert_eq!(shares(1024, 0), [768, 256]);
        assert_eq!(shares(160, 0), [96, 64]);
        assert_eq!(shares(112, 0), [84, 28]);
        assert_eq!(shares(112, 40), [72, 40]);
        assert_eq!(shares(64, 0), [48, 16]);
    }
}
