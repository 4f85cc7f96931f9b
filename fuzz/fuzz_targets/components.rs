#![no_main]

use hostel_plugin::fuzz::COMPONENTS;

/// The compile process counts its own coverage, if any. What its parser would do is done here first, so
/// that the parser's coverage guides.
fn parse(bytes: &[u8]) {
    if let Ok(wasm) = wat::parse_bytes(bytes) {
        let features = wasmparser::WasmFeatures::all();
        let _ = wasmparser::Validator::new_with_features(features).validate_all(&wasm);
    }
}

hostel_fuzz_targets::program!(COMPONENTS, parse);
