//! Hostile handlers, one task type for each.

use super::*;
use End::{Error, Result};

const SETTINGS: &str = r#"
[plugin.burner.limits]
max_cpu_ms = 300
[plugin.burner.task.burn]
max_attempts = 1
[plugin.flood.limits]
max_memory_bytes = 209715200
[plugin.flood.task.return-100-mb]
max_attempts = 1
[plugin.tables.task.tables]
max_attempts = 1
[plugin.deep.task.deep]
max_attempts = 1
"#;

/// The expected end of a hostile task: `completed` with this result, or `failed` with an error that
/// contains this text.
enum End {
    Result(&'static str),
    Error(&'static str),
}

pub async fn hostile_tasks_fail_alone_with_the_reason(on: Backend) {
    let node = on.prepare(&[&showcase("echo"), &hostile()], SETTINGS).await;
    let samples = [
        ("burner", "burn", test_guest::SPIN),
        ("tables", "tables", test_guest::GROW_TABLE),
        ("deep", "deep", test_guest::RECURSE),
        ("flood", "return-100-mb", &test_guest::result_of(100 << 20)),
    ];
    for (name, task_type, handle) in samples {
        let sample = TestGuest {
            name,
            task_types: &[task_type],
            handle,
            extra: test_guest::GROWABLE_TABLE,
            ..TestGuest::default()
        };
        node.add_wasm(&format!("{name}.wasm"), &sample.wasm().unwrap());
    }
    let node = node.started().await;

    for (task_type, at_once, end) in [
        ("spin", 1, Error("timeout of 500 ms")),
        ("spin", 4, Error("timeout of 500 ms")),
        ("spin-in-host", 1, Error("timeout of 500 ms")),
        ("sleep", 1, Error("timeout of 500 ms")),
        (
            "burn",
            1,
            Error("300 ms of processor time (plugins.sandbox.max_cpu_ms)"),
        ),
        (
            "grow",
            1,
            Error("67108864 bytes of memory (plugins.sandbox.max_memory_bytes)"),
        ),
        (
            "tables",
            1,
            Error("100000 table elements (plugins.sandbox.max_table_elements)"),
        ),
        ("deep", 1, Error("recursed deeper than its stack")),
        (
            "recurse",
            1,
            Error("a guest that recurses too deep can end like this"),
        ),
        (
            "return-100-mb",
            1,
            Error("4128768 bytes (plugins.sandbox.max_result_bytes)"),
        ),
        ("log-too-much", 1, Result("logged")),
        ("print-too-much", 1, Result("printed")),
        ("panic", 1, Error("the panic's own words")),
        ("trap", 1, Error("`unreachable` instruction executed")),
        ("exit", 1, Error("the guest called exit(")),
        // An empty result: it found no file, no variable and no connection.
        ("look-around", 1, Result("")),
    ] {
        assert_isolated(&node, task_type, at_once, &end).await;
    }

    let log = node.log();
    for words in [
        "it has reached 65536 bytes (plugins.sandbox.max_log_bytes)",
        "the panic's own words",
    ] {
        assert!(log.contains(words), "{words}");
    }
    assert!(!std::path::Path::new("/tmp/hostel-was-here").exists());
    let mut client = node.client();
    echo(&mut client).await;
}

/// Runs and checks hostile tasks without a pause while echoes are timed.
async fn assert_isolated(node: &Node, task_type: &'static str, at_once: usize, end: &End) {
    let mut client = node.client();
    let mut measured = Vec::new();
    for _ in 0..ROUNDS {
        let alone = median_echo(&mut client, || false).await;
        let stop = Arc::new(AtomicBool::new(false));
        let hostile: Vec<_> = (0..at_once)
            .map(|_| tokio::spawn(run_until(node.client(), task_type, stop.clone())))
            .collect();
        // The measurement covers at least one whole hostile task.
        let first = node
            .client()
            .submit_task(task(task_type, ""))
            .await
            .unwrap();
        let mut waiting = node.client();
        let first = tokio::spawn(async move { waiting.wait_for_task(&first).await.unwrap() });
        let crowded = median_echo(&mut client, || !first.is_finished()).await;
        stop.store(true, Ordering::Relaxed);

        check(&first.await.unwrap(), end);
        for runner in hostile {
            runner
                .await
                .unwrap()
                .iter()
                .for_each(|ended| check(ended, end));
        }
        if crowded <= alone + ALLOWANCE {
            return;
        }
        measured.push((alone, crowded));
    }
    panic!("an echo next to {at_once} x {task_type} is too slow (alone, next to it): {measured:?}");
}

/// Runs one hostile task after another.
async fn run_until(
    mut client: DistributedClient,
    task_type: &str,
    stop: Arc<AtomicBool>,
) -> Vec<TaskStatus> {
    let mut ended = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        ended.push(client.submit_and_wait(task(task_type, "")).await.unwrap());
    }
    ended
}

fn check(ended: &TaskStatus, end: &End) {
    match *end {
        Result(result) => {
            assert_eq!(ended.status, "completed", "{ended:?}");
            assert_eq!(ended.result, result.as_bytes(), "{ended:?}");
        }
        Error(words) => {
            assert_eq!(ended.status, "failed", "{ended:?}");
            assert!(ended.error.contains(words), "{ended:?}");
        }
    }
    assert_eq!((ended.attempts, ended.finishes), (1, 1), "{ended:?}");
}

pub async fn floods_use_bounded_memory(on: Backend) {
    let node = on.prepare(&[&showcase("echo"), &hostile()], SETTINGS).await;
    let flood = test_guest::result_of(100 << 20);
    let flood = TestGuest {
        name: "flood",
        task_types: &["return-100-mb"],
        handle: &flood,
        ..TestGuest::default()
    };
    node.add_wasm("flood.wasm", &flood.wasm().unwrap());
    let node = node.started().await;
    let mut client = node.client();
    echo(&mut client).await;

    let (before, log_before) = (node.peak_resident_kib(), node.log().len());
    for _ in 0..3 {
        for task_type in ["return-100-mb", "log-too-much", "print-too-much"] {
            client.submit_and_wait(task(task_type, "")).await.unwrap();
        }
    }
    let (after, log_after) = (node.peak_resident_kib(), node.log().len());
    // One flood that came through would be 100 MiB.
    assert!(after - before < 64 << 10, "{before} KiB became {after} KiB");
    // Six floods of at most 64 KiB each, every line with its head.
    assert!(
        log_after - log_before < 2 << 20,
        "{} bytes of log",
        log_after - log_before
    );
    echo(&mut client).await;
}

/// A trap is retried with the backoff of the task type; a limit that was exceeded is not.
pub async fn only_traps_are_retried(on: Backend) {
    let node = on.prepare(
        &[&showcase("echo")],
        "[plugin.traps.task.trap]\nmax_attempts = 3\nbackoff_initial_ms = 0\nbackoff_max_ms = 0\n\
         [plugin.waits.task.wait]\nbackoff_initial_ms = 3600000\nbackoff_max_ms = 3600000\n\
         [plugin.limits.task.recurse]\nmax_attempts = 3\n",
    ).await;
    for (name, task_type, handle) in [
        ("traps", "trap", test_guest::TRAP),
        ("waits", "wait", test_guest::TRAP),
        ("limits", "recurse", test_guest::RECURSE),
    ] {
        let sample = TestGuest {
            name,
            task_types: &[task_type],
            handle,
            ..TestGuest::default()
        };
        node.add_wasm(&format!("{name}.wasm"), &sample.wasm().unwrap());
    }
    let node = node.started().await;
    let mut client = node.client();

    let trapped = client.submit_and_wait(task("trap", "")).await.unwrap();
    assert_eq!((trapped.status.as_str(), trapped.attempts), ("failed", 3));
    assert_eq!(trapped.finishes, 1);

    let limited = client.submit_and_wait(task("recurse", "")).await.unwrap();
    assert_eq!((limited.status.as_str(), limited.attempts), ("failed", 1));

    let id = client.submit_task(task("wait", "")).await.unwrap();
    let waiting = eventually("the first attempt ends", || {
        let (mut client, id) = (client.clone(), id.clone());
        async move {
            let status = client.get_task_status(&id).await.unwrap();
            (!status.error.is_empty()).then_some(status)
        }
    })
    .await;
    assert_eq!((waiting.status.as_str(), waiting.attempts), ("pending", 1));
    assert!(waiting.error.contains("unreachable"), "{waiting:?}");
    assert!(waiting.waiting_for.contains("next attempt"), "{waiting:?}");
    assert!(waiting.due_at_ms >= waiting.submitted_at_ms, "{waiting:?}");
    assert_eq!(waiting.finishes, 0);
    echo(&mut client).await;
}
