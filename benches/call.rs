//! One call of the echo plugin in a new instance: through the catalog with limits and deadlines, compared
//! with wasmtime alone and the same engine settings. Both run on the threads of guests.

use crate::{
    median,
    report::{Aim, Row},
    rounds, runtime,
    support::plugins::showcase,
};
use bytes::Bytes;
use hostel::{
    Config,
    health::Health,
    lifecycle::Component as _,
    plugin::{Call, CallOutcome, Capabilities, PluginHost, engine_settings},
    task::{AttemptResult, Name},
};
use std::{path::Path, sync::Arc, time::Instant};
use tokio_util::sync::CancellationToken;
use wasmtime::{
    Engine, Store,
    component::{Component, InstancePre, Linker},
};

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
        exports: { default: async },
    });
}
use bindings::exports::hostel::plugin::task_handler::{GuestIndices, Task};

const CALLS: u32 = 10_000;
const PAYLOAD: [u8; 256] = [7; 256];

pub fn rows() -> Vec<Row> {
    let runtime = runtime();
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path());
    let host = PluginHost::new(&config, Capabilities::default(), &Health::default())
        .expect("a plugin host");
    runtime.block_on(host.start()).expect("a start");
    runtime.block_on(host.loaded());
    let handler = host.catalog().resolve("echo").expect("a handler");
    let bare = Arc::new(Bare::new(&config, &showcase("echo")));
    let measured: Vec<[f64; 3]> = rounds(|_| {
        // On the threads of guests, as in a node; then from another thread.
        let guests = host.runtime();
        let raw = guests.spawn(us(bare.clone(), |bare| async move { bare.call().await }));
        let raw = runtime.block_on(raw).expect("a measurement");
        let ours = guests.spawn(us(handler.clone(), |handler| async move {
            check(handler.run_here(call()).await);
        }));
        let ours = runtime.block_on(ours).expect("a measurement");
        let handed_over = runtime.block_on(us(handler.clone(), |handler| async move {
            check(handler.run(call()).await);
        }));
        [raw, ours, handed_over]
    });
    runtime.block_on(host.stop()).expect("a stop");
    let column = |index: usize| median(measured.iter().map(|round| round[index]).collect());
    let row = |what: &str, ours| Row::new(what, "µs", ours).beside("bare wasmtime", column(0));
    vec![
        row("one call in a fresh instance", column(1)).aim(Aim::RatioAtMost(1.3)),
        row("the same, handed to the guests' threads", column(2)),
    ]
}

fn config(dir: &Path) -> Config {
    let plugins = dir.join("plugins");
    std::fs::create_dir(&plugins).expect("a directory");
    std::fs::copy(showcase("echo"), plugins.join("echo.wasm")).expect("the plugin");
    let mut config = Config::default();
    config.plugins.dir = plugins;
    config.plugins.compiler = Some(env!("CARGO_BIN_EXE_hostel").into());
    config.node.data_dir = dir.join("data");
    config
}

fn call() -> Call {
    Call {
        id: Name::parse("id", "one").expect("a name"),
        payload: Bytes::from_static(&PAYLOAD),
        metadata: Arc::default(),
        attempt: 1,
        max_attempts: None,
        timeout: None,
        cancel: CancellationToken::new(),
        observer: None,
    }
}

fn check(finished: CallOutcome) {
    assert_eq!(
        finished.ended,
        AttemptResult::Returned(Bytes::from_static(&PAYLOAD))
    );
}

/// Measures the microseconds of a call.
async fn us<T: Clone, F: Future<Output = ()>>(of: T, call: impl Fn(T) -> F) -> f64 {
    for _ in 0..CALLS / 10 {
        call(of.clone()).await;
    }
    let begin = Instant::now();
    for _ in 0..CALLS {
        call(of.clone()).await;
    }
    begin.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
}

/// wasmtime with the engine settings of a node and without its other parts.
struct Bare {
    engine: Engine,
    pre: InstancePre<()>,
    handler: GuestIndices,
}

impl Bare {
    fn new(config: &Config, file: &Path) -> Self {
        let engine = Engine::new(&engine_settings(config)).expect("an engine");
        let component = Component::from_file(&engine, file).expect("a component");
        let mut linker = Linker::new(&engine);
        // The echo plugin calls none of its imports.
        linker
            .define_unknown_imports_as_traps(&component)
            .expect("imports");
        let pre = linker
            .instantiate_pre(&component)
            .expect("a linked component");
        let handler = GuestIndices::new(&pre).expect("a handler");
        Self {
            engine,
            pre,
            handler,
        }
    }

    async fn call(&self) {
        let mut store = Store::new(&self.engine, ());
        store.set_epoch_deadline(u64::MAX / 2);
        let task = Task {
            id: "one",
            task_type: "echo",
            payload: &PAYLOAD,
            metadata: &[],
            attempt: 1,
            max_attempts: 5,
            timeout_ms: 60_000,
        };
        let instance = self
            .pre
            .instantiate_async(&mut store)
            .await
            .expect("an instance");
        let guest = self
            .handler
            .load(&mut store, &instance)
            .expect("the handler");
        let answer = guest.call_handle(&mut store, task).await.expect("a call");
        assert_eq!(answer.expect("a result"), PAYLOAD);
    }
}
