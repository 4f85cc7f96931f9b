//! Which files serve and why others do not: owners of task types, and what all names together may take.

use super::*;
use crate::{
    load::{builder::Builder, manifest::TaskType},
    sandbox::{capabilities::Capabilities, linked_plugin::LinkedPlugin},
    test_guest::TestGuest,
    testing,
};
use hostel_runtime::health::Health;

/// A generation that differs from `of` in its name, and in task types with names of 128 bytes.
fn generation(of: &Generation, name: &str, types: usize) -> Generation {
    let task_type = |n: usize| TaskType {
        name: testing::name(&format!("{:x<128}", format!("{name}-{n}-"))),
        ..(*of.task_types[0]).clone()
    };
    Generation {
        name: testing::name(name),
        version: of.version.clone(),
        description: String::new(),
        sha256: format!("{name}-{types}"),
        file: path(name),
        loaded_at: of.loaded_at,
        task_types: (0..types).map(|n| Arc::new(task_type(n))).collect(),
        topics: Vec::new(),
        plugin: LinkedPlugin {
            engine: of.plugin.engine.clone(),
            pre: of.plugin.pre.clone(),
            slots: of.plugin.slots,
            sandbox: of.plugin.sandbox.clone(),
            max_transfer_bytes: of.plugin.max_transfer_bytes,
            settings: of.plugin.settings.clone(),
            log_source: of.plugin.log_source.clone(),
            granted: None,
        },
        handler: None,
        component: None,
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("{name}.wasm"))
}

async fn sample() -> Generation {
    let dir = tempfile::tempdir().unwrap();
    let config = testing::config(dir.path());
    let builder = Builder::new(&config, Capabilities::default(), &Health::default()).unwrap();
    let file = dir.path().join("sample.wasm");
    std::fs::write(&file, TestGuest::default().wasm().unwrap()).unwrap();
    let wasm = builder.read(&file).unwrap();
    builder.make(&wasm).await.unwrap()
}

#[tokio::test]
async fn the_names_of_all_plugins_together_are_bounded() {
    let sample = sample().await;
    let mut registry = Registry::default();
    let insert = |registry: &mut Registry, name: &str, types| {
        registry.insert(&path(name), generation(&sample, name, types));
        registry.resolve(false)
    };
    let served = |registry: &Registry| registry.view(Vec::new(), true).generations.len();
    let names: Vec<String> = (0..47).map(|n| format!("p{n:02}")).collect();
    for name in &names {
        assert_eq!(insert(&mut registry, name, 256), [path(name)]);
    }
    assert_eq!(served(&registry), 15);
    for name in &names[15..] {
        let error = &registry.rejection(&path(name)).unwrap().error;
        assert!(error.contains("at most 524288"), "{error}");
        assert!(error.contains("remove plugins"), "{error}");
    }
    // What serves may be replaced, and a small one still fits. The numbers of the others follow.
    let waiting = |registry: &Registry| registry.rejection(&path("p40")).unwrap().error.clone();
    let before = waiting(&registry);
    assert_eq!(insert(&mut registry, "p00", 255), [path("p00")]);
    assert_eq!(insert(&mut registry, "small", 1), [path("small")]);
    assert_eq!(served(&registry), 16);
    let after = waiting(&registry);
    assert!(
        before != after && after.contains("at most 524288"),
        "{after}"
    );
    // One that is smaller makes room for the first that waits.
    assert_eq!(insert(&mut registry, "p00", 1), [path("p00"), path("p15")]);
    assert!(registry.rejection(&path("p15")).is_none());
    // So does one that is removed, and also where the order of names decides.
    registry.remove(&path("p01"));
    assert_eq!(registry.resolve(true), [path("p16")]);
    assert_eq!(served(&registry), 17);
}

#[tokio::test]
async fn a_rejection_names_what_is_in_the_way_now() {
    let sample = sample().await;
    let mut registry = Registry::default();
    for name in ["a", "m", "z"] {
        let shared = generation(&sample, "shared", 1).task_types;
        let generation = Generation {
            task_types: shared,
            ..generation(&sample, name, 0)
        };
        registry.insert(&path(name), generation);
    }
    assert_eq!(registry.resolve(false), ["a", "m", "z"].map(path));
    let error = |registry: &Registry, name| registry.rejection(&path(name)).unwrap().error.clone();
    for name in ["m", "z"] {
        assert!(error(&registry, name).contains("taken by plugin a (a.wasm)"));
    }
    assert_eq!(registry.resolve(false), Vec::<PathBuf>::new());
    registry.remove(&path("a"));
    assert_eq!(registry.resolve(false), ["m", "z"].map(path));
    assert!(registry.rejection(&path("m")).is_none());
    let now = error(&registry, "z");
    assert!(now.contains("taken by plugin m (m.wasm)"), "{now}");
}

#[test]
fn the_expected_task_types_are_bounded() {
    let task_types: Vec<Name> = (0..256)
        .map(|n| testing::name(&format!("{:x<128}", format!("{n}-"))))
        .collect();
    let loading = (0..47).map(|n| Loading {
        file: path(&n.to_string()),
        since: SystemTime::now(),
        task_types: task_types.clone(),
    });
    let view = Registry::default().view(loading.collect(), false);
    assert_eq!(view.loading.len(), 47);
    assert_eq!(view.expected_types().count(), 7 * 256);
}
