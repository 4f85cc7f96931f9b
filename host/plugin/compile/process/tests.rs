//! Compile processes of hostile files, one limit at a time.

use super::*;
use crate::{
    compile::{cache, wasm_file::hex},
    hostile::{self, Nesting},
    sandbox::{engine::Engine, engine_config},
    test_guest::TestGuest,
    testing,
};
use hostel_runtime::health::Health;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::Write,
    time::{Duration, Instant},
};

const MIB: u64 = 1 << 20;

fn launcher(change: impl FnOnce(&mut Limits)) -> Launcher {
    let dir = tempfile::tempdir().unwrap();
    let config = testing::config(dir.path());
    let mut launcher =
        Launcher::new(testing::compiler(), &config.plugins, &Health::default()).unwrap();
    change(&mut launcher.limits);
    launcher
}

fn job(wasm: &[u8]) -> Job {
    let engine = wasmtime::Engine::new(&engine_config::common()).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(wasm).unwrap();
    file.rewind().unwrap();
    Job {
        wasm: file,
        sha256: hex(&Sha256::digest(wasm)),
        engine: engine_config::key(&engine),
        threads: 2,
    }
}

async fn diagnostic(launcher: &Launcher, job: Job) -> Diagnostic {
    let ended = launcher.run(job, CancellationToken::new()).await;
    ended.map(|artifact| artifact.len()).unwrap_err()
}

#[tokio::test]
async fn an_artifact_loads_into_the_engine_of_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let wasm = TestGuest::default().wasm().unwrap();
    let launcher = launcher(|_| {});
    let artifact = launcher.run(job(&wasm), CancellationToken::new()).await;
    let artifact = artifact.unwrap();
    let engine = Engine::new(&testing::config(dir.path()), &Health::default()).unwrap();
    cache::load(&engine.wasmtime, &artifact).unwrap();
}

#[tokio::test]
async fn each_limit_ends_the_process_and_is_named() {
    for nesting in [Nesting::Instances, Nesting::Components] {
        let deep = hostile::nested_types(nesting, 20_000);
        let refused = diagnostic(&launcher(|_| {}), job(&deep)).await;
        assert!(!refused.may_pass(), "{refused}");
        assert!(refused.to_string().contains("stack"), "{refused}");
    }
    let small = launcher(|limits| limits.max_memory_bytes = 96 * MIB);
    let refused = diagnostic(&small, job(&hostile::doubling(29))).await;
    assert!(!refused.may_pass(), "{refused}");
    let named = "100663296 bytes of memory (plugins.max_compile_memory_bytes)";
    assert!(refused.to_string().contains(named), "{refused}");

    // Whether it may pass depends on the load of the machine.
    let brief = launcher(|limits| limits.timeout = Duration::from_secs(1));
    let refused = diagnostic(&brief, job(&hostile::endless())).await;
    assert!(
        refused
            .to_string()
            .contains("1000 ms (plugins.compile_timeout_ms)")
    );

    // The kernel's limit, for a node that cannot enforce its own.
    let cheap = launcher(|limits| limits.max_cpu_seconds = 1);
    let begin = Instant::now();
    let refused = diagnostic(&cheap, job(&hostile::endless())).await;
    assert!(begin.elapsed() < cheap.limits.timeout, "{refused}");
    assert!(!refused.may_pass(), "{refused}");
    assert!(
        refused.to_string().contains("plugins.compile_timeout_ms"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_failure_of_the_compiler_refuses_a_file_only_for_now() {
    let wasm = TestGuest::default().wasm().unwrap();
    let mut changed = job(&wasm);
    changed.sha256 = "another".into();
    let mut other = job(&wasm);
    other.engine += 1;
    let launcher = launcher(|_| {});
    for (job, words) in [(changed, "changed while"), (other, "another version")] {
        let refused = diagnostic(&launcher, job).await;
        assert!(
            refused.may_pass() && refused.to_string().contains(words),
            "{refused}"
        );
    }
    let plugins = hostel_config::Config::default().plugins;
    let missing =
        Launcher::new("/nonexistent/hostel".into(), &plugins, &Health::default()).unwrap();
    let refused = diagnostic(&missing, job(&wasm)).await;
    assert!(refused.may_pass() && refused.to_string().contains("(plugins.compiler)"));
}

#[tokio::test]
async fn a_process_ends_when_its_result_is_not_wanted() {
    let launcher = launcher(|_| {});
    let stop = CancellationToken::new();
    let running = launcher.run(job(&hostile::endless()), stop.clone());
    tokio::pin!(running);
    let brief = tokio::time::timeout(Duration::from_millis(500), &mut running);
    assert!(brief.await.is_err());
    stop.cancel();
    assert!(running.await.unwrap_err().may_pass());
}

/// Runs a compilation without end, and sends its process a signal once it has one.
async fn diagnostic_after(launcher: &Launcher, signal: Signal) -> Diagnostic {
    // With a custom section, by which its process differs from those of other tests.
    let name = format!("{}-{}", std::process::id(), signal.as_raw());
    let length = u8::try_from(name.len()).unwrap();
    let section = [&[0, length + 1, length], name.as_bytes()].concat();
    let job = job(&[hostile::endless(), section].concat());
    let marks = [COMMAND.to_owned(), job.sha256.clone()];
    let is_it = |id: &Pid| {
        let command = fs::read(format!("/proc/{}/cmdline", id.as_raw_nonzero()));
        let command = command.unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        marks.iter().all(|mark| command.contains(mark))
    };
    let signalling = async {
        loop {
            let found = fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
                let id = entry.file_name().to_str()?.parse().ok()?;
                Pid::from_raw(id).filter(is_it)
            });
            match found {
                Some(id) => break kill_process(id, signal).unwrap(),
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    tokio::join!(diagnostic(launcher, job), signalling).0
}

#[tokio::test]
async fn a_process_that_was_killed_or_kept_from_running_refuses_a_file_only_for_now() {
    let killed = diagnostic_after(&launcher(|_| {}), Signal::KILL).await;
    assert!(killed.to_string().contains("was killed"), "{killed}");
    assert!(killed.may_pass(), "{killed}");
    let brief = launcher(|limits| limits.timeout = Duration::from_secs(2));
    let stopped = diagnostic_after(&brief, Signal::STOP).await;
    assert!(stopped.to_string().contains("machine is busy"), "{stopped}");
    assert!(stopped.may_pass(), "{stopped}");
}
