//! A Python environment with grpcio below `target/`.

use super::plugins::source;
use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The packages to install, and the imports that check the installation.
const PACKAGES: [&str; 4] = [
    "grpcio",
    "grpcio-tools",
    "grpcio-health-checking",
    "grpcio-reflection",
];
const IMPORTS: &str = "import grpc, grpc_tools, grpc_health, grpc_reflection";

/// Returns the interpreter, or the reason why there is none. The first call installs the packages from
/// PyPI.
pub fn python() -> Result<PathBuf, String> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(prepare).clone()
}

fn prepare() -> Result<PathBuf, String> {
    let dir = source().join("target/python");
    let python = dir.join("bin/python");
    let ready = || runs(Command::new(&python).args(["-c", IMPORTS]));
    if ready() {
        return Ok(python);
    }
    if !runs(Command::new("python3").args(["-m", "venv"]).arg(&dir)) {
        return Err("python3 with venv is needed (Debian: python3-venv)".into());
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet"]).args(PACKAGES);
    if runs(&mut pip) && ready() {
        Ok(python)
    } else {
        Err(format!("pip cannot install {}", PACKAGES.join(", ")))
    }
}

fn runs(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
