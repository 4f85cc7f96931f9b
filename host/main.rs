//! The binary: arguments in, exit code out. What the commands do lives in `hostel::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hostel::cli::main()
}
