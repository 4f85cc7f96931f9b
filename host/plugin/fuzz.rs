//! Fuzz targets of plugins: what they say about themselves, and their bytes on the way through the compile
//! process.

use crate::{
    Capabilities, TestGuest,
    hostile::{self, Nesting},
    load::{builder::Builder, contract::Exports, manifest::check},
    sandbox::bindings::manifest,
    testing,
};
use hostel_config::Config;
use hostel_fuzz::{Choices, Target};
use hostel_runtime::{health::Health, untrusted::is_unprintable};
use hostel_task::{AttemptResult, transition};
use std::{io::Write, path::Path, sync::LazyLock, time::Duration};
use tokio::runtime::Runtime;

/// Manifests are refused, or their values cause no overflow later.
pub const MANIFESTS: Target = Target {
    name: "manifests",
    seeds: Vec::new,
    check: |bytes| {
        static CONFIG: LazyLock<Config> = LazyLock::new(Config::default);
        let mut choices = Choices::new(bytes);
        let exports = Exports {
            manifest: true,
            task_handler: true,
            component: choices.flag(),
        };
        let Ok(manifest) = check(description(&mut choices), exports, &CONFIG) else {
            return;
        };
        for task_type in manifest.task_types {
            assert!(task_type.timeout <= CONFIG.plugins.max_timeout);
            let attempt = choices.small_number().max(1);
            let jitter = f64::from(choices.byte()) / 255.0;
            let ended = AttemptResult::Lost {
                losses: choices.small_number(),
            };
            let _ = transition(ended, attempt, &task_type.retry, jitter);
        }
    },
};

fn description(choices: &mut Choices<'_>) -> manifest::Description {
    let names = ["echo", "word-count", "a", ""];
    let texts = ["Counts words", "1.0.0", "two\nlines"];
    let task_types = (0..choices.below(4)).map(|_| manifest::TaskType {
        name: choices.near_text(&names),
        description: choices.near_text(&texts),
        timeout_ms: choices.maybe(Choices::number),
        max_attempts: choices.maybe(Choices::small_number),
        backoff_initial_ms: choices.maybe(Choices::number),
        backoff_max_ms: choices.maybe(Choices::number),
        max_concurrency: choices.maybe(Choices::small_number),
    });
    let task_types = task_types.collect();
    let topics = (0..choices.below(4)).map(|_| choices.near_text(&names));
    let topics = topics.collect();
    manifest::Description {
        name: choices.near_text(&names),
        version: choices.near_text(&texts),
        description: choices.near_text(&texts),
        task_types,
        topics,
    }
}

/// A file is compiled, or refused for a reason that is its own, short and printable.
pub const COMPONENTS: Target = Target {
    name: "components",
    seeds: component_seeds,
    check: |bytes| {
        // Mutated text is a sound component more often than mutated bytes are.
        let parsed = wat::parse_bytes(bytes);
        let wasm = parsed.as_deref().unwrap_or(bytes);
        for diagnostic in RUNTIME.block_on(refusals(wasm)) {
            let text = diagnostic.to_string();
            assert!(!text.is_empty() && text.len() < 2048, "{text}");
            assert!(!text.contains(is_unprintable), "{text}");
            // A busy machine may keep a guest from describing itself in time, and the compiler from its end.
            let is_late = ["describe_timeout_ms", "compile_timeout_ms"];
            let is_late = is_late.into_iter().any(|limit| text.contains(limit));
            let is_final = !diagnostic.may_pass() || is_late;
            assert!(is_final, "not the file is blamed: {text}");
            let is_named = !text.contains("the process that compiled it");
            assert!(is_named, "the compile process failed: {text}");
        }
    },
};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

static BUILDER: LazyLock<Builder> = LazyLock::new(|| {
    // Nothing can be kept there: every input is compiled.
    let mut config = testing::config(Path::new("/dev/null"));
    let plugins = &mut config.plugins;
    plugins.max_tasks = 4;
    plugins.compile_timeout = Duration::from_secs(5);
    plugins.max_compile_memory_bytes = 512 << 20;
    plugins.sandbox.max_cpu = Duration::from_millis(100);
    Builder::new(&config, Capabilities::default(), &Health::default()).expect("a builder")
});

/// Why a file with this content is refused; empty where it is a plugin.
async fn refusals(wasm: &[u8]) -> Vec<crate::Diagnostic> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(wasm).expect("a written file");
    match BUILDER.read(file.path()) {
        Ok(wasm) => BUILDER.make(&wasm).await.err().unwrap_or_default(),
        Err(diagnostic) => vec![diagnostic],
    }
}

fn component_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "(component)",
        "(module (func (param i32) (result i32) local.get 0))",
        r#"(component
  (core module $m (memory 1) (func (export "f") (result i32) i32.const 1))
  (core instance $i (instantiate $m))
  (func (export "f") (result u32) (canon lift (core func $i "f"))))"#,
        r#"(component
  (core module (memory 1) (memory 2) (table 1 funcref) (global (mut i64) (i64.const -1))
    (func (param v128) (loop (br_table 0 0 (i32.const 0))))
    (func (result f64) (f64.div (f64.const nan) (f64.const -0)))
    (data (i32.const 0) "a") (elem (i32.const 0) 0)))"#,
        r#"(component
  (type (record (field "a" string) (field "b" (list u8))))
  (type (variant (case "x" 0) (case "y" (option f32))))
  (type (flags "r" "w")) (type (enum "e" "f")) (type (tuple s8 char bool))
  (type (result (list 0) (error string))) (type (resource (rep i32)))
  (core func (canon resource.new 6)) (core func (canon resource.drop 6)))"#,
        r#"(component
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (export "now" (func (result u64)))))
  (import "wasi:nn/tensor@0.2.0" (instance))
  (core func (canon lower (func $clock "now"))))"#,
        r#"(component
  (component $c (type (export "t") (instance (export "r" (type (sub resource))))))
  (instance $i (instantiate $c)) (instance (instantiate $c (with "x" (instance $i))))
  (alias export $i "t" (type)))"#,
    ];
    let sample = TestGuest::default().text();
    let all = texts.into_iter().chain([&*sample]);
    let binaries = all.clone().filter_map(|text| wat::parse_str(text).ok());
    let hostile = [
        hostile::nested_types(Nesting::Instances, 3),
        hostile::nested_types(Nesting::Components, 3),
        hostile::doubling(3),
    ];
    let texts = all.clone().map(|text| text.as_bytes().to_vec());
    binaries.chain(texts).chain(hostile).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn fuzz_manifests() {
        super::MANIFESTS.run();
    }

    #[test]
    fn fuzz_components() {
        super::COMPONENTS.run();
    }
}
