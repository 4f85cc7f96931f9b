//! The binary: arguments in, exit code out. What the commands do lives in `hostel::cli`.

use std::process::ExitCode;

/// Gives memory back after a burst, which glibc's allocator does not: it keeps the blocks of megabytes that
/// payloads and results leave free in its heaps. After 300 tasks of 4 MB that is 214 MiB with it, 150
/// with mimalloc 2.0, 182 with jemalloc as it comes and 100 as it is set in .cargo/config.toml (idle
/// before: 53, 55, 60, 50). A task costs the same processor time with each, within what can be measured.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    hostel::cli::main()
}
