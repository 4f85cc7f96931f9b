//! Every limit has a guest that trips it.

use super::*;

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
    move |config| config.plugins.sandbox.timeout = Duration::from_millis(ms)
}

fn max_cpu(ms: u64) -> impl Fn(&mut crate::config::Config) {
    move |config| config.plugins.sandbox.max_cpu = Duration::from_millis(ms)
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
    tokio::time::sleep(Duration::from_millis(100)).await;
    cancel.cancel();
    let finished = running.await.unwrap();
    assert_eq!(finished.ended, Ended::Cancelled);
    assert!(!finished.usage.cpu.is_zero(), "{:?}", finished.usage);

    // More of them than the pool has places: those that wait can be ended too, and dropping one
    // gives its place back.
    let slots = host.runtime().metrics().num_workers() + 60;
    let spins: Vec<_> = (0..slots)
        .map(|_| {
            let spin = host.catalog().resolve("spin").unwrap();
            tokio::spawn(async move { spin.run(call(b"")).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for spin in &spins {
        spin.abort();
    }
    let echo = host.catalog().resolve("sample").unwrap();
    // Had the spins kept their places, it would wait for minutes of their processor time.
    let echoed = tokio::time::timeout(Duration::from_secs(60), echo.run(call(b"next"))).await;
    let ended = echoed.unwrap().ended;
    assert_eq!(ended, Ended::Returned(Bytes::from_static(b"next")));
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
async fn a_plugin_that_can_never_have_its_memory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugins.max_total_memory_bytes = 8 << 20;
    let host = serving(&config, &[Sample::default()]).await;
    let error = errors(&host.catalog().view());
    for setting in [
        "plugins.sandbox.max_memory_bytes",
        "plugins.max_total_memory_bytes",
    ] {
        assert!(error.contains(setting), "{error}");
    }
    host.stop().await.unwrap();

    config.plugins.sandbox.max_memory_bytes = 8 << 20;
    let host = serving(&config, &[Sample::default()]).await;
    let handler = host.catalog().resolve("sample").unwrap();
    // One at a time, and both come through.
    let (one, other) = tokio::join!(handler.run(call(b"1")), handler.run(call(b"2")));
    assert_eq!(one.ended, Ended::Returned(Bytes::from_static(b"1")));
    assert_eq!(other.ended, Ended::Returned(Bytes::from_static(b"2")));
    host.stop().await.unwrap();
}
