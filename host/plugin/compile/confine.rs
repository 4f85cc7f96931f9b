//! The confinement of a compile process, before it reads a byte. Resource limits hold on every system;
//! files, network and other system calls are closed as far as the kernel can.

use super::{cache::MAX_ARTIFACT_BYTES, protocol::CompileRequest};
use hostel_runtime::parent;
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use std::{fs, io};

/// Compiling has a lower priority than the threads that run tasks.
const NICENESS: i32 = 5;

/// Address space that a thread takes besides its allocations: its stack and its arena.
const THREAD_BYTES: u64 = 192 << 20;

/// Ties the process to its parent and bounds its memory, time and files.
pub fn limit(request: &CompileRequest) -> io::Result<()> {
    parent::die_with_parent(request.parent)?;
    // Optional: nothing is lost without it.
    let _ = nice(NICENESS);
    // If memory runs out, the kernel kills this process and not the node.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let own = |field| status_bytes(field).unwrap_or_default();
    let threads = u64::try_from(request.threads).unwrap_or(u64::MAX);
    let reserved = threads.saturating_mul(THREAD_BYTES);
    let memory = request.max_memory_bytes;
    let address_space = own("VmSize:").saturating_add(reserved);
    bound(Resource::Data, memory.saturating_add(own("VmData:")), 0)?;
    bound(Resource::As, memory.saturating_add(address_space), 0)?;
    // The soft limit sends a signal, by which the node recognises this end.
    bound(Resource::Cpu, request.max_cpu_seconds, 1)?;
    bound(Resource::Fsize, MAX_ARTIFACT_BYTES, 0)?;
    bound(Resource::Core, 0, 0)
}

/// Lowers a limit to `value` and its ceiling to `above` more, unless they are lower already.
fn bound(resource: Resource, value: u64, above: u64) -> io::Result<()> {
    let ceiling = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let maximum = value.saturating_add(above).min(ceiling);
    let limit = Rlimit {
        current: Some(value.min(maximum)),
        maximum: Some(maximum),
    };
    Ok(setrlimit(resource, limit)?)
}

/// A size in the status of this process, of those that Linux counts in KiB.
fn status_bytes(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// Forbids to open files and to reach TCP ports (Landlock: Linux 5.13, for TCP 6.7). Open files stay
/// open.
#[cfg(target_os = "linux")]
pub fn close_file_system() {
    use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, Scope};
    let abi = ABI::V6;
    // As much of it as the kernel supports. No rule follows, so nothing is allowed.
    let closed = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.restrict_self());
    // On a kernel without Landlock the other limits remain.
    drop(closed);
}

/// Leaves the process memory, its threads and the three standard streams (seccomp, on the processors
/// that the crate supports). Everything else is refused: new processes, other programs, sockets,
/// files, including those that the node was started with, and executable memory.
#[cfg(target_os = "linux")]
pub fn close_kernel() {
    // If a step is not supported, the other limits remain.
    let _ = bound(Resource::Nofile, 3, 0);
    let Ok(architecture) = std::env::consts::ARCH.try_into() else {
        return;
    };
    let own = std::process::id().to_string();
    let allowed = include_str!("syscalls.json").replace("\"OWN PROCESS\"", &own);
    let filters = seccompiler::compile_from_json(allowed.as_bytes(), architecture);
    if let Some(filter) = filters.ok().as_ref().and_then(|all| all.get("compile")) {
        let _ = seccompiler::apply_filter_all_threads(filter);
    }
}

#[cfg(not(target_os = "linux"))]
pub fn close_file_system() {}

#[cfg(not(target_os = "linux"))]
pub fn close_kernel() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use seccompiler::TargetArch;

    #[test]
    fn the_filter_compiles_for_every_supported_processor() {
        let text = include_str!("syscalls.json").replace("\"OWN PROCESS\"", "1");
        for processor in [TargetArch::x86_64, TargetArch::aarch64, TargetArch::riscv64] {
            let filters = seccompiler::compile_from_json(text.as_bytes(), processor).unwrap();
            assert!(!filters["compile"].is_empty());
        }
    }
}
