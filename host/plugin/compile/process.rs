//! The node's side of a compile process: started, given the file, waited for, killed when it takes
//! too long or nobody wants its result any more, and reaped in every case.

use super::{COMMAND, Request, spawner::Spawner, verdict};
use crate::Fault;
use hostel_runtime::health::Health;
use std::{
    fs::File,
    io::{self, Read, Seek},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, Command},
};
use tokio_util::sync::CancellationToken;

/// What is read of the words of a process that fails.
const MAX_WORDS_BYTES: u64 = 16 << 10;

/// Starts compile processes of one program, within one set of limits.
pub struct Launcher {
    program: PathBuf,
    spawner: Spawner,
    pub(super) limits: Limits,
}

/// What one process may use.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub max_memory_bytes: u64,
    pub timeout: Duration,
    /// What each thread may have: all of the time, so that the kernel ends the process where the
    /// node cannot.
    pub max_cpu_seconds: u64,
}

/// One compilation.
pub struct Job {
    pub wasm: File,
    /// Of the file, in hex.
    pub sha256: String,
    /// `engine::key` of the engine that the artifact is for.
    pub engine: u64,
    pub threads: usize,
}

impl Launcher {
    pub fn new(
        program: PathBuf,
        plugins: &hostel_config::Plugins,
        health: &Health,
    ) -> io::Result<Self> {
        Ok(Self {
            program,
            spawner: Spawner::start(health)?,
            limits: Limits {
                max_memory_bytes: plugins.max_compile_memory_bytes,
                timeout: plugins.compile_timeout,
                max_cpu_seconds: plugins.compile_timeout.as_millis().div_ceil(1000) as u64,
            },
        })
    }

    /// The artifact of `job`, or why there is none. When this returns, its process is gone; so it
    /// has to be awaited, also after `stop`.
    pub async fn run(&self, job: Job, stop: CancellationToken) -> Result<Vec<u8>, Fault> {
        let unable = |error: io::Error| {
            Fault::passing(format!(
                "cannot be compiled: {} (plugins.compiler) cannot be run: {error}",
                self.program.display()
            ))
        };
        let artifact = scratch_file().map_err(unable)?;
        let out = artifact.try_clone().map_err(unable)?;
        let command = self.command(job, out).map_err(unable)?;
        let mut child = self.spawner.spawn(command).await.map_err(unable)?;
        let words = child.stderr.take();
        let ended = tokio::select! {
            ended = wait(&mut child, words) => Some(ended.map_err(unable)?),
            () = tokio::time::sleep(self.limits.timeout) => None,
            () = stop.cancelled() => None,
        };
        let Some((status, words)) = ended else {
            // Kills it and waits for its end.
            child.kill().await.map_err(unable)?;
            return Err(match stop.is_cancelled() {
                true => Fault::passing("the node is stopping"),
                false => verdict::late(&self.limits),
            });
        };
        if let Some(fault) = verdict::fault(status, &words, &self.limits) {
            return Err(fault);
        }
        tokio::task::spawn_blocking(move || read(artifact))
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(unable)
    }

    fn command(&self, job: Job, out: File) -> io::Result<Command> {
        let threads = u64::try_from(job.threads).unwrap_or(u64::MAX);
        let request = Request {
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
            // The binary's allocator would start a thread, which the process may not do once it is confined.
            .env("_RJEM_MALLOC_CONF", "background_thread:false")
            .stdin(job.wasm)
            .stdout(out)
            .stderr(Stdio::piped())
            // What a terminal sends to the node is not for it.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }
}

/// How a process ended, and its last words.
async fn wait(
    child: &mut Child,
    stderr: Option<ChildStderr>,
) -> io::Result<(std::process::ExitStatus, String)> {
    let mut words = Vec::new();
    if let Some(stderr) = stderr {
        stderr.take(MAX_WORDS_BYTES).read_to_end(&mut words).await?;
    }
    let status = child.wait().await?;
    Ok((status, String::from_utf8_lossy(&words).into_owned()))
}

/// A file without a name, for what a process writes.
#[cfg(target_os = "linux")]
fn scratch_file() -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create("hostel-artifact", MemfdFlags::CLOEXEC)?.into())
}

#[cfg(not(target_os = "linux"))]
fn scratch_file() -> io::Result<File> {
    tempfile::tempfile()
}

/// The process has moved the position, which both share.
fn read(mut artifact: File) -> io::Result<Vec<u8>> {
    artifact.rewind()?;
    let mut bytes = Vec::new();
    artifact.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
