//! Proves the sandbox on this machine under this configuration: runs a hostile guest against every
//! limit and says which fired.

use super::{
    Call, Error, Fault, Finished, Handler,
    sample::{self, Sample},
    workshop::{Wasm, Workshop},
};
use crate::{
    config::Config,
    task::{Ended, Name},
};
use std::{path::Path, sync::Arc, time::Duration};
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
    let sandbox = &mut config.plugins.sandbox;
    let result_bytes = sandbox.max_result_bytes;
    sandbox.max_cpu = sandbox.max_cpu.min(MAX_CPU);
    let mut checks = Vec::new();
    for probe in probes(result_bytes) {
        // Each on an engine of its own, because the timeout is part of the configuration.
        let mut config = config.clone();
        config.plugins.sandbox.timeout = probe.timeout;
        let workshop = Workshop::without_cache(&config)?;
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
    Ok(checks)
}

fn probes(result_bytes: usize) -> Vec<Probe> {
    let probe = |limit, setting, handle: &str, timeout, fired| Probe {
        limit,
        setting,
        handle: handle.to_owned(),
        timeout,
        fired,
    };
    let permanent = |finished: &Finished| matches!(finished.ended, Ended::Permanent { .. });
    let timed_out = |finished: &Finished| matches!(&finished.ended, Ended::Retryable { error, .. } if error.contains("timeout"));
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
            |finished| matches!(&finished.ended, Ended::Returned(found) if found.is_empty()),
        ),
        probe(
            "a trap ends its own task only",
            "",
            sample::TRAP,
            PATIENCE,
            |finished| matches!(finished.ended, Ended::Retryable { .. }),
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
    let bytes: Arc<[u8]> = sample.wasm().map_err(one)?.into();
    let sha256 = String::new();
    let wasm = Wasm { bytes, sha256 };
    let generation = Arc::new(workshop.make(Path::new("self.wasm"), wasm).await?);
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
        Ended::Retryable { error, .. } | Ended::Permanent { error } => error.clone(),
        Ended::Returned(_) if finished.usage.log_cut_off => "its log was cut off".into(),
        Ended::Returned(result) => format!("it returned {} bytes", result.len()),
        other => format!("{other:?}"),
    }
}
