//! `hostel:plugin/tasks`: what a guest reports of its task, and how it learns that it is cancelled.

use super::*;
use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

const IMPORTS: &str = r#"  (import "hostel:plugin/tasks@0.1.0" (instance $tasks
    (export "progress" (func (param "done" u64) (param "total" u64) (param "note" string)))
    (export "is-cancelled" (func (result bool)))))
"#;

const LOWERED: &str = r#"  (core func $progress (canon lower (func $tasks "progress") (memory $memory)))
  (core func $is-cancelled (canon lower (func $tasks "is-cancelled")))
"#;

const CORE_IMPORTS: &str = r#"    (import "host" "progress" (func $progress (param i64 i64 i32 i32)))
    (import "host" "is-cancelled" (func $is-cancelled (result i32)))
"#;

const CORE_EXPORTS: &str = r#"      (export "progress" (func $progress))
      (export "is-cancelled" (func $is-cancelled))
"#;

/// Reports its payload as the note, and once more with another number.
const REPORT: &str =
    "(call $progress (i64.const 1) (i64.const -1) (local.get $payload) (local.get $payload-len))
    (call $progress (i64.const 2) (i64.const 0) (local.get $payload) (local.get $payload-len))";

/// A note that is not UTF-8.
const REPORT_NO_TEXT: &str = "(i32.store8 (i32.const 4000) (i32.const 255))
    (call $progress (i64.const 1) (i64.const 2) (i32.const 4000) (i32.const 1))";

/// Reports and asks while it describes itself.
const IN_DESCRIBE: &str = "(call $progress (i64.const 1) (i64.const 2) (i32.const 0) (i32.const 0))
    (if (call $is-cancelled) (then unreachable))";

/// Goes on until it is cancelled, and then returns its payload.
const UNTIL_CANCELLED: &str = "(loop $l (br_if $l (i32.eqz (call $is-cancelled))))
    (local.set $result (local.get $payload))
    (local.set $result-len (local.get $payload-len))";

/// Asks for ever, whatever the answer is.
const DEAF: &str = "(loop $l (drop (call $is-cancelled)) (br $l))";

/// A guest that imports the interface.
fn with_tasks(handle: &str) -> Vec<u8> {
    let sample = TestGuest {
        handle,
        describe: IN_DESCRIBE,
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

/// Keeps everything that a guest reports.
#[derive(Debug, Default)]
struct Recorder {
    reports: Mutex<Vec<(u64, u64, String)>>,
    asked: AtomicUsize,
    cancel: CancellationToken,
    grace: Duration,
}

impl AttemptObserver for Recorder {
    fn progress(&self, done: u64, total: u64, note: &str) {
        self.reports.lock().push((done, total, note.to_owned()));
    }

    fn is_cancelled(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.cancel.is_cancelled()
    }

    fn cancel_grace(&self) -> Duration {
        self.grace
    }
}

/// Runs a task of the guest with this `handle`, and cancels it once the guest has asked `asked` times.
async fn run(
    handle: &str,
    payload: &[u8],
    grace: Duration,
    asked: usize,
) -> (AttemptResult, Arc<Recorder>) {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    std::fs::create_dir_all(&config.plugins.dir).unwrap();
    std::fs::write(config.plugins.dir.join("sample.wasm"), with_tasks(handle)).unwrap();
    let host = serving(&config, &[]).await;
    let rejected = &host.catalog().view().rejected;
    let handler = host
        .catalog()
        .resolve("sample")
        .unwrap_or_else(|| panic!("{rejected:?}"));
    let recorder = Arc::new(Recorder {
        grace,
        ..Recorder::default()
    });
    let call = Call {
        cancel: recorder.cancel.clone(),
        observer: Some(recorder.clone()),
        ..call(payload)
    };
    let cancelling = async {
        while recorder.asked.load(Ordering::Relaxed) < asked {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        recorder.cancel.cancel();
        std::future::pending().await
    };
    let outcome = tokio::select! {
        outcome = handler.run(call) => outcome,
        () = cancelling => unreachable!("it never ends"),
    };
    host.stop().await.unwrap();
    (outcome.ended, recorder)
}

/// More than a guest ever asks.
const NEVER: usize = usize::MAX;

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_reports_its_progress() {
    for note in ["", "half of 日本", &"x".repeat(100_000)] {
        let (ended, recorder) = run(REPORT, note.as_bytes(), Duration::ZERO, NEVER).await;
        assert_eq!(ended, AttemptResult::Returned(Bytes::new()));
        let expected = [(1, u64::MAX, note.to_owned()), (2, 0, note.to_owned())];
        assert_eq!(*recorder.reports.lock(), expected);
    }
    let (ended, recorder) = run(REPORT_NO_TEXT, b"", Duration::ZERO, NEVER).await;
    assert!(
        matches!(ended, AttemptResult::Retryable { .. }),
        "{ended:?}"
    );
    assert!(recorder.reports.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_asks_may_return_after_it_is_cancelled() {
    let (ended, _) = run(UNTIL_CANCELLED, b"stopped", Duration::from_secs(600), 100).await;
    assert_eq!(ended, AttemptResult::Returned("stopped".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_goes_on_is_interrupted_after_the_grace() {
    for grace in [Duration::ZERO, Duration::from_millis(300)] {
        let begun = Instant::now();
        let (ended, _) = run(DEAF, b"", grace, 100).await;
        assert_eq!(ended, AttemptResult::Cancelled);
        assert!(begun.elapsed() >= grace);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reported_without_an_observer() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    std::fs::create_dir_all(&config.plugins.dir).unwrap();
    std::fs::write(config.plugins.dir.join("sample.wasm"), with_tasks(REPORT)).unwrap();
    let host = serving(&config, &[]).await;
    let handler = host.catalog().resolve("sample").unwrap();
    let ended = handler.run(call(b"note")).await.ended;
    assert_eq!(ended, AttemptResult::Returned(Bytes::new()));
    host.stop().await.unwrap();
}
