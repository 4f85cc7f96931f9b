//! Compiles plugin files: from the cache, else in a process of its own, bounded in number. Content that
//! was refused for a reason of its own is remembered and not compiled again until the node ends; after that, limits, compiler
//! or machine may be others.

use super::{
    cache::{self, Cache},
    hints,
    process::{Job, Launcher},
    wasm_file::WasmFile,
};
use crate::{
    diagnostic::Diagnostic,
    error::Error,
    sandbox::{
        engine::Engine,
        engine_config,
        sizing::{max_compiles, processors},
    },
};
use hostel_config as config;
use hostel_runtime::health::Health;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::Arc,
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
    /// `None` if there is no program that can compile.
    launcher: Option<Arc<Launcher>>,
    /// Held by each compilation until its process is gone.
    running: Arc<Semaphore>,
    max_compiles: usize,
    reading: Semaphore,
    /// By the content's hash; the oldest are forgotten first.
    refused: Mutex<VecDeque<(String, Diagnostic)>>,
    /// The tasks that wait for the end of a process.
    processes: TaskTracker,
    stopping: CancellationToken,
}

/// A component, and how long its compilation took if it was not in the cache.
pub struct Compiled {
    pub component: Component,
    pub compile_time: Option<Duration>,
}

impl Compiler {
    pub fn new(
        plugins: &config::Plugins,
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

    /// Returns the component of `wasm`.
    pub async fn compile(self: &Arc<Self>, wasm: &WasmFile) -> Result<Compiled, Diagnostic> {
        check_kind(&wasm.head)?;
        // Before the wait, so that cached content does not wait for the compilation of other files.
        if let Some(compiled) = self.cached(&wasm.sha256).await {
            return Ok(compiled);
        }
        if let Some(diagnostic) = self.remembered(&wasm.sha256) {
            return Err(diagnostic);
        }
        let launcher = self.launcher.clone().ok_or_else(|| {
            Diagnostic::new(
                "cannot be compiled: this program has no compiler; name a hostel of this version \
                 (plugins.compiler)",
            )
        })?;
        let Ok(permit) = self.running.clone().acquire_owned().await else {
            return Err(Diagnostic::passing("the node is stopping"));
        };
        // Another file with this content may have been compiled or refused meanwhile.
        if let Some(compiled) = self.cached(&wasm.sha256).await {
            return Ok(compiled);
        }
        if let Some(diagnostic) = self.remembered(&wasm.sha256) {
            return Err(diagnostic);
        }
        let begin = Instant::now();
        // The permit is held until the result can be found, or the next one would compile the same again.
        let (artifact, _permit) = self.run(launcher, permit, wasm).await?;
        let made = async { self.keep(&wasm.sha256, artifact?).await };
        let component = made
            .await
            .inspect_err(|diagnostic| self.remember(&wasm.sha256, diagnostic))?;
        Ok(Compiled {
            component,
            compile_time: Some(begin.elapsed()),
        })
    }

    /// Compiles in a process, which ends if this is dropped. Until it has ended, the permit is taken.
    async fn run(
        self: &Arc<Self>,
        launcher: Arc<Launcher>,
        permit: OwnedSemaphorePermit,
        wasm: &WasmFile,
    ) -> Result<(Result<Vec<u8>, Diagnostic>, OwnedSemaphorePermit), Diagnostic> {
        let open = self
            .max_compiles
            .saturating_sub(self.running.available_permits());
        let job = Job {
            wasm: wasm.open()?,
            sha256: wasm.sha256.clone(),
            engine: engine_config::key(&self.engine.wasmtime),
            threads: processors().div_ceil(open.max(1)),
        };
        let stop = self.stopping.child_token();
        let _unwanted = stop.clone().drop_guard();
        let process = async move { (launcher.run(job, stop).await, permit) };
        let running = self.processes.spawn(process).await;
        running.map_err(|_| Diagnostic::passing("the node is stopping"))
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

    async fn keep(
        self: &Arc<Self>,
        sha256: &str,
        artifact: Vec<u8>,
    ) -> Result<Component, Diagnostic> {
        let (compiler, sha256) = (self.clone(), sha256.to_owned());
        let kept = tokio::task::spawn_blocking(move || {
            // Finds what only the engine that runs it can find, such as a memory above the limit.
            let component = cache::load(&compiler.engine.wasmtime, &artifact)
                .map_err(|error| Diagnostic::new(hints::invalid(&format!("{error:#}"))))?;
            if let Some(Err(error)) = compiler.cache.as_ref().map(|c| c.put(&sha256, &artifact)) {
                tracing::warn!(
                    "a compiled plugin cannot be cached, and is compiled again next time: {error}"
                );
            }
            Ok(component)
        });
        kept.await
            .unwrap_or_else(|_| Err(Diagnostic::passing("the node is stopping")))
    }

    fn remembered(&self, sha256: &str) -> Option<Diagnostic> {
        let refused = self.refused.lock();
        let known = refused.iter().find(|(known, _)| known == sha256);
        known.map(|(_, diagnostic)| diagnostic.clone())
    }

    fn remember(&self, sha256: &str, diagnostic: &Diagnostic) {
        if diagnostic.may_pass() {
            return;
        }
        let mut refused = self.refused.lock();
        if refused.len() == MAX_REMEMBERED {
            refused.pop_front();
        }
        refused.push_back((sha256.to_owned(), diagnostic.clone()));
    }

    /// Ends the processes that run, and waits until they are gone.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.processes.close();
        self.processes.wait().await;
    }
}

/// Refuses a file that is no component with a better explanation than the parser's.
fn check_kind(head: &[u8]) -> Result<(), Diagnostic> {
    match head {
        b"\0asm\x0d\0\x01\0" => Ok(()),
        b"\0asm\x01\0\0\0" => Err(Diagnostic::new(hints::CORE_MODULE)),
        _ => Err(Diagnostic::new(
            "is not WebAssembly, or was not written to its end",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hostile, load::builder::Builder, sandbox::capabilities::Capabilities,
        test_guest::TestGuest, testing,
    };

    /// A builder, and the file with this content.
    fn builder(
        dir: &std::path::Path,
        content: &[u8],
        change: impl FnOnce(&mut config::Plugins),
    ) -> (Builder, WasmFile) {
        let mut config = testing::config(dir);
        change(&mut config.plugins);
        let builder = Builder::new(&config, Capabilities::default(), &Health::default()).unwrap();
        let file = dir.join("file.wasm");
        std::fs::write(&file, content).unwrap();
        let wasm = builder.read(&file).unwrap();
        (builder, wasm)
    }

    #[tokio::test]
    async fn cached_content_needs_no_permit_and_no_compiler() {
        let dir = tempfile::tempdir().unwrap();
        let content = TestGuest::default().wasm().unwrap();
        let (first, wasm) = builder(dir.path(), &content, |_| {});
        let compiled = first.compile(&wasm).await.unwrap();
        assert!(compiled.compile_time.is_some());
        let (second, wasm) = builder(dir.path(), &content, |plugins| plugins.compiler = None);
        let _all = second.compiler.running.acquire_many(2).await.unwrap();
        let compiled = second.compile(&wasm).await.unwrap();
        assert!(compiled.compile_time.is_none());

        let other = TestGuest {
            name: "other",
            ..TestGuest::default()
        }
        .wasm()
        .unwrap();
        let (_, other) = builder(dir.path(), &other, |_| {});
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
    async fn content_that_was_refused_is_not_compiled_again() {
        let dir = tempfile::tempdir().unwrap();
        let deep = hostile::nested_types(hostile::Nesting::Instances, 20_000);
        let (builder, wasm) = builder(dir.path(), &deep, |_| {});
        let refused = builder.compile(&wasm).await.err().unwrap();
        assert!(refused.to_string().contains("stack"), "{refused}");
        // No process could begin now.
        let _all = builder.compiler.running.acquire_many(2).await.unwrap();
        assert_eq!(builder.compile(&wasm).await.err(), Some(refused));
    }

    #[tokio::test]
    async fn copies_of_content_that_is_refused_are_compiled_once() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let deep = hostile::nested_types(hostile::Nesting::Instances, 20_000);
        // Notes each of its runs.
        let [program, runs] = ["compiler", "runs"].map(|name| dir.path().join(name));
        let real = testing::compiler();
        let script = format!("#!/bin/sh\necho >> {runs:?}\nexec {real:?} \"$@\"\n");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (builder, wasm) = builder(dir.path(), &deep, |plugins| {
            plugins.compiler = Some(program);
            plugins.max_compiles = 1;
        });
        let compile = async || builder.compile(&wasm).await.err().unwrap();
        let (one, two, three) = tokio::join!(compile(), compile(), compile());
        assert!(one.to_string().contains("stack"), "{one}");
        assert_eq!((&one, &one), (&two, &three));
        assert_eq!(std::fs::read(runs).unwrap(), b"\n");
    }

    #[tokio::test]
    async fn a_stop_ends_the_compilations() {
        let dir = tempfile::tempdir().unwrap();
        let (builder, wasm) = builder(dir.path(), &hostile::endless(), |_| {});
        let builder = Arc::new(builder);
        let compiling = tokio::spawn({
            let builder = builder.clone();
            async move { builder.compile(&wasm).await.err() }
        });
        while builder.compiler.processes.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        builder.compiler.stop().await;
        assert!(builder.compiler.processes.is_empty());
        assert!(compiling.await.unwrap().unwrap().may_pass());
    }
}
