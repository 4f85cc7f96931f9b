//! Tests of the plugin host as a whole.

use super::{testing::config, *};
use crate::{lifecycle::Component, task::Ended};
use bytes::Bytes;
use std::{sync::Arc, time::Instant};
use tokio_util::sync::CancellationToken;

fn call(payload: &[u8]) -> Call {
    Call {
        id: testing::name("task-1"),
        payload: Bytes::copy_from_slice(payload),
        metadata: Arc::default(),
        attempt: 1,
        cancel: CancellationToken::new(),
    }
}

/// Skipped when the SDK's echo has not been built for wasm.
#[tokio::test(flavor = "multi_thread")]
async fn real_echo() {
    let wasm = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/target/wasm32-wasip2/release/echo.wasm"
    );
    if !std::path::Path::new(wasm).exists() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    std::fs::create_dir_all(&config.plugins.dir).unwrap();
    std::fs::copy(wasm, config.plugins.dir.join("echo.wasm")).unwrap();
    for round in 0..2 {
        let begin = Instant::now();
        let host = PluginHost::new(&config).unwrap();
        println!("round {round}: engine {:?}", begin.elapsed());
        let begin = Instant::now();
        host.start().await.unwrap();
        println!("round {round}: start {:?}", begin.elapsed());
        println!("{:?}", host.catalog().view().rejected);
        let echo = host.catalog().resolve("echo").unwrap();
        let finished = echo.run(call(b"hello")).await;
        assert_eq!(
            finished.ended,
            Ended::Returned(Bytes::from_static(b"hello"))
        );
        println!("{:?}", finished.usage);
        let begin = Instant::now();
        for _ in 0..20000 {
            echo.run(call(b"hello")).await;
        }
        println!("run: {:?}", begin.elapsed() / 20000);
        let here = echo.clone();
        let each = host.runtime().spawn(async move {
            let begin = Instant::now();
            for _ in 0..20000 {
                here.run_here(call(b"hello")).await;
            }
            begin.elapsed() / 20000
        });
        println!("run_here: {:?}", each.await.unwrap());
        host.stop().await.unwrap();
    }
}

/// A host that serves these samples, each from a file called by its name.
async fn serving(config: &crate::config::Config, samples: &[Sample<'_>]) -> Arc<PluginHost> {
    std::fs::create_dir_all(&config.plugins.dir).unwrap();
    for sample in samples {
        let file = config.plugins.dir.join(format!("{}.wasm", sample.name));
        std::fs::write(file, sample.wasm().unwrap()).unwrap();
    }
    let host = PluginHost::new(config).unwrap();
    host.start().await.unwrap();
    host
}

/// What becomes of a task for the sample whose `handle` is this.
async fn end_of(handle: &str, change: impl FnOnce(&mut crate::config::Config)) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    change(&mut config);
    let sample = Sample {
        handle,
        extra: sample::GROWABLE_TABLE,
        ..Sample::default()
    };
    let host = serving(&config, &[sample]).await;
    let rejected = &host.catalog().view().rejected;
    let handler = host
        .catalog()
        .resolve("sample")
        .unwrap_or_else(|| panic!("{rejected:?}"));
    let ended = handler.run(call(b"hello")).await.ended;
    host.stop().await.unwrap();
    ended
}

fn permanent(ended: Ended) -> String {
    match ended {
        Ended::Permanent { error } => error,
        other => panic!("{other:?}"),
    }
}

fn retryable(ended: Ended) -> String {
    match ended {
        Ended::Retryable { error, after: None } => error,
        other => panic!("{other:?}"),
    }
}

fn timeout(ms: u64) -> impl Fn(&mut crate::config::Config) {
    move |config| config.plugins.sandbox.timeout = std::time::Duration::from_millis(ms)
}

fn max_cpu(ms: u64) -> impl Fn(&mut crate::config::Config) {
    move |config| config.plugins.sandbox.max_cpu = std::time::Duration::from_millis(ms)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_echoes() {
    let ended = end_of(sample::ECHO, |_| {}).await;
    assert_eq!(ended, Ended::Returned(Bytes::from_static(b"hello")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_fires_and_names_its_setting() {
    for hostile in [sample::SPIN, sample::CALL_HOST] {
        let error = retryable(end_of(hostile, timeout(100)).await);
        assert_eq!(error, "it took longer than its timeout of 100 ms");
        let error = permanent(end_of(hostile, max_cpu(50)).await);
        assert!(
            error.contains("50 ms of processor time (plugins.sandbox.max_cpu_ms)"),
            "{error}"
        );
    }
    for (hostile, setting) in [
        (
            sample::GROW_MEMORY,
            "67108864 bytes of memory (plugins.sandbox.max_memory_bytes)",
        ),
        (
            sample::GROW_TABLE,
            "100000 table elements (plugins.sandbox.max_table_elements)",
        ),
        (
            sample::RETURN_TOO_MUCH,
            "4128768 bytes (plugins.sandbox.max_result_bytes)",
        ),
        (sample::RECURSE, "recursed deeper than its stack"),
    ] {
        let error = permanent(end_of(hostile, |_| {}).await);
        assert!(error.contains(setting), "{error}");
    }
    let error = retryable(end_of(sample::TRAP, |_| {}).await);
    assert!(
        error.contains("`unreachable` instruction executed"),
        "{error}"
    );
    let ended = end_of(sample::LOG_TOO_MUCH, |_| {}).await;
    assert_eq!(ended, Ended::Returned(Bytes::from_static(b"hello")));
    let ended = end_of(sample::LOOK_AROUND, |_| {}).await;
    assert_eq!(ended, Ended::Returned(Bytes::new()));
}
