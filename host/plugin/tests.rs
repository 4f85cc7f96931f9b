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
    let too_much = &sample::result_of(60 << 20);
    for (hostile, setting) in [
        (
            sample::GROW_MEMORY,
            "67108864 bytes of memory (plugins.sandbox.max_memory_bytes)",
        ),
        (
            sample::GROW_TABLE,
            "100000 table elements (plugins.sandbox.max_table_elements)",
        ),
        (too_much, "4128768 bytes (plugins.sandbox.max_result_bytes)"),
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

/// Waits until the catalog is as told, for at most five seconds.
async fn until(host: &PluginHost, what: &str, holds: impl Fn(&View) -> bool) {
    let mut changed = host.changed();
    let waiting = async {
        while !holds(&host.catalog().view()) {
            changed.changed().await.unwrap();
        }
    };
    let limit = std::time::Duration::from_secs(5);
    if tokio::time::timeout(limit, waiting).await.is_err() {
        panic!("{what}: {:?}", host.catalog().view());
    }
}

fn version(view: &View, plugin: &str) -> String {
    let generation = view.generations.get(plugin);
    generation.map_or_else(String::new, |generation| generation.version.clone())
}

fn errors(view: &View) -> String {
    let errors: Vec<_> = view.rejected.iter().map(|r| r.error.as_str()).collect();
    errors.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_replacing_a_file_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugins.rescan = std::time::Duration::from_secs(2);
    let of = |version| {
        let sample = Sample {
            version,
            ..Sample::default()
        };
        sample.wasm().unwrap()
    };
    let host = serving(&config, &[Sample::default()]).await;
    let file = config.plugins.dir.join("sample.wasm");
    let temporary = config.plugins.dir.join("sample.tmp");

    std::fs::write(&file, of("2")).unwrap();
    until(&host, "in place", |view| version(view, "sample") == "2").await;
    std::fs::write(&temporary, of("3")).unwrap();
    std::fs::rename(&temporary, &file).unwrap();
    until(&host, "rename", |view| version(view, "sample") == "3").await;
    std::fs::write(&temporary, of("4")).unwrap();
    std::fs::copy(&temporary, &file).unwrap();
    until(&host, "copy", |view| version(view, "sample") == "4").await;

    let old = host.catalog().resolve("sample").unwrap();
    std::fs::remove_file(&file).unwrap();
    until(&host, "deleted", |view| view.generations.is_empty()).await;
    assert!(host.catalog().resolve("sample").is_none());
    let ended = old.run(call(b"still")).await.ended;
    assert_eq!(ended, Ended::Returned(Bytes::from_static(b"still")));
    std::os::unix::fs::symlink(&temporary, &file).unwrap();
    until(&host, "put back as a link", |view| {
        version(view, "sample") == "4"
    })
    .await;
    let other = dir.path().join("5.wasm");
    std::fs::write(&other, of("5")).unwrap();
    std::os::unix::fs::symlink(&other, config.plugins.dir.join("link")).unwrap();
    std::fs::rename(config.plugins.dir.join("link"), &file).unwrap();
    until(&host, "swapped link", |view| version(view, "sample") == "5").await;
    std::fs::write(&other, of("6")).unwrap();
    until(&host, "behind the link", |view| {
        version(view, "sample") == "6"
    })
    .await;
    host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_never_unseats_what_serves() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugins.sandbox.describe_timeout = std::time::Duration::from_millis(200);
    let host = serving(&config, &[Sample::default()]).await;
    let file = config.plugins.dir.join("sample.wasm");
    let good = std::fs::read(&file).unwrap();
    let describing = |describe| Sample {
        version: "2",
        describe,
        ..Sample::default()
    };
    let of = |sample: Sample<'_>| sample.wasm().unwrap();
    for (content, error) in [
        (b"rubbish".to_vec(), "is not WebAssembly"),
        (good[..good.len() / 2].to_vec(), "is not a valid component"),
        (
            wat::parse_str("(module)").unwrap(),
            "--target wasm32-wasip2",
        ),
        (
            wat::parse_str("(component)").unwrap(),
            "does not export hostel:plugin/manifest@0.1.0",
        ),
        (
            of(describing(sample::TRAP)),
            "failed to describe itself: wasm trap",
        ),
        (
            of(describing(sample::SPIN)),
            "within 200 ms (plugins.sandbox.describe_timeout_ms)",
        ),
        (
            of(describing(
                "(drop (memory.grow (i32.const 10000))) unreachable",
            )),
            "max_memory_bytes",
        ),
        (
            of(Sample {
                name: "a b",
                ..Sample::default()
            }),
            "only letters",
        ),
        (
            of(Sample {
                version: "",
                ..Sample::default()
            }),
            "version is empty",
        ),
        (
            of(Sample {
                task_types: &["x", "x"],
                ..Sample::default()
            }),
            "declared twice",
        ),
        (
            of(Sample {
                task_types: &[],
                ..Sample::default()
            }),
            "declares no task types",
        ),
        (
            of(Sample {
                interface: "0.2.0",
                ..Sample::default()
            }),
            "exports hostel:plugin/manifest@0.2.0, which this node does not know",
        ),
    ] {
        std::fs::write(&file, content).unwrap();
        until(&host, error, |view| errors(view).contains(error)).await;
        assert_eq!(version(&host.catalog().view(), "sample"), "1");
        let handler = host.catalog().resolve("sample").unwrap();
        let ended = handler.run(call(b"on")).await.ended;
        assert_eq!(ended, Ended::Returned(Bytes::from_static(b"on")));
    }
    std::fs::write(&file, &good).unwrap();
    until(&host, "good again", |view| view.rejected.is_empty()).await;
    host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_and_a_type_have_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let samples = [
        Sample {
            name: "b",
            task_types: &["t", "u"],
            ..Sample::default()
        },
        Sample {
            name: "a",
            task_types: &["t"],
            ..Sample::default()
        },
    ];
    let host = serving(&config, &samples).await;
    let file = |name: &str| config.plugins.dir.join(format!("{name}.wasm"));
    assert_eq!(
        host.catalog()
            .resolve("t")
            .unwrap()
            .generation
            .name
            .as_str(),
        "a"
    );
    let error = errors(&host.catalog().view());
    assert_eq!(
        error,
        "its task type t is taken by plugin a (a.wasm): rename the type, or remove a.wasm"
    );
    std::fs::remove_file(file("a")).unwrap();
    until(&host, "b comes in", |view| version(view, "b") == "1").await;
    // Whoever serves stays, whatever its file is called.
    std::fs::write(file("a"), samples[1].wasm().unwrap()).unwrap();
    until(&host, "a is refused", |view| {
        errors(view).contains("taken by plugin b")
    })
    .await;
    let twin = Sample {
        name: "b",
        task_types: &["v"],
        ..Sample::default()
    };
    std::fs::write(file("0"), twin.wasm().unwrap()).unwrap();
    until(&host, "twin", |view| {
        errors(view).contains("its name b is taken by b.wasm")
    })
    .await;
    let narrower = Sample {
        name: "b",
        version: "2",
        task_types: &["u"],
        ..Sample::default()
    };
    std::fs::write(file("b"), narrower.wasm().unwrap()).unwrap();
    until(&host, "a serves t", |view| version(view, "a") == "1").await;
    host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_when_it_is_cancelled_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugins.max_tasks = 1;
    let samples = [
        Sample {
            name: "spin",
            task_types: &["spin"],
            handle: sample::SPIN,
            ..Sample::default()
        },
        Sample::default(),
    ];
    let host = serving(&config, &samples).await;
    let spin = host.catalog().resolve("spin").unwrap();
    let spinning = call(b"");
    let cancel = spinning.cancel.clone();
    let running = tokio::spawn(async move { spin.run(spinning).await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let begin = Instant::now();
    cancel.cancel();
    let finished = running.await.unwrap();
    assert_eq!(finished.ended, Ended::Cancelled);
    assert!(finished.usage.cpu.as_millis() >= 20, "{:?}", finished.usage);
    assert!(begin.elapsed().as_millis() < 100, "{:?}", begin.elapsed());

    // More of them than the pool has places: those that wait can be ended too, and dropping one
    // gives its place back.
    let slots = host.runtime().metrics().num_workers() + 60;
    let spins: Vec<_> = (0..slots)
        .map(|_| {
            let spin = host.catalog().resolve("spin").unwrap();
            tokio::spawn(async move { spin.run(call(b"")).await })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    for spin in &spins {
        spin.abort();
    }
    let begin = Instant::now();
    let echo = host.catalog().resolve("sample").unwrap();
    let ended = echo.run(call(b"next")).await.ended;
    assert_eq!(ended, Ended::Returned(Bytes::from_static(b"next")));
    assert!(begin.elapsed().as_secs() < 2, "{:?}", begin.elapsed());
    host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_can_prove_itself() {
    let dir = tempfile::tempdir().unwrap();
    let checks = verify_self(&config(dir.path())).await.unwrap();
    for check in &checks {
        println!("{check:?}");
    }
    assert!(
        checks.len() >= 10 && checks.iter().all(|check| check.fired),
        "{checks:#?}"
    );
    assert!(!dir.path().join("data").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_inspected_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let file = dir.path().join("sample.wasm");
    std::fs::write(&file, Sample::default().wasm().unwrap()).unwrap();
    let good = inspect(&config, &file).await.unwrap();
    assert_eq!(good.plugin.unwrap().name.as_str(), "sample");
    assert_eq!(good.exports.len(), 2);
    assert!(good.faults.is_empty() && good.imports.iter().all(|import| import.provided));

    let wat = r#"(component
        (import "wasi:http/types@0.2.0" (instance))
        (import "wasi:config/store@0.2.0-draft" (instance)))"#;
    std::fs::write(&file, wat::parse_str(wat).unwrap()).unwrap();
    let bad = inspect(&config, &file).await.unwrap();
    assert_eq!(
        bad.imports.iter().filter(|import| !import.provided).count(),
        2
    );
    let faults: Vec<_> = verify(&config, &file).await.unwrap();
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(faults[0].contains("does not export hostel:plugin/manifest@0.1.0"));
    assert!(faults[1].contains("plugins have no network"));
    assert!(faults[2].contains("0.2.0-rc.1"));
    let missing = verify(&config, &dir.path().join("none.wasm"))
        .await
        .unwrap();
    assert!(
        missing[0].to_string().contains("cannot be read"),
        "{missing:?}"
    );
}
