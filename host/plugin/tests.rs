//! Tests of the plugin host as a whole, and their helpers.

mod keyvalue;
mod limits;
mod reload;
mod tasks;

use super::{testing::config, *};
use bytes::Bytes;
use hostel_runtime::{
    health::{Health, Part},
    lifecycle::Component,
};
use hostel_task::AttemptResult;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

fn call(payload: &[u8]) -> Call {
    Call {
        id: testing::name("task-1"),
        payload: Bytes::copy_from_slice(payload),
        metadata: Arc::default(),
        attempt: 1,
        max_attempts: None,
        timeout: None,
        cancel: CancellationToken::new(),
        observer: None,
    }
}

/// A host that serves these guests, each from a file of its name.
async fn serving(config: &hostel_config::Config, guests: &[TestGuest<'_>]) -> Arc<PluginHost> {
    std::fs::create_dir_all(&config.plugins.dir).unwrap();
    for guest in guests {
        let file = config.plugins.dir.join(format!("{}.wasm", guest.name));
        std::fs::write(file, guest.wasm().unwrap()).unwrap();
    }
    let host = PluginHost::new(config, Capabilities::default(), &Health::default()).unwrap();
    host.start().await.unwrap();
    host.loaded().await;
    host
}

/// Waits until the catalog `holds`, for at most five seconds.
async fn until(host: &PluginHost, what: &str, holds: impl Fn(&View) -> bool) {
    until_within(host, Duration::from_secs(5), what, holds).await;
}

async fn until_within(
    host: &PluginHost,
    limit: Duration,
    what: &str,
    holds: impl Fn(&View) -> bool,
) {
    let mut changed = host.changed();
    let waiting = async {
        while !holds(&host.catalog().view()) {
            changed.changed().await.unwrap();
        }
    };
    if tokio::time::timeout(limit, waiting).await.is_err() {
        panic!("{what}: {:?}", host.catalog().view());
    }
}

fn version(view: &View, plugin: &str) -> String {
    let generation = view.generations.get(plugin);
    generation.map_or_else(String::new, |generation| generation.version.clone())
}

fn errors(view: &View) -> String {
    let errors: Vec<_> = view.rejected.iter().map(|r| r.error.as_str()).collect();
    errors.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inspection_lists_exports_imports_and_every_fault() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let file = dir.path().join("sample.wasm");
    std::fs::write(&file, TestGuest::default().wasm().unwrap()).unwrap();
    let good = inspect(&config, &file).await.unwrap();
    assert_eq!(good.plugin.unwrap().name.as_str(), "sample");
    assert_eq!(good.exports.len(), 2);
    assert!(good.diagnostics.is_empty() && good.imports.iter().all(|import| import.provided));

    let wat = r#"(component
        (import "wasi:http/types@0.2.0" (instance))
        (import "wasi:config/store@0.2.0-draft" (instance)))"#;
    std::fs::write(&file, wat::parse_str(wat).unwrap()).unwrap();
    let bad = inspect(&config, &file).await.unwrap();
    assert_eq!(
        bad.imports.iter().filter(|import| !import.provided).count(),
        2
    );
    let diagnostics: Vec<_> = bad.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(diagnostics.len(), 3, "{diagnostics:?}");
    assert!(diagnostics[0].contains("does not export hostel:plugin/manifest@0.1.0"));
    assert!(diagnostics[1].contains("plugins have no network"));
    assert!(diagnostics[2].contains("0.2.0-rc.1"));
    let missing = inspect(&config, &dir.path().join("none.wasm")).await;
    let missing = missing.unwrap_err().to_string();
    assert!(missing.contains("cannot be read"), "{missing}");
}
