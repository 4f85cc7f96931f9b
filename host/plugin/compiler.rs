//! From a plugin file to a component: from the cache, else compiled in a process of its own, bounded
//! in number. What a file did to its process is remembered, so that the same content is not tried
//! again. Until the node ends: then limits, compiler or machine may be others, and a try is bounded.

use super::{
    Error, Fault, advice,
    cache::{self, Cache},
    compile::{Job, Launcher},
    engine::{self, Engine},
    machine,
    workshop::Wasm,
};
use hostel_runtime::health::Health;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wasmtime::component::Component;

/// How many refused contents are remembered.
const MAX_REMEMBERED: usize = 1024;
/// How many artifacts are read from the cache at once: each is in memory twice meanwhile.
const MAX_READS: usize = 4;

pub struct Compiler {
    engine: Arc<Engine>,
    cache: Option<Cache>,
    /// Absent where no program can compile.
    launcher: Option<Arc<Launcher>>,
    /// Held by each compilation until its process is gone.
    running: Arc<Semaphore>,
    max_compiles: usize,
    reading: Semaphore,
    /// By the content's hash; the oldest go first.
    refused: Mutex<VecDeque<(String, Fault)>>,
    /// Those who wait for the ends of processes.
    processes: TaskTracker,
    stopping: CancellationToken,
}

/// A component, and how long its compilation took if it was not in the cache.
pub struct Compiled {
    pub component: Component,
    pub compile_time: Option<Duration>,
}

/// How many plugins are compiled at the same time.
pub fn max_compiles(plugins: &hostel_config::Plugins) -> usize {
    match plugins.max_compiles {
        0 => {
            let memory = machine::memory_bytes().unwrap_or_default() / 2;
            let each = usize::try_from(plugins.max_compile_memory_bytes).unwrap_or(usize::MAX);
            // Two at least: a file that takes all of its time must not keep the others waiting.
            processors().min(memory / each).max(2)
        }
        given => given,
    }
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

impl Compiler {
    pub fn new(
        plugins: &hostel_config::Plugins,
        engine: Arc<Engine>,
        cache: Option<Cache>,
        health: &Health,
    ) -> Result<Self, Error> {
        let launcher = plugins.compiler.clone();
        let launcher = launcher
            .map(|program| Launcher::new(program, plugins, health).map(Arc::new))
            .transpose()
            .map_err(|source| Error::io("the compile thread cannot be started", source))?;
        let max_compiles = max_compiles(plugins);
        Ok(Self {
            engine,
            cache,
            launcher,
            running: Arc::new(Semaphore::new(max_compiles)),
            max_compiles,
            reading: Semaphore::new(MAX_READS),
            refused: Mutex::default(),
            processes: TaskTracker::new(),
            stopping: CancellationToken::new(),
        })
    }

    pub fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }

    /// The component of `wasm`.
    pub async fn compile(self: &Arc<Self>, wasm: &Wasm) -> Result<Compiled, Fault> {
        check_kind(&wasm.head)?;
        // Before the wait: what is cached needs no compiler, and must not stand behind a slow file.
        if let Some(compiled) = self.cached(&wasm.sha256).await {
            return Ok(compiled);
        }
        if let Some(fault) = self.remembered(&wasm.sha256) {
            return Err(fault);
        }
        let launcher = self.launcher.clone().ok_or_else(|| {
            Fault::new(
                "cannot be compiled: this program has no compiler; name a hostel of this version \
                 (plugins.compiler)",
            )
        })?;
        let Ok(permit) = self.running.clone().acquire_owned().await else {
            return Err(Fault::passing("the node is stopping"));
        };
        // Another file with this content may have been first.
        if let Some(compiled) = self.cached(&wasm.sha256).await {
            return Ok(compiled);
        }
        let begin = Instant::now();
        let made = async {
            let artifact = self.run(launcher, permit, wasm).await?;
            self.keep(&wasm.sha256, artifact).await
        };
        let component = made
            .await
            .inspect_err(|fault| self.remember(&wasm.sha256, fault))?;
        Ok(Compiled {
            component,
            compile_time: Some(begin.elapsed()),
        })
    }

    /// Compiles in a process. If this is dropped, the process is ended.
    async fn run(
        self: &Arc<Self>,
        launcher: Arc<Launcher>,
        permit: OwnedSemaphorePermit,
        wasm: &Wasm,
    ) -> Result<Vec<u8>, Fault> {
        let open = self
            .max_compiles
            .saturating_sub(self.running.available_permits());
        let job = Job {
            wasm: wasm.open()?,
            sha256: wasm.sha256.clone(),
            engine: engine::key(&self.engine.wasmtime),
            threads: processors().div_ceil(open.max(1)),
        };
        let stop = self.stopping.child_token();
        let _unwanted = stop.clone().drop_guard();
        let running = self.processes.spawn(async move {
            let ended = launcher.run(job, stop).await;
            drop(permit);
            ended
        });
        running
            .await
            .unwrap_or_else(|_| Err(Fault::passing("the node is stopping")))
    }

    async fn cached(self: &Arc<Self>, sha256: &str) -> Option<Compiled> {
        let _turn = self.reading.acquire().await.ok()?;
        let (compiler, sha256) = (self.clone(), sha256.to_owned());
        let looked = tokio::task::spawn_blocking(move || {
            let cache = compiler.cache.as_ref()?;
            cache.get(&compiler.engine.wasmtime, &sha256)
        });
        let component = looked.await.ok().flatten()?;
        Some(Compiled {
            component,
            compile_time: None,
        })
    }

    async fn keep(self: &Arc<Self>, sha256: &str, artifact: Vec<u8>) -> Result<Component, Fault> {
        let (compiler, sha256) = (self.clone(), sha256.to_owned());
        let kept = tokio::task::spawn_blocking(move || {
            // What only the engine that runs it can find: a memory above the limit, say.
            let component = cache::load(&compiler.engine.wasmtime, &artifact)
                .map_err(|error| Fault::new(advice::invalid(&format!("{error:#}"))))?;
            if let Some(Err(error)) = compiler.cache.as_ref().map(|c| c.put(&sha256, &artifact)) {
                tracing::warn!(
                    "a compiled plugin cannot be kept, and is compiled anew next time: {error}"
                );
            }
            Ok(component)
        });
        kept.await
            .unwrap_or_else(|_| Err(Fault::passing("the node is stopping")))
    }

    fn remembered(&self, sha256: &str) -> Option<Fault> {
        let refused = self.refused();
        let known = refused.iter().find(|(known, _)| known == sha256);
        known.map(|(_, fault)| fault.clone())
    }

    fn remember(&self, sha256: &str, fault: &Fault) {
        if fault.may_pass() {
            return;
        }
        let mut refused = self.refused();
        if refused.len() == MAX_REMEMBERED {
            refused.pop_front();
        }
        refused.push_back((sha256.to_owned(), fault.clone()));
    }

    /// Each change is one push: a panic in between leaves it whole.
    fn refused(&self) -> MutexGuard<'_, VecDeque<(String, Fault)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what still runs, and waits until it is gone.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.processes.close();
        self.processes.wait().await;
    }
}

