//! The node's side of a compile process: starts it, passes the file in, waits for it, kills it after
//! its time limit or if its result is no longer wanted, and reaps it in every case.

use super::{
    cpu_time,
    limits::Limits,
    outcome,
    protocol::{COMMAND, CompileRequest},
    spawner::Spawner,
};
use crate::diagnostic::Diagnostic;
use hostel_config as config;
use hostel_runtime::health::Health;
use std::{
    fs::File,
    io::{self, Read, Seek},
    path::PathBuf,
    process::Stdio,
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, Command},
};
use tokio_util::sync::CancellationToken;

/// How much is read of the stderr of a process.
const MAX_STDERR_BYTES: u64 = 16 << 10;

/// Starts compile processes of one program, within one set of limits.
pub struct Launcher {
    program: PathBuf,
    spawner: Spawner,
    pub(crate) limits: Limits,
}

/// One compilation.
pub struct Job {
    pub wasm: File,
    /// Hash of the file, in hex.
    pub sha256: String,
    /// `engine_config::key` of the engine that the artifact is for.
    pub engine: u64,
    pub threads: usize,
}

impl Launcher {
    pub fn new(program: PathBuf, plugins: &config::Plugins, health: &Health) -> io::Result<Self> {
        Ok(Self {
            program,
            spawner: Spawner::start(health)?,
            limits: Limits::new(plugins),
        })
    }

    /// Returns the artifact of `job`, or its diagnostic. The process is gone when this returns, so it has to
    /// be awaited even after `stop`.
    pub async fn run(&self, job: Job, stop: CancellationToken) -> Result<Vec<u8>, Diagnostic> {
        let unable = |error: io::Error| {
            Diagnostic::passing(format!(
                "cannot be compiled: {} (plugins.compiler) cannot be run: {error}",
                self.program.display()
            ))
        };
        let artifact = scratch_file().map_err(unable)?;
        let out = artifact.try_clone().map_err(unable)?;
        let command = self.command(job, out).map_err(unable)?;
        let mut child = self.spawner.spawn(command).await.map_err(unable)?;
        let stderr = child.stderr.take();
        let ended = tokio::select! {
            ended = wait(&mut child, stderr) => Some(ended.map_err(unable)?),
            () = tokio::time::sleep(self.limits.timeout) => None,
            () = stop.cancelled() => None,
        };
        let Some((status, stderr)) = ended else {
            let cpu_time = child.id().and_then(cpu_time::of_busiest_thread);
            // Kills it and waits for its end.
            child.kill().await.map_err(unable)?;
            return Err(if stop.is_cancelled() {
                Diagnostic::passing("the node is stopping")
            } else {
                outcome::timed_out(cpu_time, &self.limits)
            });
        };
        if let Some(diagnostic) = outcome::diagnostic(status, &stderr, &self.limits) {
            return Err(diagnostic);
        }
        tokio::task::spawn_blocking(move || read(artifact))
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(unable)
    }

    fn command(&self, job: Job, out: File) -> io::Result<Command> {
        let threads = u64::try_from(job.threads).unwrap_or(u64::MAX);
        let request = CompileRequest {
            parent: std::process::id(),
            sha256: job.sha256,
            engine: job.engine,
            max_memory_bytes: self.limits.max_memory_bytes,
            max_cpu_seconds: self.limits.max_cpu_seconds.saturating_mul(threads),
            threads: job.threads,
        };
        let mut command = Command::new(&self.program);
        command
            .arg(COMMAND)
            .arg(serde_json::to_string(&request)?)
            .env_clear()
            // The binary's allocator would start a thread, which a confined process may not do.
            .env("_RJEM_MALLOC_CONF", "background_thread:false")
            .stdin(job.wasm)
            .stdout(out)
            .stderr(Stdio::piped())
            // Signals of a terminal are for the node alone.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }
}

/// The exit status of a process, and its stderr.
async fn wait(
    child: &mut Child,
    stderr: Option<ChildStderr>,
) -> io::Result<(std::process::ExitStatus, String)> {
    let mut text = Vec::new();
    if let Some(stderr) = stderr {
        stderr.take(MAX_STDERR_BYTES).read_to_end(&mut text).await?;
    }
    let status = child.wait().await?;
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

/// A file without a name, for the artifact that a process writes.
#[cfg(target_os = "linux")]
fn scratch_file() -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create("hostel-artifact", MemfdFlags::CLOEXEC)?.into())
}

#[cfg(not(target_os = "linux"))]
fn scratch_file() -> io::Result<File> {
    tempfile::tempfile()
}

/// Reads from the start: the process shares the position, and has moved it.
fn read(mut artifact: File) -> io::Result<Vec<u8>> {
    artifact.rewind()?;
    let mut bytes = Vec::new();
    artifact.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
