//! The binary `hostel`; `hostel::cli` has the commands.

use std::process::ExitCode;

/// The allocator, which returns memory to the system after a burst. glibc's allocator keeps the freed
/// blocks of payloads and results in its heaps. Resident memory after 300 tasks of 4 MB: glibc 214 MiB,
/// mimalloc 2.0 150 MiB, jemalloc with its defaults 182 MiB, and 100 MiB with the settings in
/// .cargo/config.toml (before the tasks: 53, 55, 60 and 50 MiB). The processor time per task does not
/// differ measurably.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    hostel::cli::main()
}
