//! The two jobs of loading a file: reading it, which shows whether its content is new, and making a
//! generation of it. The loader puts the results into the registry.

use super::builder::Builder;
use crate::{compile::wasm_file::WasmFile, diagnostic::Diagnostic, generation::Generation};
use hostel_runtime::file_fingerprint::Fingerprint;
use hostel_task::Name;
use std::{path::PathBuf, sync::Arc};

/// The result of a job.
pub struct Done {
    pub file: PathBuf,
    pub fingerprint: Fingerprint,
    pub outcome: Outcome,
}

pub enum Outcome {
    /// It changed while it was read.
    Unstable,
    /// The content serves, or was refused before.
    Same(String),
    /// The content is new, and had these task types when it was last loaded.
    Read(WasmFile, Vec<Name>),
    Made(Box<Generation>),
    /// With the hash of the content, if the same content would be refused again.
    Refused(Option<String>, Vec<Diagnostic>),
}

pub async fn read(
    builder: Arc<Builder>,
    file: PathBuf,
    fingerprint: Fingerprint,
    known: Vec<String>,
) -> Done {
    let path = file.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let wasm = builder.read(&path);
        if !fingerprint.matches(&path) {
            return Outcome::Unstable;
        }
        match wasm {
            Err(diagnostic) => Outcome::Refused(None, vec![diagnostic]),
            Ok(wasm) if known.contains(&wasm.sha256) => Outcome::Same(wasm.sha256),
            Ok(wasm) => {
                let task_types = builder.recorded_types(&wasm.sha256);
                Outcome::Read(wasm, task_types)
            }
        }
    });
    Done {
        file,
        fingerprint,
        outcome: reading.await.unwrap_or(Outcome::Unstable),
    }
}

pub async fn make(
    builder: Arc<Builder>,
    file: PathBuf,
    fingerprint: Fingerprint,
    wasm: WasmFile,
) -> Done {
    let outcome = match builder.make(&wasm).await {
        Ok(generation) => Outcome::Made(Box::new(generation)),
        // The compile process reads the file again and may have found other content.
        Err(_) if !fingerprint.matches(&file) => Outcome::Unstable,
        Err(diagnostics) => {
            let lasting = !diagnostics.iter().any(Diagnostic::may_pass);
            Outcome::Refused(lasting.then_some(wasm.sha256), diagnostics)
        }
    };
    Done {
        file,
        fingerprint,
        outcome,
    }
}
