//! The integration test: hands the binary that cargo built to the trials of `lib.rs`.

fn main() -> std::process::ExitCode {
    hostel_tests::main(env!("CARGO_BIN_EXE_hostel"))
}
