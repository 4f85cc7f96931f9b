//! Inspects one plugin file without a node, for its author: its exports, imports and diagnostics. Serves
//! nothing; the compiled code stays in the cache that a node would use.

use super::{
    compile::{hints, wasm_file::WasmFile},
    diagnostic::Diagnostic,
    error::Error,
    generation::Generation,
    load::builder::Builder,
    sandbox::{
        capabilities::Capabilities,
        imports::{self, Import},
    },
};
use hostel_config::Config;
use hostel_runtime::health::Health;
use std::{path::Path, time::Duration};

/// The result of an inspection. What could not be found out is absent or empty.
#[derive(Debug)]
pub struct Inspection {
    /// The size of the file in bytes.
    pub bytes: u64,
    /// In hex.
    pub sha256: String,
    /// Absent if the file had been compiled before.
    pub compile_time: Option<Duration>,
    /// The exports in the package `hostel:plugin`.
    pub exports: Vec<String>,
    /// What the plugin imports.
    pub imports: Vec<Import>,
    /// Present if a node would load it.
    pub plugin: Option<Generation>,
    /// Why a node would refuse it.
    pub diagnostics: Vec<Diagnostic>,
    /// What will fail at run time, although a node loads the file.
    pub warnings: Vec<String>,
}

/// Inspects `file`. Fails if there is no engine, or if `file` is unreadable or larger than the limit.
pub async fn inspect(config: &Config, file: &Path) -> Result<Inspection, Error> {
    let builder = Builder::new(config, Capabilities::default(), &Health::default())?;
    let wasm = builder.read(file).map_err(|diagnostic| Error::File {
        file: file.to_owned(),
        diagnostic,
    })?;
    let mut inspection = Inspection {
        bytes: wasm.bytes,
        sha256: wasm.sha256.clone(),
        compile_time: None,
        exports: Vec::new(),
        imports: Vec::new(),
        plugin: None,
        diagnostics: Vec::new(),
        warnings: warnings(&wasm),
    };
    let compiled = match builder.compile(&wasm).await {
        Ok(compiled) => compiled,
        Err(diagnostic) => {
            inspection.diagnostics.push(diagnostic);
            return Ok(inspection);
        }
    };
    let component = compiled.component;
    inspection.compile_time = compiled.compile_time;
    inspection.exports = builder.exports_of(&component);
    inspection.imports = imports::required(&builder.engine.wasmtime, &component);
    match builder.assemble(&wasm, component).await {
        Ok(generation) => inspection.plugin = Some(generation),
        Err(diagnostics) => inspection.diagnostics = diagnostics,
    }
    Ok(inspection)
}

/// What will fail at run time. Searches the bytes without parsing them.
fn warnings(wasm: &WasmFile) -> Vec<String> {
    let content = std::fs::read(&wasm.file).unwrap_or_default();
    hints::wasm_bindgen(&content).into_iter().collect()
}
