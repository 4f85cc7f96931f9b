//! A Python with grpcio, in an environment of its own below `target/`.

use super::plugins::source;
use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The interpreter, or why there is none. Installs grpcio from PyPI the first time.
pub fn python() -> Result<PathBuf, String> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(prepare).clone()
}

fn prepare() -> Result<PathBuf, String> {
    let dir = source().join("target/python");
    let python = dir.join("bin/python");
    if runs(Command::new(&python).args(["-c", "import grpc_tools, grpc"])) {
        return Ok(python);
    }
    if !runs(Command::new("python3").args(["-m", "venv"]).arg(&dir)) {
        return Err("python3 with venv is needed (Debian: python3-venv)".into());
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "grpcio", "grpcio-tools"]);
    match runs(&mut pip) {
        true => Ok(python),
        false => Err("pip cannot install grpcio and grpcio-tools".into()),
    }
}

fn runs(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
