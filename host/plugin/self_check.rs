//! The self-check of the sandbox on this machine under this configuration: runs a hostile guest
//! against every limit and reports which limits held.

use super::{
    diagnostic::Diagnostic,
    error::Error,
    generation::{Generation, Handler},
    hostile,
    load::builder::Builder,
    sandbox::{
        call::{Call, CallOutcome},
        capabilities::Capabilities,
    },
    test_guest::{self, TestGuest},
};
use hostel_config::Config;
use hostel_runtime::health::Health;
use hostel_task::{AttemptResult, Name};
use std::{io::Write, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// The result for one limit.
#[derive(Debug, Clone)]
pub struct SelfCheck {
    /// The limit that the guest broke.
    pub limit: &'static str,
    /// The setting of the limit; empty if it is fixed.
    pub setting: &'static str,
    /// Whether the limit ended the guest.
    pub fired: bool,
    /// The error of the guest's task, or what it was able to do.
    pub detail: String,
}

/// Stands in for a longer timeout, so that the check is quick.
const TIMEOUT: Duration = Duration::from_millis(200);
/// The same for processor time, where that is what a guest breaks.
const MAX_CPU: Duration = Duration::from_millis(500);
/// The same for a compilation.
const MAX_COMPILE_MEMORY_BYTES: u64 = 96 << 20;
const COMPILE_TIMEOUT: Duration = Duration::from_secs(5);
/// Deeper than any stack allows.
const NESTED: usize = 20_000;
/// For guests that another limit has to stop first.
const LONG_TIMEOUT: Duration = Duration::from_secs(20);

struct Probe {
    limit: &'static str,
    setting: &'static str,
    handle: String,
    timeout: Duration,
    max_cpu: Duration,
    fired: fn(&CallOutcome) -> bool,
}

/// Runs every check. Fails if there is no engine; a guest that cannot be loaded is a check that has
/// not fired.
pub async fn verify_self(config: &Config) -> Result<Vec<SelfCheck>, Error> {
    let mut config = config.clone();
    config.plugin.clear();
    // A directory of its own, so that nothing stays in the cache of a node.
    let scratch =
        tempfile::tempdir().map_err(|source| Error::io("no temporary directory", source))?;
    config.node.data_dir = scratch.path().to_owned();
    let sandbox = &config.plugins.sandbox;
    let (result_bytes, max_cpu) = (sandbox.max_result_bytes, sandbox.max_cpu.min(MAX_CPU));
    let mut checks = Vec::new();
    for probe in probes(result_bytes, max_cpu) {
        // Each with an engine of its own, because its limits are part of the configuration.
        let mut config = config.clone();
        config.plugins.sandbox.timeout = probe.timeout;
        config.plugins.sandbox.max_cpu = probe.max_cpu;
        let mut builder = Builder::new(&config, Capabilities::default(), &Health::default())?;
        builder.counts_all_records = true;
        checks.push(match run(&builder, &probe.handle).await {
            Ok(outcome) => SelfCheck {
                limit: probe.limit,
                setting: probe.setting,
                fired: (probe.fired)(&outcome),
                detail: detail(&outcome),
            },
            Err(diagnostics) => SelfCheck {
                limit: probe.limit,
                setting: probe.setting,
                fired: false,
                detail: diagnostics.iter().map(Diagnostic::to_string).collect(),
            },
        });
    }
    let plugins = &mut config.plugins;
    plugins.max_compile_memory_bytes = plugins
        .max_compile_memory_bytes
        .min(MAX_COMPILE_MEMORY_BYTES);
    plugins.compile_timeout = plugins.compile_timeout.min(COMPILE_TIMEOUT);
    let builder = Builder::new(&config, Capabilities::default(), &Health::default())?;
    for (limit, setting, file, words) in files() {
        let loaded = load(&builder, &file).await;
        let diagnostics: String = loaded
            .err()
            .iter()
            .flatten()
            .map(Diagnostic::to_string)
            .collect();
        checks.push(SelfCheck {
            limit,
            setting,
            fired: diagnostics.contains(words),
            detail: diagnostics,
        });
    }
    Ok(checks)
}

/// The attacks on the compiler: the limit and its setting, the file, and a word of the diagnostic.
fn files() -> [(&'static str, &'static str, Vec<u8>, &'static str); 3] {
    let memory = "plugins.max_compile_memory_bytes";
    let time = "plugins.compile_timeout_ms";
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

async fn load(builder: &Builder, content: &[u8]) -> Result<Generation, Vec<Diagnostic>> {
    let io = |error: std::io::Error| vec![Diagnostic::new(error.to_string())];
    let mut file = tempfile::NamedTempFile::new().map_err(io)?;
    file.write_all(content).map_err(io)?;
    let wasm = builder
        .read(file.path())
        .map_err(|diagnostic| vec![diagnostic])?;
    builder.make(&wasm).await
}

fn probes(result_bytes: usize, max_cpu: Duration) -> Vec<Probe> {
    // Only the limit that a guest breaks may end it.
    let probe = |limit, setting, handle: &str, timeout, fired| Probe {
        limit,
        setting,
        handle: handle.to_owned(),
        timeout,
        max_cpu: LONG_TIMEOUT,
        fired,
    };
    let permanent =
        |outcome: &CallOutcome| matches!(outcome.ended, AttemptResult::Permanent { .. });
    let timed_out = |outcome: &CallOutcome| matches!(&outcome.ended, AttemptResult::Retryable { error, .. } if error.contains("timeout"));
    vec![
        probe(
            "timeout of a busy guest",
            "plugins.sandbox.timeout_ms",
            test_guest::SPIN,
            TIMEOUT,
            timed_out,
        ),
        probe(
            "timeout of a guest that calls the node again and again",
            "plugins.sandbox.timeout_ms",
            test_guest::CALL_HOST,
            TIMEOUT,
            timed_out,
        ),
        Probe {
            max_cpu,
            ..probe(
                "processor time",
                "plugins.sandbox.max_cpu_ms",
                test_guest::SPIN,
                LONG_TIMEOUT,
                permanent,
            )
        },
        probe(
            "memory",
            "plugins.sandbox.max_memory_bytes",
            test_guest::GROW_MEMORY,
            LONG_TIMEOUT,
            permanent,
        ),
        probe(
            "tables",
            "plugins.sandbox.max_table_elements",
            test_guest::GROW_TABLE,
            LONG_TIMEOUT,
            permanent,
        ),
        probe("stack", "", test_guest::RECURSE, LONG_TIMEOUT, permanent),
        probe(
            "size of a result",
            "plugins.sandbox.max_result_bytes",
            &test_guest::result_of(result_bytes.saturating_add(1)),
            LONG_TIMEOUT,
            permanent,
        ),
        probe(
            "size of a log",
            "plugins.sandbox.max_log_bytes",
            test_guest::LOG_TOO_MUCH,
            LONG_TIMEOUT,
            |outcome| outcome.usage.log_cut_off,
        ),
        probe(
            "no files and no environment",
            "",
            test_guest::LOOK_AROUND,
            LONG_TIMEOUT,
            |outcome| matches!(&outcome.ended, AttemptResult::Returned(found) if found.is_empty()),
        ),
        probe(
            "a trap ends its own task only",
            "",
            test_guest::TRAP,
            LONG_TIMEOUT,
            |outcome| matches!(outcome.ended, AttemptResult::Retryable { .. }),
        ),
    ]
}

async fn run(builder: &Builder, handle: &str) -> Result<CallOutcome, Vec<Diagnostic>> {
    let one = |error: String| vec![Diagnostic::new(error)];
    let sample = TestGuest {
        handle,
        extra: test_guest::GROWABLE_TABLE,
        ..TestGuest::default()
    };
    let generation = Arc::new(load(builder, &sample.wasm().map_err(one)?).await?);
    let Some(task_type) = generation.task_types.first().cloned() else {
        return Err(one("the guest has no task type".into()));
    };
    let call = Call {
        id: Name::parse("task id", "self").map_err(|error| one(error.to_string()))?,
        payload: bytes::Bytes::from_static(b"hello"),
        metadata: Arc::default(),
        attempt: 1,
        max_attempts: None,
        timeout: None,
        cancel: CancellationToken::new(),
        observer: None,
    };
    let handler = Handler {
        generation,
        task_type,
    };
    Ok(handler.run(call).await)
}

fn detail(outcome: &CallOutcome) -> String {
    match &outcome.ended {
        AttemptResult::Retryable { error, .. } | AttemptResult::Permanent { error } => {
            error.clone()
        }
        AttemptResult::Returned(_) if outcome.usage.log_cut_off => "its log was cut off".into(),
        AttemptResult::Returned(result) => format!("it returned {} bytes", result.len()),
        other => format!("{other:?}"),
    }
}
