//! What a call costs beside bare wasmtime, what hostile neighbours may cost it, and that reloading
//! costs nothing that lasts. Figures are printed; only gross faults fail.

use super::*;
use crate::plugin::bindings::task_handler;

const CALLS: u32 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_costs_little_more_than_bare_wasmtime() {
    let Some(wasm) = built("echo") else { return };
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    std::fs::create_dir_all(&config.plugins.dir).unwrap();
    std::fs::copy(&wasm, config.plugins.dir.join("echo.wasm")).unwrap();
    for cache in ["cold", "warm"] {
        let host = PluginHost::new(&config).unwrap();
        let begin = Instant::now();
        host.start().await.unwrap();
        println!("start with a {cache} cache: {:?}", begin.elapsed());
        host.stop().await.unwrap();
    }
    let host = PluginHost::new(&config).unwrap();
    host.start().await.unwrap();
    let echo = host.catalog().resolve("echo").unwrap();

    let begin = Instant::now();
    for _ in 0..CALLS {
        echo.run(call(b"hello")).await;
    }
    println!("run, one by one: {:?}", begin.elapsed() / CALLS);
    let begin = Instant::now();
    let many = (0..32).map(|_| {
        let echo = echo.clone();
        tokio::spawn(async move {
            for _ in 0..CALLS / 32 {
                echo.run(call(b"hello")).await;
            }
        })
    });
    for one in many.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    println!("run, 32 at a time: {:?}", begin.elapsed() / CALLS);
    let here = {
        let echo = echo.clone();
        host.runtime().spawn(async move {
            let begin = Instant::now();
            for _ in 0..CALLS {
                echo.run_here(call(b"hello")).await;
            }
            begin.elapsed() / CALLS
        })
    };
    let here = here.await.unwrap();
    println!("run_here: {here:?}");
    let program = echo.generation.clone();
    let bare = host.runtime().spawn(async move { bare(&program).await });
    let bare = bare.await.unwrap();
    println!("bare wasmtime: {bare:?}");
    host.stop().await.unwrap();
    assert!(here < bare * 2, "{here:?} against {bare:?}");
}

/// The same component, engine and linker, called by hand: a store that never ends, no limits.
async fn bare(generation: &Generation) -> Duration {
    let program = &generation.program;
    let handler = task_handler::GuestIndices::new(&program.pre).unwrap();
    let begin = Instant::now();
    for _ in 0..CALLS {
        let mut store = program.bare_store();
        let instance = program.pre.instantiate_async(&mut store).await.unwrap();
        let guest = handler.load(&mut store, &instance).unwrap();
        let task = task_handler::Task {
            id: "task-1",
            task_type: "echo",
            payload: b"hello",
            metadata: &[],
            attempt: 1,
            max_attempts: 5,
            timeout_ms: 1000,
        };
        assert!(guest.call_handle(&mut store, task).await.unwrap().is_ok());
    }
    begin.elapsed() / CALLS
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_neighbours_do_not_hold_a_task_up() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
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
    let echo = host.catalog().resolve("sample").unwrap();
    let spins: Vec<_> = (0..8)
        .map(|_| {
            let spin = host.catalog().resolve("spin").unwrap();
            tokio::spawn(async move { spin.run(call(b"")).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let begin = Instant::now();
        echo.run(call(b"hello")).await;
        slowest = slowest.max(begin.elapsed());
    }
    println!("slowest of 20 echoes beside 8 spinning guests: {slowest:?}");
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
    for spin in spins {
        spin.abort();
    }
    host.stop().await.unwrap();
}

/// Memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Alone in its process it says more: `cargo test --release --lib reloads -- --ignored`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "other tests in the process change its memory"]
async fn reloads_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let host = serving(&config, &[Sample::default()]).await;
    let file = config.plugins.dir.join("sample.wasm");
    let temporary = config.plugins.dir.join("sample.tmp");
    let mut early = 0;
    for round in 1..=200_u32 {
        let next = round.to_string();
        let sample = Sample {
            version: &next,
            ..Sample::default()
        };
        std::fs::write(&temporary, sample.wasm().unwrap()).unwrap();
        std::fs::rename(&temporary, &file).unwrap();
        until(&host, &next, |view| version(view, "sample") == next).await;
        for _ in 0..50 {
            let handler = host.catalog().resolve("sample").unwrap();
            handler.run(call(&[7; 1000])).await;
        }
        if round == 20 {
            early = resident_kib();
        }
    }
    let late = resident_kib();
    println!("after 20 reloads {early} KiB, after 200 {late} KiB");
    assert!(late < early + early / 10, "{early} -> {late}");
    host.stop().await.unwrap();
}
