//! `wasi:keyvalue` as a guest sees it: a guest that calls it, with the SQLite store.

use super::*;
use hostel_config::{KeyValueBackend, KeyValueLimits, SqliteKeyValue};
use hostel_keyvalue::{self as kv, KeyValue};
use hostel_runtime::health::Health;

/// The imports that the guest needs besides those of `TestGuest`.
const IMPORTS: &str = r#"
  (import "wasi:keyvalue/store@0.2.0-draft" (instance $store
    (export "bucket" (type $bucket (sub resource)))
    (type $e (variant (case "no-such-store") (case "access-denied") (case "other" string)))
    (export "error" (type $error (eq $e)))
    (export "open" (func (param "identifier" string)
      (result (result (own $bucket) (error $error)))))
    (export "[method]bucket.get" (func (param "self" (borrow $bucket)) (param "key" string)
      (result (result (option (list u8)) (error $error)))))
    (export "[method]bucket.set" (func (param "self" (borrow $bucket)) (param "key" string)
      (param "value" (list u8)) (result (result (error $error)))))))
  (alias export $store "bucket" (type $bucket))
  (alias export $store "error" (type $store-error))
  (import "wasi:keyvalue/atomics@0.2.0-draft" (instance $atomics
    (alias outer 1 $bucket (type $b))
    (alias outer 1 $store-error (type $e))
    (export "bucket" (type $own-bucket (eq $b)))
    (export "error" (type $own-error (eq $e)))
    (export "increment" (func (param "bucket" (borrow $own-bucket)) (param "key" string)
      (param "delta" u64) (result (result u64 (error $own-error)))))))
"#;

const LOWERED: &str = r#"
  (core func $open (canon lower (func $store "open") (memory $memory) (realloc $realloc)))
  (core func $get (canon lower (func $store "[method]bucket.get")
    (memory $memory) (realloc $realloc)))
  (core func $set (canon lower (func $store "[method]bucket.set")
    (memory $memory) (realloc $realloc)))
  (core func $increment (canon lower (func $atomics "increment")
    (memory $memory) (realloc $realloc)))
"#;

const CORE_IMPORTS: &str = r#"
    (import "host" "open" (func $open (param i32 i32 i32)))
    (import "host" "get" (func $get (param i32 i32 i32 i32)))
    (import "host" "set" (func $set (param i32 i32 i32 i32 i32 i32)))
    (import "host" "increment" (func $increment (param i32 i32 i32 i64 i32)))
"#;

const CORE_EXPORTS: &str = r#"
      (export "open" (func $open)) (export "get" (func $get))
      (export "set" (func $set)) (export "increment" (func $increment))
"#;

/// Opens the store with the empty name and runs the command in the payload's first byte, with the
/// second as the key: `s` sets it to the rest, `g` gets it, `i` adds 5 and returns eight bytes. An
/// error returns its text, or its number if it has none. Results of the host begin at 3200.
const VERBS: &str = r#"
    (func $error (param $at i32) (result i32 i32)
      (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 2))
        (then (return (i32.load offset=4 (local.get $at)) (i32.load offset=8 (local.get $at)))))
      (local.get $at) (i32.const 1))
    (func $failed (result i32) (i32.load8_u (i32.const 3200)))
    (func $verb (param $at i32) (param $len i32) (result i32 i32)
      (local $bucket i32) (local $key i32) (local $name i32)
      (local.set $name (i32.load8_u (local.get $at)))
      (local.set $key (i32.add (local.get $at) (i32.const 1)))
      (call $open (i32.const 0) (i32.const 0) (i32.const 3200))
      (if (call $failed) (then (return (call $error (i32.const 3204)))))
      (local.set $bucket (i32.load (i32.const 3204)))
      (if (i32.eq (local.get $name) (i32.const 115)) (then
        (call $set (local.get $bucket) (local.get $key) (i32.const 1)
          (local.get $key) (i32.sub (local.get $len) (i32.const 1)) (i32.const 3200))
        (if (call $failed) (then (return (call $error (i32.const 3204)))))
        (return (i32.const 0) (i32.const 0))))
      (if (i32.eq (local.get $name) (i32.const 103)) (then
        (call $get (local.get $bucket) (local.get $key) (i32.const 1) (i32.const 3200))
        (if (call $failed) (then (return (call $error (i32.const 3204)))))
        (if (i32.eqz (i32.load8_u (i32.const 3204))) (then (return (i32.const 0) (i32.const 0))))
        (return (i32.load (i32.const 3208)) (i32.load (i32.const 3212)))))
      (call $increment (local.get $bucket) (local.get $key) (i32.const 1) (i64.const 5)
        (i32.const 3200))
      (if (call $failed) (then (return (call $error (i32.const 3208)))))
      (i32.const 3208) (i32.const 8))
"#;

