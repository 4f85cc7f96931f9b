//! Looks at one plugin file without a node, for its author: what it has, what it wants, what is
//! wrong with it. Serves nothing and leaves nothing behind.

use super::{
    Error, Fault, Generation, advice,
    imports::{self, Import},
    workshop::Workshop,
};
use crate::config::Config;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// What a file shows of itself. What comes after the first obstacle is absent or empty.
#[derive(Debug)]
pub struct Inspection {
    pub bytes: usize,
    /// In hex.
    pub sha256: String,
    /// Without the cache.
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
    let workshop = Workshop::without_cache(config)?;
    let wasm = workshop.read(file).map_err(|fault| Error::File {
        file: file.to_owned(),
        fault,
    })?;
    let mut inspection = Inspection {
        bytes: wasm.bytes.len(),
        sha256: wasm.sha256.clone(),
        compile_time: None,
        exports: Vec::new(),
        imports: Vec::new(),
        plugin: None,
        faults: Vec::new(),
        warnings: advice::wasm_bindgen(&wasm.bytes).into_iter().collect(),
    };
    let begin = Instant::now();
    let component = match workshop.compile(&wasm).await {
        Ok(component) => component,
        Err(fault) => {
            inspection.faults.push(fault);
            return Ok(inspection);
        }
    };
    inspection.compile_time = Some(begin.elapsed());
    inspection.exports = workshop.our_exports(&component);
    inspection.imports = imports::required(&workshop.engine.wasmtime, &component);
    match workshop.assemble(file, wasm.sha256, component).await {
        Ok(generation) => inspection.plugin = Some(generation),
        Err(faults) => inspection.faults = faults,
    }
    Ok(inspection)
}