/// Tells what a file is that is no component, before the parser complains about a byte.
fn check_kind(head: &[u8]) -> Result<(), Fault> {
    match head {
        b"\0asm\x0d\0\x01\0" => Ok(()),
        b"\0asm\x01\0\0\0" => Err(Fault::new(advice::CORE_MODULE)),
        _ => Err(Fault::new(
            "is not WebAssembly, or was not written to its end",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Outside, Sample, hostile, testing, workshop::Workshop};

    /// A workshop, and the file with this content.
    fn workshop(
        dir: &std::path::Path,
        content: &[u8],
        change: impl FnOnce(&mut hostel_config::Plugins),
    ) -> (Workshop, Wasm) {
        let mut config = testing::config(dir);
        change(&mut config.plugins);
        let workshop = Workshop::new(&config, Outside::default(), &Health::default()).unwrap();
        let file = dir.join("file.wasm");
        std::fs::write(&file, content).unwrap();
        let wasm = workshop.read(&file).unwrap();
        (workshop, wasm)
    }

    #[tokio::test]
    async fn what_is_cached_waits_for_nobody_and_needs_no_compiler() {
        let dir = tempfile::tempdir().unwrap();
        let content = Sample::default().wasm().unwrap();
        let (first, wasm) = workshop(dir.path(), &content, |_| {});
        let compiled = first.compile(&wasm).await.unwrap();
        assert!(compiled.compile_time.is_some());
        let (second, wasm) = workshop(dir.path(), &content, |plugins| plugins.compiler = None);
        let _all = second.compiler.running.acquire_many(2).await.unwrap();
        let compiled = second.compile(&wasm).await.unwrap();
        assert!(compiled.compile_time.is_none());

        let other = Sample {
            name: "other",
            ..Sample::default()
        }
        .wasm()
        .unwrap();
        let (_, other) = workshop(dir.path(), &other, |_| {});
        let refused = second.compile(&other).await.err().unwrap();
        assert!(
            refused
                .to_string()
                .contains("has no compiler; name a hostel"),
            "{refused}"
        );
        assert!(!refused.may_pass());
    }

    #[tokio::test]
    async fn what_killed_its_process_is_not_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let (workshop, wasm) = workshop(dir.path(), &hostile::endless(), |plugins| {
            plugins.compile_timeout = Duration::from_millis(500);
        });
        let refused = workshop.compile(&wasm).await.err().unwrap();
        assert!(
            refused.to_string().contains("compile_timeout_ms"),
            "{refused}"
        );
        // No process could begin now.
        let _all = workshop.compiler.running.acquire_many(2).await.unwrap();
        assert_eq!(workshop.compile(&wasm).await.err(), Some(refused));
    }

    #[tokio::test]
    async fn a_stop_ends_what_is_compiled() {
        let dir = tempfile::tempdir().unwrap();
        let (workshop, wasm) = workshop(dir.path(), &hostile::endless(), |_| {});
        let workshop = Arc::new(workshop);
        let compiling = tokio::spawn({
            let workshop = workshop.clone();
            async move { workshop.compile(&wasm).await.err() }
        });
        while workshop.compiler.processes.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        workshop.compiler.stop().await;
        assert!(workshop.compiler.processes.is_empty());
        assert!(compiling.await.unwrap().unwrap().may_pass());
    }
}
