//! `hostel compile-plugin`: one file in, one artifact out, in a process that can reach nothing else.
//! It never runs guest code.

use super::{Refusal, Request, confine};
use crate::{engine, workshop::hex};
use sha2::{Digest, Sha256};
use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

/// Compiles stdin to stdout as `request`, a JSON text, says. Only for a process that does nothing
/// else, before it has threads: it takes the process's rights away.
pub fn run(request: &str) -> ExitCode {
    let Err(refusal) = compile(request) else {
        return ExitCode::SUCCESS;
    };
    // The node reads this line; where that fails, the exit code remains.
    if let Ok(line) = serde_json::to_string(&refusal) {
        let _ = writeln!(io::stderr(), "{line}");
    }
    ExitCode::FAILURE
}

fn compile(request: &str) -> Result<(), Refusal> {
    let request: Request = serde_json::from_str(request).map_err(unable)?;
    confine::limit(&request).map_err(unable)?;
    confine::close_file_system();
    let engine = wasmtime::Engine::new(&engine::common()).map_err(unable)?;
    if engine::key(&engine) != request.engine {
        return Err(Refusal::OtherVersion);
    }
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(request.threads)
        .build()
        .map_err(unable)?;
    // Until each of them has begun; from then on no further one can be started.
    threads.broadcast(|_| ());
    confine::close_kernel();

    let mut wasm = Vec::new();
    io::stdin().lock().read_to_end(&mut wasm).map_err(unable)?;
    if hex(&Sha256::digest(&wasm)) != request.sha256 {
        return Err(Refusal::Changed);
    }
    let compiled = threads.install(|| engine.precompile_component(&wasm));
    let artifact = compiled.map_err(|error| Refusal::Invalid(format!("{error:#}")))?;
    io::stdout().write_all(&artifact).map_err(unable)
}

fn unable(error: impl std::fmt::Display) -> Refusal {
    Refusal::Unable(error.to_string())
}
