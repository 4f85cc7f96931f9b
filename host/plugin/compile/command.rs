//! `hostel compile-plugin`: compiles the file on stdin to an artifact on stdout, in a process that can
//! reach nothing else. It never runs guest code.

use super::{
    confine,
    protocol::{CompileError, CompileRequest},
    wasm_file::hex,
};
use crate::sandbox::engine_config;
use sha2::{Digest, Sha256};
use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

/// Compiles stdin to stdout according to `request`, a JSON text. Only for a process that does nothing
/// else and has no threads yet: it takes the process's rights away.
pub fn run(request: &str) -> ExitCode {
    let Err(refusal) = compile(request) else {
        return ExitCode::SUCCESS;
    };
    // The node reads this line; without it, the exit code remains.
    if let Ok(line) = serde_json::to_string(&refusal) {
        let _ = writeln!(io::stderr(), "{line}");
    }
    ExitCode::FAILURE
}

fn compile(request: &str) -> Result<(), CompileError> {
    let request: CompileRequest = serde_json::from_str(request).map_err(unable)?;
    confine::limit(&request).map_err(unable)?;
    confine::close_file_system();
    let engine = wasmtime::Engine::new(&engine_config::common()).map_err(unable)?;
    if engine_config::key(&engine) != request.engine {
        return Err(CompileError::OtherVersion);
    }
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(request.threads)
        .build()
        .map_err(unable)?;
    // Waits until each thread has begun; from then on none can be started.
    threads.broadcast(|_| ());
    confine::close_kernel();

    let mut wasm = Vec::new();
    io::stdin().lock().read_to_end(&mut wasm).map_err(unable)?;
    if hex(&Sha256::digest(&wasm)) != request.sha256 {
        return Err(CompileError::Changed);
    }
    let compiled = threads.install(|| engine.precompile_component(&wasm));
    let artifact = compiled.map_err(|error| CompileError::Invalid(format!("{error:#}")))?;
    io::stdout().write_all(&artifact).map_err(unable)
}

fn unable(error: impl std::fmt::Display) -> CompileError {
    CompileError::Unable(error.to_string())
}
