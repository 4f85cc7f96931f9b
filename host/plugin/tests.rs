//! Tests of the plugin host as a whole.

use super::{testing::config, *};
use crate::{lifecycle::Component, task::Ended};
use bytes::Bytes;
use std::{sync::Arc, time::Instant};
use tokio_util::sync::CancellationToken;

fn call(payload: &[u8]) -> Call {
    Call {
        id: testing::name("task-1"),
        payload: Bytes::copy_from_slice(payload),
        metadata: Arc::default(),
        attempt: 1,
        cancel: CancellationToken::new(),
    }
}

/// Skipped when the SDK's echo has not been built for wasm.
#[tokio::test(flavor = "multi_thread")]
async fn real_echo() {
    let wasm = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/target/wasm32-wasip2/release/echo.wasm"
    );
    if !std::path::Path::new(wasm).exists() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    std::fs::create_dir_all(&config.plugins.dir).unwrap();
    std::fs::copy(wasm, config.plugins.dir.join("echo.wasm")).unwrap();
    for round in 0..2 {
        let begin = Instant::now();
        let host = PluginHost::new(&config).unwrap();
        println!("round {round}: engine {:?}", begin.elapsed());
        let begin = Instant::now();
        host.start().await.unwrap();
        println!("round {round}: start {:?}", begin.elapsed());
        println!("{:?}", host.catalog().view().rejected);
        let echo = host.catalog().resolve("echo").unwrap();
        let finished = echo.run(call(b"hello")).await;
        assert_eq!(
            finished.ended,
            Ended::Returned(Bytes::from_static(b"hello"))
        );
        println!("{:?}", finished.usage);
        let begin = Instant::now();
        for _ in 0..20000 {
            echo.run(call(b"hello")).await;
        }
        println!("run: {:?}", begin.elapsed() / 20000);
        let here = echo.clone();
        let each = host.runtime().spawn(async move {
            let begin = Instant::now();
            for _ in 0..20000 {
                here.run_here(call(b"hello")).await;
            }
            begin.elapsed() / 20000
        });
        println!("run_here: {:?}", each.await.unwrap());
        host.stop().await.unwrap();
    }
}
