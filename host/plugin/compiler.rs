//! From wasm bytes to a component: from the cache, else compiled on threads of its own, bounded in
//! number and in time. A compilation cannot be interrupted; one that takes too long is given up,
//! goes on in the background and counts against the bound until it ends.

use super::{Error, Fault, advice, cache::Cache, engine::Engine};
use crate::config;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, oneshot};
use wasmtime::component::Component;

/// Compiling yields to whatever runs tasks.
const NICENESS: i32 = 5;
/// How long a stopping node waits for compilations that were given up.
const LAST_WAIT: Duration = Duration::from_secs(2);

pub struct Compiler {
    engine: Arc<Engine>,
    cache: Option<Cache>,
    threads: rayon::ThreadPool,
    /// Held by each compilation until it ends.
    running: Semaphore,
    max_compiles: u32,
    timeout: Duration,
}

impl Compiler {
    pub fn new(
        config: &config::Config,
        engine: Arc<Engine>,
        cache: Option<Cache>,
    ) -> Result<Self, Error> {
        let threads = rayon::ThreadPoolBuilder::new()
            .thread_name(|n| format!("hostel-compile-{n}"))
            .start_handler(|_| {
                // Linux counts niceness by thread. Where it is refused, nothing is lost.
                let _ = rustix::process::nice(NICENESS);
            })
            // Without one, rayon ends the process. What the compilation held is let go by the time
            // that this is called, and whoever waits for it has learnt that nothing comes.
            .panic_handler(|_| {
                tracing::error!(
                    "the compiler panicked; only the plugin that it worked on is refused"
                );
            })
            .build()
            .map_err(|error| Error::Engine(error.to_string()))?;
        let max_compiles = u32::try_from(config.plugins.max_compiles.max(1)).unwrap_or(u32::MAX);
        Ok(Self {
            engine,
            cache,
            threads,
            running: Semaphore::new(max_compiles as usize),
            max_compiles,
            timeout: config.plugins.compile_timeout,
        })
    }

    /// The component of `wasm`, whose hash is `sha256`.
    pub async fn compile(
        self: &Arc<Self>,
        wasm: Arc<[u8]>,
        sha256: String,
    ) -> Result<Component, Fault> {
        check_kind(&wasm)?;
        // Before the wait: what is cached needs no compiler, and must not stand behind a slow file.
        if let Some(component) = self.cached(sha256.clone()).await {
            return Ok(component);
        }
        let compiler = self.clone();
        self.bounded(move || compiler.compile_here(&wasm, &sha256))
            .await
    }

    /// Runs `work` on a thread for compiling, once it may, and waits for as long as it may take.
    async fn bounded(
        self: &Arc<Self>,
        work: impl FnOnce() -> Result<Component, Fault> + Send + 'static,
    ) -> Result<Component, Fault> {
        // Cancel-safe: a load that is given up while it waits here has started nothing.
        let Ok(permit) = self.running.acquire().await else {
            return Err(Fault::passing("the node is stopping"));
        };
        permit.forget();
        let (done, compiled) = oneshot::channel();
        let permit = Permit(self.clone());
        self.threads.spawn(move || {
            let _permit = permit;
            // Nobody listens any more when it took too long.
            let _ = done.send(work());
        });
        match tokio::time::timeout(self.timeout, compiled).await {
            Ok(Ok(component)) => component,
            Ok(Err(_)) => Err(Fault::passing(
                "makes the compiler panic (the node's log says where): report it, and build the \
                 plugin with other compiler options meanwhile",
            )),
            Err(_) => Err(Fault::passing(format!(
                "compiling took longer than {} ms (plugins.compile_timeout_ms)",
                self.timeout.as_millis()
            ))),
        }
    }

    async fn cached(self: &Arc<Self>, sha256: String) -> Option<Component> {
        let compiler = self.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let cache = compiler.cache.as_ref()?;
            cache.get(&compiler.engine.wasmtime, &sha256)
        });
        looked.await.ok().flatten()
    }

    fn compile_here(&self, wasm: &[u8], sha256: &str) -> Result<Component, Fault> {
        let engine = &self.engine.wasmtime;
        let component = Component::from_binary(engine, wasm)
            .map_err(|error| Fault::new(advice::invalid(&format!("{error:#}"))))?;
        if let Some(Err(error)) = self.cache.as_ref().map(|c| c.put(sha256, &component)) {
            tracing::warn!(
                "a compiled plugin cannot be kept, and is compiled anew next time: {error}"
            );
        }
        Ok(component)
    }

    /// Waits a little for what still runs; the rest ends with the process.
    pub async fn stop(&self) {
        let idle = self.running.acquire_many(self.max_compiles);
        if tokio::time::timeout(LAST_WAIT, idle).await.is_err() {
            tracing::warn!("a compilation is still running and is left behind");
        }
    }
}

/// Gives its permit back on whatever way the compilation ends.
struct Permit(Arc<Compiler>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.running.add_permits(1);
    }
}

/// Tells what a file is that is no component, before the parser complains about a byte.
fn check_kind(wasm: &[u8]) -> Result<(), Fault> {
    match wasm.get(..8) {
        Some(b"\0asm\x0d\0\x01\0") => Ok(()),
        Some(b"\0asm\x01\0\0\0") => Err(Fault::new(advice::CORE_MODULE)),
        _ => Err(Fault::new(
            "is not WebAssembly, or was not written to its end",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{Outside, Sample, testing, workshop::Workshop};

    #[tokio::test]
    async fn what_is_cached_waits_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let workshop = Workshop::new(&testing::config(dir.path()), Outside::default()).unwrap();
        let compiler = &workshop.compiler;
        let wasm: Arc<[u8]> = Sample::default().wasm().unwrap().into();
        let compile = |sha256: &str| compiler.compile(wasm.clone(), sha256.to_owned());
        compile("aa").await.unwrap();
        let _all = compiler.running.acquire_many(compiler.max_compiles).await;
        compile("aa").await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(50), compile("bb"));
        assert!(waiting.await.is_err());
    }
    #[tokio::test]
    async fn a_panic_refuses_its_plugin_and_ends_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let workshop = Workshop::new(&testing::config(dir.path()), Outside::default()).unwrap();
        let compiler = &workshop.compiler;
        let panicked = compiler.bounded(|| panic!("as a compiler might")).await;
        let fault = panicked.err().unwrap();
        assert!(fault.to_string().contains("makes the compiler panic"));
        let all = compiler.running.acquire_many(compiler.max_compiles);
        let all = tokio::time::timeout(Duration::from_secs(5), all).await;
        assert!(all.is_ok(), "its permit is back");
    }
}
