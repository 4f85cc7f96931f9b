//! Proves the sandbox on this machine under this configuration: runs a hostile guest against every
//! limit and says which fired.

use super::{
    Call, Error, Fault, Finished, Generation, Handler, Outside, hostile,
    sample::{self, Sample},
    workshop::Workshop,
};
use hostel_config::Config;
use hostel_runtime::health::Health;
use hostel_task::{AttemptResult, Name};
use std::{io::Write, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// What became of one limit.
#[derive(Debug, Clone)]
pub struct SelfCheck {
    pub limit: &'static str,
    /// The setting that governs it, or an empty text where it is fixed.
    pub setting: &'static str,
    pub fired: bool,
    /// The error that the guest's task would have had, or what it got away with.
    pub detail: String,
}

/// Nobody wants to wait for long limits; these stand in for them.
const TIMEOUT: Duration = Duration::from_millis(200);
const MAX_CPU: Duration = Duration::from_millis(500);
/// The same for the compiler.
const MAX_COMPILE_MEMORY_BYTES: u64 = 96 << 20;
const COMPILE_TIMEOUT: Duration = Duration::from_secs(5);
/// More than any stack holds.
const NESTED: usize = 20_000;
/// For guests that another limit has to stop first.
const PATIENCE: Duration = Duration::from_secs(20);

struct Probe {
    limit: &'static str,
    setting: &'static str,
    handle: String,
    timeout: Duration,
    fired: fn(&Finished) -> bool,
}

/// Runs every check. Fails when there is no engine; a guest that cannot even be loaded is a check
/// that did not fire.
pub async fn verify_self(config: &Config) -> Result<Vec<SelfCheck>, Error> {
    let mut config = config.clone();
    config.plugin.clear();
    // Nothing of it stays, neither in the cache of a node.
    let scratch =
        tempfile::tempdir().map_err(|source| Error::io("no temporary directory", source))?;
    config.node.data_dir = scratch.path().to_owned();
    let sandbox = &mut config.plugins.sandbox;
    let result_bytes = sandbox.max_result_bytes;
    sandbox.max_cpu = sandbox.max_cpu.min(MAX_CPU);
    let mut checks = Vec::new();
    for probe in probes(result_bytes) {
        // Each on an engine of its own, because the timeout is part of the configuration.
        let mut config = config.clone();
        config.plugins.sandbox.timeout = probe.timeout;
        let workshop = Workshop::new(&config, Outside::default(), &Health::default())?;
        checks.push(match run(&workshop, &probe.handle).await {
            Ok(finished) => SelfCheck {
                limit: probe.limit,
                setting: probe.setting,
                fired: (probe.fired)(&finished),
                detail: detail(&finished),
            },
            Err(faults) => SelfCheck {
                limit: probe.limit,
                setting: probe.setting,
                fired: false,
                detail: faults.iter().map(Fault::to_string).collect(),
            },
        });
    }
    let plugins = &mut config.plugins;
    plugins.max_compile_memory_bytes = plugins
        .max_compile_memory_bytes
        .min(MAX_COMPILE_MEMORY_BYTES);
    plugins.compile_timeout = plugins.compile_timeout.min(COMPILE_TIMEOUT);
    let workshop = Workshop::new(&config, Outside::default(), &Health::default())?;
    for (limit, setting, file, words) in files() {
        let loaded = load(&workshop, &file).await;
        let faults: String = loaded
            .err()
            .iter()
            .flatten()
            .map(Fault::to_string)
            .collect();
        checks.push(SelfCheck {
            limit,
            setting,
            fired: faults.contains(words),
            detail: faults,
        });
    }
    Ok(checks)
}

/// What attacks the compiler: the limit and its setting, the file, and what is said of it.
fn files() -> [(&'static str, &'static str, Vec<u8>, &'static str); 3] {
    let (memory, time) = (
        "plugins.max_compile_memory_bytes",
        "plugins.compile_timeout_ms",
    );
    let nested = hostile::nested_types(hostile::Nesting::Instances, NESTED);
    [
        (
            "memory of a compilation",
            memory,
            hostile::doubling(29),
            memory,
        ),
        ("time of a compilation", time, hostile::endless(), time),
        ("stack of a compilation", "", nested, "stack"),
    ]
}

async fn load(workshop: &Workshop, content: &[u8]) -> Result<Generation, Vec<Fault>> {
    let io = |error: std::io::Error| vec![Fault::new(error.to_string())];
    let mut file = tempfile::NamedTempFile::new().map_err(io)?;
    file.write_all(content).map_err(io)?;
    let wasm = workshop.read(file.path()).map_err(|fault| vec![fault])?;
    workshop.make(&wasm).await
}

fn probes(result_bytes: usize) -> Vec<Probe> {
    let probe = |limit, setting, handle: &str, timeout, fired| Probe {
        limit,
        setting,
        handle: handle.to_owned(),
        timeout,
        fired,
    };
    let permanent = |finished: &Finished| matches!(finished.ended, AttemptResult::Permanent { .. });
    let timed_out = |finished: &Finished| matches!(&finished.ended, AttemptResult::Retryable { error, .. } if error.contains("timeout"));
    vec![
        probe(
            "timeout of a busy guest",
            "plugins.sandbox.timeout_ms",
            sample::SPIN,
            TIMEOUT,
            timed_out,
        ),
        probe(
            "timeout of a guest that calls the node again and again",
            "plugins.sandbox.timeout_ms",
            sample::CALL_HOST,
            TIMEOUT,
            timed_out,
        ),
        probe(
            "processor time",
            "plugins.sandbox.max_cpu_ms",
            sample::SPIN,
            PATIENCE,
            permanent,
        ),
        probe(
            "memory",
            "plugins.sandbox.max_memory_bytes",
            sample::GROW_MEMORY,
            PATIENCE,
            permanent,
        ),
        probe(
            "tables",
            "plugins.sandbox.max_table_elements",
            sample::GROW_TABLE,
            PATIENCE,
            permanent,
        ),
        probe("stack", "", sample::RECURSE, PATIENCE, permanent),
        probe(
            "size of a result",
            "plugins.sandbox.max_result_bytes",
            &sample::result_of(result_bytes.saturating_add(1)),
            PATIENCE,
            permanent,
        ),
        probe(
            "size of a log",
            "plugins.sandbox.max_log_bytes",
            sample::LOG_TOO_MUCH,
            PATIENCE,
            |finished| finished.usage.log_cut_off,
        ),
        probe(
            "no files and no environment",
            "",
            sample::LOOK_AROUND,
            PATIENCE,
            |finished| matches!(&finished.ended, AttemptResult::Returned(found) if found.is_empty()),
        ),
        probe(
            "a trap ends its own task only",
            "",
            sample::TRAP,
            PATIENCE,
            |finished| matches!(finished.ended, AttemptResult::Retryable { .. }),
        ),
    ]
}

async fn run(workshop: &Workshop, handle: &str) -> Result<Finished, Vec<Fault>> {
    let one = |error: String| vec![Fault::new(error)];
    let sample = Sample {
        handle,
        extra: sample::GROWABLE_TABLE,
        ..Sample::default()
    };
    let generation = Arc::new(load(workshop, &sample.wasm().map_err(one)?).await?);
    let Some(task_type) = generation.task_types.first().cloned() else {
        return Err(one("the guest has no task type".into()));
    };
    let call = Call {
        id: Name::parse("task id", "self").map_err(|error| one(error.to_string()))?,
        payload: bytes::Bytes::from_static(b"hello"),
        metadata: Arc::default(),
        attempt: 1,
        cancel: CancellationToken::new(),
    };
    let handler = Handler {
        generation,
        task_type,
    };
    Ok(handler.run(call).await)
}

fn detail(finished: &Finished) -> String {
    match &finished.ended {
        AttemptResult::Retryable { error, .. } | AttemptResult::Permanent { error } => {
            error.clone()
        }
        AttemptResult::Returned(_) if finished.usage.log_cut_off => "its log was cut off".into(),
        AttemptResult::Returned(result) => format!("it returned {} bytes", result.len()),
        other => format!("{other:?}"),
    }
}