const HANDLE: &str = "(call $verb (local.get $payload) (local.get $payload-len))
    (local.set $result-len)
    (local.set $result)";

/// Traps unless the store is denied.
const EXPECT_DENIAL: &str = "(call $open (i32.const 0) (i32.const 0) (i32.const 3200))
    (if (i32.ne (i32.load8_u (i32.const 3204)) (i32.const 1)) (then unreachable))";

fn keeper(name: &str) -> Vec<u8> {
    let sample = TestGuest {
        name,
        task_types: &[name],
        handle: HANDLE,
        describe: EXPECT_DENIAL,
        extra: VERBS,
        ..TestGuest::default()
    };
    let mut text = sample.text();
    for (before, new) in [
        ("  (core module $libc", IMPORTS),
        ("  (core module $guest", LOWERED),
        ("    (import \"host\" \"now\"", CORE_IMPORTS),
        ("      (export \"now\" (func $now))", CORE_EXPORTS),
    ] {
        assert_eq!(text.matches(before).count(), 1, "{before}");
        text = text.replace(before, &format!("{new}{before}"));
    }
    wat::parse_str(text).unwrap()
}

async fn store(dir: &std::path::Path) -> Arc<dyn KeyValue> {
    let settings = hostel_config::KeyValue {
        backend: KeyValueBackend::Sqlite(SqliteKeyValue {
            path: dir.join("kv.db"),
            reserve_bytes: 0,
        }),
        limits: KeyValueLimits {
            max_value_bytes: 1000,
            ..hostel_config::Config::default().keyvalue.limits
        },
    };
    kv::open(&settings, &hostel_runtime::health::Health::default())
        .await
        .unwrap()
}

/// A host that serves two keepers.
async fn host(dir: &std::path::Path, keyvalue: Option<Arc<dyn KeyValue>>) -> Arc<PluginHost> {
    let config = config(dir);
    std::fs::create_dir_all(&config.plugins.dir).unwrap();
    for name in ["one", "other"] {
        let file = config.plugins.dir.join(format!("{name}.wasm"));
        std::fs::write(file, keeper(name)).unwrap();
    }
    let host = PluginHost::new(
        &config,
        Capabilities {
            keyvalue,
            ..Capabilities::default()
        },
        &Health::default(),
    )
    .unwrap();
    host.start().await.unwrap();
    host.loaded().await;
    host
}

async fn answer(host: &PluginHost, plugin: &str, payload: &[u8]) -> Vec<u8> {
    let rejected = &host.catalog().view().rejected;
    let handler = host.catalog().resolve(plugin);
    let handler = handler.unwrap_or_else(|| panic!("{rejected:?}"));
    match handler.run(call(payload)).await.ended {
        AttemptResult::Returned(result) => result.to_vec(),
        other => panic!("{other:?}"),
    }
}

async fn words(host: &PluginHost, payload: &[u8]) -> String {
    String::from_utf8(answer(host, "one", payload).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_kept_for_each_plugin_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let host = host(dir.path(), Some(store.clone())).await;
    assert_eq!(answer(&host, "one", b"gk").await, b"");
    assert_eq!(answer(&host, "one", b"skept\0\xff").await, b"");
    // Each call has an instance of its own, so this value comes from the store.
    assert_eq!(answer(&host, "one", b"gk").await, b"kept\0\xff");
    assert_eq!(answer(&host, "other", b"gk").await, b"");
    for sum in [5_u64, 10] {
        assert_eq!(answer(&host, "one", b"in").await, sum.to_le_bytes());
    }
    let at = store.bucket(&testing::name("one"), "").unwrap();
    let values = store.get(&at, vec!["k".into(), "n".into()]).await.unwrap();
    assert_eq!(values, [Some(b"kept\0\xff".to_vec()), Some(b"10".to_vec())]);
    host.stop().await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_tell_the_guest_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let host = host(dir.path(), Some(store.clone())).await;
    let why = words(&host, &[b's'; 1003]).await;
    assert!(
        why.contains("at most 1000 are allowed (keyvalue.max_value_bytes)"),
        "{why}"
    );
    words(&host, b"stext").await;
    let why = words(&host, b"it").await;
    assert!(why.contains("the value of \"t\" is not a number"), "{why}");
    // Details of the node stay hidden.
    store.close().await;
    for payload in ["gk", "stext", "in"] {
        let why = words(&host, payload.as_bytes()).await;
        assert!(why.ends_with("try again later"), "{why}");
        assert!(!why.contains("closed"), "{why}");
    }
    host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_store_access_is_denied() {
    const ACCESS_DENIED: u8 = 1;
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), None).await;
    for payload in ["gk", "stext", "in"] {
        let denied = answer(&host, "one", payload.as_bytes()).await;
        assert_eq!(denied, [ACCESS_DENIED]);
    }
    host.stop().await.unwrap();
}
