//! Looks at one plugin file without a node, for its author: what it has, what it wants, what is
//! wrong with it. Serves nothing; what was compiled stays in the cache that a node would use.

use super::{
    Error, Fault, Generation, Outside, advice,
    imports::{self, Import},
    workshop::{Wasm, Workshop},
};
use hostel_config::Config;
use hostel_runtime::health::Health;
use std::{path::Path, time::Duration};

/// What a file shows of itself. What comes after the first obstacle is absent or empty.
#[derive(Debug)]
pub struct Inspection {
    pub bytes: u64,
    /// In hex.
    pub sha256: String,
    /// Absent when it had been compiled before.
    pub compile_time: Option<Duration>,
    /// In the package `hostel:plugin`.
    pub exports: Vec<String>,
    pub imports: Vec<Import>,
    /// Present when a node would take it.
    pub plugin: Option<Generation>,
    /// Why a node would refuse it.
    pub faults: Vec<Fault>,
    /// What will fail at run time, though a node takes the file.
    pub warnings: Vec<String>,
}

/// Everything that can be said about `file`. Fails when there is no engine or `file` cannot be read
/// within the size limit.
pub async fn inspect(config: &Config, file: &Path) -> Result<Inspection, Error> {
    let workshop = Workshop::new(config, Outside::default(), &Health::default())?;
    let wasm = workshop.read(file).map_err(|fault| Error::File {
        file: file.to_owned(),
        fault,
    })?;
    let mut inspection = Inspection {
        bytes: wasm.bytes,
        sha256: wasm.sha256.clone(),
        compile_time: None,
        exports: Vec::new(),
        imports: Vec::new(),
        plugin: None,
        faults: Vec::new(),
        warnings: warnings(&wasm),
    };
    let compiled = match workshop.compile(&wasm).await {
        Ok(compiled) => compiled,
        Err(fault) => {
            inspection.faults.push(fault);
            return Ok(inspection);
        }
    };
    let component = compiled.component;
    inspection.compile_time = compiled.compile_time;
    inspection.exports = workshop.our_exports(&component);
    inspection.imports = imports::required(&workshop.engine.wasmtime, &component);
    match workshop.assemble(&wasm, component).await {
        Ok(generation) => inspection.plugin = Some(generation),
        Err(faults) => inspection.faults = faults,
    }
    Ok(inspection)
}

/// What will fail at run time. Searches the bytes and parses nothing.
fn warnings(wasm: &Wasm) -> Vec<String> {
    let content = std::fs::read(&wasm.file).unwrap_or_default();
    advice::wasm_bindgen(&content).into_iter().collect()
}
