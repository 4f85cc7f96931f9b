//! Hints for the author of a file that is no plugin: how other toolchains make components, and what
//! replaces libraries that need a browser. Works on bytes and texts, never on a component.

use memchr::memmem;

/// The diagnostic of a core module, which every toolchain makes before it makes a component.
pub const CORE_MODULE: &str = "is a core module, not a component: in Rust build for \
    --target wasm32-wasip2 (`hostel plugins build` does), in C for --target=wasm32-wasip2 with \
    wasi-sdk, in Go with `tinygo build -target=wasip2`, in JavaScript with `jco componentize`, in \
    Python with `componentize-py`; another core module becomes a component by \
    `wasm-tools component new`";

/// The diagnostic of a file that wasmtime refused with `error`, with what to do about it if that is known.
pub fn invalid(error: &str) -> String {
    if let Some((minimum, limit)) = memory_above_limit(error) {
        return format!(
            "has a memory of at least {minimum} bytes, and plugins may have {limit} \
             (plugins.sandbox.max_memory_bytes, plugin.NAME.limits.max_memory_bytes): raise the \
             limit, or build the plugin with a smaller initial memory"
        );
    }
    if error.contains("component model async") {
        return "is built for async calls (component-model-async), which this node does not offer: \
                build it synchronous; componentize-qjs does so with --sync, wit-bindgen without its \
                feature async"
            .to_owned();
    }
    format!("is not a valid component: {error}")
}

/// The minimum of a memory and the limit that it exceeds, if `error` is about that. A test fails if
/// wasmtime's text changes.
fn memory_above_limit(error: &str) -> Option<(u64, u64)> {
    let (_, sizes) = error.split_once("memory has a minimum byte size of ")?;
    let (minimum, limit) = sizes.split_once(" which exceeds the limit of ")?;
    let limit = limit.split_whitespace().next()?;
    let bytes = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    Some((bytes(minimum)?, bytes(limit)?))
}

/// Signs of code that uses wasm-bindgen: the module that it imports from if its target is a JavaScript
/// host, and its panics otherwise.
const WASM_BINDGEN: [&str; 3] = [
    "__wbindgen_placeholder__",
    "on non-wasm targets",
    "on non-wasm32 targets",
];

/// Crates that depend on it, as the paths in panic messages name them, and what to use instead.
const CRATES: [(&str, &str); 7] = [
    ("reqwest-", "reqwest (plugins have no network)"),
    ("gloo-", "gloo (std has time and timers)"),
    ("web-sys-", "web-sys (there is no browser)"),
    ("js-sys-", "js-sys (std has time, numbers and text)"),
    ("chrono-", "chrono (without its feature wasmbind)"),
    ("uuid-", "uuid (without its feature js)"),
    ("getrandom-", "getrandom (without wasm_js, js)"),
];

/// A warning about a file that contains wasm-bindgen: it may load, and fails at run time.
pub fn wasm_bindgen(wasm: &[u8]) -> Option<String> {
    let has = |needle: &str| memmem::find(wasm, needle.as_bytes()).is_some();
    let found = WASM_BINDGEN.into_iter().find(|needle| has(needle))?;
    let crates = CRATES.iter().filter(|(name, _)| has(&format!("/{name}")));
    let crates: Vec<&str> = crates.map(|(_, instead)| *instead).collect();
    let origin = if crates.is_empty() {
        String::new()
    } else {
        format!("; it may come from {}", crates.join(", "))
    };
    Some(format!(
        "has code of wasm-bindgen in it ({found:?}), which needs a JavaScript host and panics when \
         it is called here: leave out the crate or the feature that brings it in (`cargo tree \
         --target wasm32-wasip2 -i wasm-bindgen` shows it){origin}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::{Config, Engine, PoolingAllocationConfig, component::Component};

    fn refused(wat: &str) -> String {
        let mut pool = PoolingAllocationConfig::new();
        pool.max_memory_size(64 << 10);
        let mut config = Config::new();
        config.allocation_strategy(pool);
        let engine = Engine::new(&config).unwrap();
        let error = Component::new(&engine, wat).err().unwrap();
        invalid(&format!("{error:#}"))
    }

    #[test]
    fn a_memory_above_the_limit_is_explained_with_the_setting() {
        let hint = refused("(component (core module (memory 2)))");
        assert!(
            hint.starts_with("has a memory of at least 131072 bytes, and plugins may have 65536"),
            "{hint}"
        );
        assert!(hint.contains("plugins.sandbox.max_memory_bytes"), "{hint}");
    }

    #[test]
    fn an_async_component_is_explained_with_the_flag_to_build_it_with() {
        let hint = refused("(component (core func (canon task.return)))");
        assert!(hint.contains("--sync"), "{hint}");
        let hint = refused("(component (core module (func (result i32))))");
        assert!(hint.starts_with("is not a valid component: "), "{hint}");
    }

    #[test]
    fn the_fault_of_a_core_module_names_every_toolchain() {
        for word in [
            "wasm32-wasip2",
            "wasi-sdk",
            "tinygo",
            "jco",
            "componentize-py",
        ] {
            assert!(CORE_MODULE.contains(word), "{word}");
        }
    }

    #[test]
    fn wasm_bindgen_is_found_with_the_crates_that_depend_on_it() {
        assert_eq!(wasm_bindgen(b"\0asm nothing of it"), None);
        let hint = wasm_bindgen(b"\0asm..__wbindgen_placeholder__..").unwrap();
        assert!(hint.contains("__wbindgen_placeholder__") && !hint.contains("reqwest"));
        let compiled =
            b"function not implemented on non-wasm32 targets\0/reqwest-0.12.9/src/lib.rs";
        let hint = wasm_bindgen(compiled).unwrap();
        assert!(hint.contains("reqwest (plugins have no network)"), "{hint}");
    }
}
