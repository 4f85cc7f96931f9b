//! `[plugins]`

use super::super::{
    group::{self, section, settings},
    setting::{DAY, GIB, HOUR, KIB, MIB, bytes, millis, number, path},
};
use std::{path::PathBuf, time::Duration};

/// The longest timeout of a task.
pub(super) const MAX_TASK_TIMEOUT_MS: u64 = 7 * DAY;

settings! {
    /// The plugins directory, the compilation of plugins, and limits on all plugins together.
    struct Plugins {
        /// Directory whose .wasm files are loaded.
        dir: PathBuf = path().default_with(|dirs| dirs.current.join("plugins"));

        /// Interval at which the directory is scanned, in addition to file events.
        rescan: Duration = millis(50..=HOUR).default(Duration::from_secs(2));

        /// Size of a plugin file.
        max_file_bytes: u64 = bytes(KIB as u64..=GIB as u64).default(64 * MIB as u64);

        /// Program that compiles plugins, each in a process of its own: a hostel of the same version as
        /// the node. By default it is the running program if that is hostel. A program that embeds a
        /// node has to name one; without it, plugins that are not in the compilation cache are refused.
        compiler: Option<PathBuf> = path().example("/usr/local/bin/hostel");

        /// How long the compilation of one plugin may take. A file that takes longer is refused until
        /// the node restarts or the file changes; if the machine was too busy, it is compiled again
        /// after 10 s to 10 min.
        compile_timeout: Duration = millis(100..=HOUR).default(Duration::from_secs(60));

        /// Memory that the compilation of one plugin may allocate. A file that needs more is refused
        /// until the node restarts or the file changes.
        max_compile_memory_bytes: u64 =
            bytes(64 * MIB as u64..=1024 * GIB as u64).default(2 * GIB as u64);

        /// Number of plugins that are compiled at the same time, with a lower priority than tasks. 0
        /// means one per processor, as far as half of the memory of the machine or its cgroup
        /// allows, and at least two.
        max_compiles: usize = number(0..=256).default(0);

        /// Number of tasks that this node runs at the same time. Address space for the memory of all
        /// of them is reserved at the start.
        max_tasks: usize = number(1..=10_000).default(64);

        /// Number of components that this node runs. The component of a further plugin stays down;
        /// its tasks run.
        max_components: usize = number(0..=10_000).default(32);

        /// Memory of all calls and components of plugins together. Each counts with its whole
        /// max_memory_bytes, however little it uses. A task is leased only when there is room for it.
        /// Smaller tasks may overtake it until it gets its turn, after some seconds or as soon as
        /// enough of them have ended. A plugin whose own limit exceeds this one is refused. 0 means
        /// three quarters of the memory of the machine or its cgroup.
        max_total_memory_bytes: usize = bytes(0..=64 * KIB * GIB).default(0);

        /// Share of components in max_total_memory_bytes; tasks have the rest. New code of a component
        /// starts beside the old, once other components leave it the memory; if the two never fit
        /// together, the old one is stopped first. 0 means a quarter, or
        /// room for one component (plugins.sandbox.max_memory_bytes) if a quarter is less and a task
        /// fits beside it.
        max_component_memory_bytes: usize = bytes(0..=64 * KIB * GIB).default(0);

        /// The longest timeout of an attempt that a plugin may declare; longer ones are reduced to it.
        /// `[plugin.NAME.task.TYPE]` may exceed it. A task may not ask for a longer one (timeout_ms).
        max_timeout: Duration = millis(1..=MAX_TASK_TIMEOUT_MS).default(Duration::from_secs(3600));

        /// How long the handler of a task may go on once the task is cancelled or its lease is lost, if it
        /// has called is-cancelled of hostel:plugin/tasks before; after that it is interrupted. A handler
        /// that has not called it is interrupted at once, as is every handler when the node stops.
        cancel_grace: Duration = millis(0..=60_000).default(Duration::from_secs(1));

        /// Number of threads that run plugins. 0 means one per processor.
        threads: usize = number(0..=1024).default(0);

        /// `[plugins.sandbox]`
        sandbox: Sandbox = section();
        /// `[plugins.component]`
        component: Component = section();
    }
}

settings! {
    /// Limits of one call of a plugin. `[plugin.NAME.limits]` overrides them for one plugin.
    struct Sandbox {
        /// How long an attempt of a task may take if neither the plugin nor `[plugin.NAME.task.TYPE]`
        /// gives a timeout.
        timeout: Duration = millis(1..=MAX_TASK_TIMEOUT_MS).default(Duration::from_secs(60));
    }
    /// Limits of its calls: any setting of `[plugins.sandbox]` except timeout_ms. While a plugin is
    /// loaded and describes itself, its name is not known yet; the limits of the section that has the
    /// name of the file, without .wasm, apply. Name the file as the plugin, or describe_timeout_ms and a
    /// larger max_memory_bytes have no effect there.
    overridable as SandboxOverrides {
        /// Size of all memories of the call together.
        max_memory_bytes: usize = bytes(64 * KIB..=4 * GIB).default(64 * MIB);

        /// Number of elements of all tables of the call together.
        max_table_elements: usize = number(0..=10_000_000).default(100_000);

        /// Processor time. Waiting does not count.
        max_cpu: Duration = millis(10..=DAY).default(Duration::from_secs(30));

        /// Size of the result of a task, or of the answer of a component.
        max_result_bytes: usize = bytes(0..=GIB).default(4 * MIB - 64 * KIB);

        /// Size of what a call writes to its log, stdout and stderr together; the rest is dropped. What
        /// the node's log leaves out for its level does not count.
        max_log_bytes: usize = bytes(0..=64 * MIB).default(64 * KIB);

        /// Number of messages that a call may send.
        max_messages: u32 = number(0..=1_000_000).default(100);

        /// How long a plugin may take to describe itself when it is loaded.
        describe_timeout: Duration = millis(10..=600_000).default(Duration::from_secs(5));
    }
}

settings! {
    /// Limits of a component. `[plugin.NAME.component]` overrides them for one plugin.
    struct Component {}
    /// Limits of its component: any setting of `[plugins.component]`.
    overridable as ComponentOverrides {
        /// Number of messages that may wait in its mailbox. Further ones are refused, as are messages
        /// beyond 16 MiB.
        mailbox: usize = number(1..=1_000_000).default(1024);

        /// How long its start may take, including the wait for memory.
        start_timeout: Duration = millis(10..=HOUR).default(Duration::from_secs(10));

        /// How long it may take to handle a message. After that its instance is replaced.
        message_timeout: Duration = millis(1..=MAX_TASK_TIMEOUT_MS).default(Duration::from_secs(5));

        /// How long a stopping component may go on with the messages of its mailbox, and after that
        /// how long its stop function may take.
        stop_timeout: Duration = millis(10..=HOUR).default(Duration::from_secs(5));
    }
}
