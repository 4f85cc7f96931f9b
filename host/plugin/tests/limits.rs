//! For every limit, a guest that reaches it.

use super::*;

/// How a task of the guest with this `handle` ends.
async fn end_of(handle: &str, change: impl FnOnce(&mut hostel_config::Config)) -> AttemptResult {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    change(&mut config);
    let sample = TestGuest {
        handle,
        extra: test_guest::GROWABLE_TABLE,
        ..TestGuest::default()
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

/// A guest that never returns, and one that answers at once.
fn spin_and_echo() -> [TestGuest<'static>; 2] {
    let spin = TestGuest {
        name: "spin",
        task_types: &["spin"],
        handle: test_guest::SPIN,
        ..TestGuest::default()
    };
    [spin, TestGuest::default()]
}

fn permanent(ended: AttemptResult) -> String {
    match ended {
        AttemptResult::Permanent { error } => error,
        other => panic!("{other:?}"),
    }
}

fn retryable(ended: AttemptResult) -> String {
    match ended {
        AttemptResult::Retryable { error, after: None } => error,
        other => panic!("{other:?}"),
    }
}

fn timeout(ms: u64) -> impl Fn(&mut hostel_config::Config) {
    move |config| config.plugins.sandbox.timeout = Duration::from_millis(ms)
}

fn max_cpu(ms: u64) -> impl Fn(&mut hostel_config::Config) {
    move |config| config.plugins.sandbox.max_cpu = Duration::from_millis(ms)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_echoes() {
    let ended = end_of(test_guest::ECHO, |_| {}).await;
    assert_eq!(ended, AttemptResult::Returned(Bytes::from_static(b"hello")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_holds_and_is_named_with_its_setting() {
    for hostile in [test_guest::SPIN, test_guest::CALL_HOST] {
        let error = retryable(end_of(hostile, timeout(100)).await);
        assert_eq!(error, "it took longer than its timeout of 100 ms");
        let error = permanent(end_of(hostile, max_cpu(50)).await);
        assert!(
            error.contains("50 ms of processor time (plugins.sandbox.max_cpu_ms)"),
            "{error}"
        );
    }
    let too_much = &test_guest::result_of(60 << 20);
    for (hostile, setting) in [
        (
            test_guest::GROW_MEMORY,
            "67108864 bytes of memory (plugins.sandbox.max_memory_bytes)",
        ),
        (
            test_guest::GROW_TABLE,
            "100000 table elements (plugins.sandbox.max_table_elements)",
        ),
        (too_much, "4128768 bytes (plugins.sandbox.max_result_bytes)"),
        (test_guest::RECURSE, "recursed deeper than its stack"),
    ] {
        let error = permanent(end_of(hostile, |_| {}).await);
        assert!(error.contains(setting), "{error}");
    }
    let error = retryable(end_of(test_guest::TRAP, |_| {}).await);
    assert!(
        error.contains("`unreachable` instruction executed"),
        "{error}"
    );
    let ended = end_of(test_guest::LOG_TOO_MUCH, |_| {}).await;
    assert_eq!(ended, AttemptResult::Returned(Bytes::from_static(b"hello")));
    // Of one long record the rest is dropped, up to what the node takes at all.
    let log = |bytes: usize| {
        format!(
            "(drop (memory.grow (i32.const 200)))
            (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 262144) (i32.const {bytes}))"
        )
    };
    let ended = end_of(&log(5 << 20), |_| {}).await;
    assert_eq!(ended, AttemptResult::Returned(Bytes::new()));
    let error = permanent(end_of(&log(12 << 20), |_| {}).await);
    assert!(error.contains("limits.max_payload_bytes"), "{error}");
    let ended = end_of(test_guest::LOOK_AROUND, |_| {}).await;
    assert_eq!(ended, AttemptResult::Returned(Bytes::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_survives_a_limit_fails_for_its_own_reason() {
    const DENIED: &str = "(drop (memory.grow (i32.const 60000)))";
    const BOOM: &str = "(i32.store (i32.const 4096) (i32.const 0x6d6f6f62))
        (call $log (i32.const 5) (i32.const 0) (i32.const 0) (i32.const 4096) (i32.const 4))";
    let limit = "it needed more than 67108864 bytes of memory (plugins.sandbox.max_memory_bytes)";
    let survived = format!("{DENIED} {BOOM} unreachable");
    let error = retryable(end_of(&survived, |_| {}).await);
    assert!(
        error.ends_with(&format!("executed: boom; before that, {limit}")),
        "{error}"
    );
    // What it said before it was denied more memory is no reason to try again.
    let failed = format!("{BOOM} {DENIED} unreachable");
    let error = permanent(end_of(&failed, |_| {}).await);
    assert_eq!(error, format!("{limit}: boom"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_when_it_is_cancelled_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugins.max_tasks = 1;
    let host = serving(&config, &spin_and_echo()).await;
    let spin = host.catalog().resolve("spin").unwrap();
    let spinning = call(b"");
    let cancel = spinning.cancel.clone();
    let running = tokio::spawn(async move { spin.run(spinning).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    cancel.cancel();
    let finished = running.await.unwrap();
    assert_eq!(finished.ended, AttemptResult::Cancelled);
    assert!(!finished.usage.cpu.is_zero(), "{:?}", finished.usage);

    // More of them than the pool has slots: those that wait can be dropped too, and dropping one gives
    // its slot back.
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
    // If the others kept their slots, this would wait for minutes of their processor time.
    let echoed = tokio::time::timeout(Duration::from_secs(60), echo.run(call(b"next"))).await;
    let ended = echoed.unwrap().ended;
    assert_eq!(ended, AttemptResult::Returned(Bytes::from_static(b"next")));
    host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_self_check_finds_that_every_limit_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // Less than the guests take that have to reach another limit.
    config.plugins.sandbox.max_cpu = Duration::from_millis(50);
    let checks = verify_self(&config).await.unwrap();
    for check in &checks {
        println!("{check:?}");
    }
    assert!(
        checks.len() >= 10 && checks.iter().all(|check| check.fired),
        "{checks:#?}"
    );
    assert!(!dir.path().join("data").exists());
    // Each by its own limit.
    let ended = |limit: &str| {
        let check = checks.iter().find(|check| check.limit.starts_with(limit));
        check.unwrap().detail.clone()
    };
    for (limit, words) in [
        ("timeout of a busy", "timeout of 200 ms"),
        ("timeout of a guest", "timeout of 200 ms"),
        ("processor", "50 ms of processor time"),
        ("memory", "max_memory_bytes"),
        ("tables", "max_table_elements"),
        ("stack", "recursed deeper"),
        ("size of a result", "max_result_bytes"),
        ("size of a log", "its log was cut off"),
    ] {
        let detail = ended(limit);
        assert!(detail.contains(words), "{limit}: {detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_admission_is_part_of_the_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // Memory for one task, and for no component.
    config.plugins.max_total_memory_bytes = 100 << 20;
    let quick = hostel_config::TaskTypeOverrides {
        timeout: Some(Duration::from_millis(200)),
        ..Default::default()
    };
    // The name of the plugin and of its task type.
    let name = || hostel_task::Name::parse("name", "sample").unwrap();
    let plugin = hostel_config::Plugin {
        task: [(name(), quick)].into(),
        ..Default::default()
    };
    config.plugin.insert(name(), plugin);
    let host = serving(&config, &spin_and_echo()).await;
    let spin = host.catalog().resolve("spin").unwrap();
    let spinning = call(b"");
    let cancel = spinning.cancel.clone();
    let all = host.free();
    let running = tokio::spawn(async move { spin.run(spinning).await });
    while host.free() == all {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let waiting = host.catalog().resolve("sample").unwrap();
    let ended = waiting.run(call(b"1")).await.ended;
    let AttemptResult::Retryable { error, .. } = ended else {
        panic!("{ended:?}");
    };
    assert!(error.contains("no room for it within 200 ms"), "{error}");
    cancel.cancel();
    running.await.unwrap();
    let ended = waiting.run(call(b"2")).await.ended;
    assert_eq!(ended, AttemptResult::Returned(Bytes::from_static(b"2")));
    host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_memory_limit_never_fits_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugins.max_total_memory_bytes = 8 << 20;
    let host = serving(&config, &[TestGuest::default()]).await;
    let error = errors(&host.catalog().view());
    for setting in [
        "plugins.sandbox.max_memory_bytes",
        "plugins.max_total_memory_bytes",
    ] {
        assert!(error.contains(setting), "{error}");
    }
    host.stop().await.unwrap();

    // Components have a quarter of it.
    config.plugins.max_total_memory_bytes = 11 << 20;
    config.plugins.sandbox.max_memory_bytes = 8 << 20;
    let host = serving(&config, &[TestGuest::default()]).await;
    let handler = host.catalog().resolve("sample").unwrap();
    // One at a time, and both succeed.
    let (one, other) = tokio::join!(handler.run(call(b"1")), handler.run(call(b"2")));
    assert_eq!(one.ended, AttemptResult::Returned(Bytes::from_static(b"1")));
    assert_eq!(
        other.ended,
        AttemptResult::Returned(Bytes::from_static(b"2"))
    );
    host.stop().await.unwrap();
}

fn two_memories<'a>(name: &'a &'a str, handle: &'a str) -> TestGuest<'a> {
    TestGuest {
        name,
        task_types: std::slice::from_ref(name),
        extra: "(memory $second 1)",
        handle,
        ..TestGuest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_memories_of_a_guest_count_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugins.sandbox.max_memory_bytes = 8 << 20;
    // 3 MiB more in each of two memories fit, 5 MiB do not.
    let grow = |pages: u32| {
        format!(
            "(if (i32.eq (i32.const -1) (memory.grow 0 (i32.const {pages}))) (then unreachable))
             (if (i32.eq (i32.const -1) (memory.grow $second (i32.const {pages}))) (then unreachable))
             (local.set $result (local.get $payload))
             (local.set $result-len (local.get $payload-len))"
        )
    };
    let (fits, does_not) = (grow(48), grow(80));
    let of = two_memories;
    let host = serving(&config, &[of(&"fits", &fits), of(&"large", &does_not)]).await;
    let run = async |name: &str| {
        let handler = host.catalog().resolve(name);
        let handler = handler.unwrap_or_else(|| panic!("{}", errors(&host.catalog().view())));
        handler.run(call(b"hello")).await
    };
    let finished = run("fits").await;
    assert_eq!(
        finished.ended,
        AttemptResult::Returned(Bytes::from_static(b"hello"))
    );
    assert!(
        finished.usage.peak_memory_bytes > 6 << 20,
        "{:?}",
        finished.usage
    );
    let error = permanent(run("large").await.ended);
    assert!(
        error.contains("plugins.sandbox.max_memory_bytes"),
        "{error}"
    );
    host.stop().await.unwrap();
}

/// Two components, one of which passes a string from its memory to the other's.
const COMPOSED: &str = r#"
  (component $a
    (core module $m
      (memory (export "mem") 1)
      (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 64)
      (func (export "len") (param i32 i32) (result i32) local.get 1))
    (core instance $i (instantiate $m))
    (alias core export $i "mem" (core memory $mem))
    (alias core export $i "realloc" (core func $realloc))
    (alias core export $i "len" (core func $len))
    (func (export "len") (param "s" string) (result u32)
      (canon lift (core func $len) (memory $mem) (realloc $realloc))))
  (component $b
    (import "len" (func $len (param "s" string) (result u32)))
    (core module $libc (memory (export "mem") 1))
    (core instance $libc (instantiate $libc))
    (alias core export $libc "mem" (core memory $mem))
    (core func $lowered (canon lower (func $len) (memory $mem)))
    (core module $m
      (import "" "len" (func $len (param i32 i32) (result i32)))
      (func (export "five") (result i32) (call $len (i32.const 0) (i32.const 5))))
    (core instance $i (instantiate $m
      (with "" (instance (export "len" (func $lowered))))))
    (alias core export $i "five" (core func $five))
    (func (export "five") (result u32) (canon lift (core func $five))))
  (instance $ia (instantiate $a))
  (alias export $ia "len" (func $len))
  (instance $ib (instantiate $b (with "len" (func $len))))
  (alias export $ib "five" (func $five))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_may_be_composed_of_components() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let sample = TestGuest {
        handle: "(local.set $result-len (call $five))",
        ..TestGuest::default()
    };
    let text = sample.text();
    let (head, rest) = text.split_once("  (core module $libc").unwrap();
    let imports = head.strip_prefix("(component").unwrap();
    let rest = rest
        .replacen(
            r#"(import "host" "now""#,
            r#"(import "host" "five" (func $five (result i32))) (import "host" "now""#,
            1,
        )
        .replacen(
            r#"(export "now" (func $now))"#,
            r#"(export "now" (func $now)) (export "five" (func $five))"#,
            1,
        );
    let text = format!(
        r#"(component {imports} {COMPOSED}
          (component $plugin {imports}
            (import "five" (func $five (result u32)))
            (core func $five (canon lower (func $five)))
            (core module $libc{rest}
          (instance $plugin (instantiate $plugin
            (with "wasi:clocks/monotonic-clock@0.2.0" (instance $clock))
            (with "wasi:logging/logging@0.1.0-draft" (instance $logging))
            (with "wasi:cli/environment@0.2.0" (instance $environment))
            (with "wasi:filesystem/types@0.2.0" (instance $files))
            (with "wasi:filesystem/preopens@0.2.0" (instance $preopens))
            (with "five" (func $five))))
          (alias export $plugin "hostel:plugin/manifest@0.1.0" (instance $manifest))
          (alias export $plugin "hostel:plugin/task-handler@0.1.0" (instance $handler))
          (export "hostel:plugin/manifest@0.1.0" (instance $manifest))
          (export "hostel:plugin/task-handler@0.1.0" (instance $handler)))"#
    );
    let file = dir.path().join("composed.wasm");
    std::fs::write(&file, wat::parse_str(text).unwrap()).unwrap();
    let inspection = inspect(&config, &file).await.unwrap();
    let generation = inspection
        .plugin
        .unwrap_or_else(|| panic!("{:?}", inspection.diagnostics));
    let generation = Arc::new(generation);
    let handler = Handler {
        task_type: generation.task_types[0].clone(),
        generation,
    };
    let ended = handler.run(call(b"hello")).await.ended;
    assert_eq!(ended, AttemptResult::Returned(Bytes::from_static(&[0; 5])));
}
