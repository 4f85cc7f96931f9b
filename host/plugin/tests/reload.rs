//! Files are added, changed and removed.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_replacing_a_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugins.rescan = Duration::from_secs(2);
    let of = |version| {
        let sample = TestGuest {
            version,
            ..TestGuest::default()
        };
        sample.wasm().unwrap()
    };
    let host = serving(&config, &[TestGuest::default()]).await;
    let file = config.plugins.dir.join("sample.wasm");
    let temporary = config.plugins.dir.join("sample.tmp");

    std::fs::write(&file, of("2")).unwrap();
    until(&host, "in place", |view| version(view, "sample") == "2").await;
    std::fs::write(&temporary, of("3")).unwrap();
    std::fs::rename(&temporary, &file).unwrap();
    until(&host, "rename", |view| version(view, "sample") == "3").await;
    std::fs::write(&temporary, of("4")).unwrap();
    std::fs::copy(&temporary, &file).unwrap();
    until(&host, "copy", |view| version(view, "sample") == "4").await;

    let old = host.catalog().resolve("sample").unwrap();
    std::fs::remove_file(&file).unwrap();
    until(&host, "deleted", |view| view.generations.is_empty()).await;
    assert!(host.catalog().resolve("sample").is_none());
    let ended = old.run(call(b"still")).await.ended;
    assert_eq!(ended, AttemptResult::Returned(Bytes::from_static(b"still")));
    std::os::unix::fs::symlink(&temporary, &file).unwrap();
    until(&host, "put back as a link", |view| {
        version(view, "sample") == "4"
    })
    .await;
    let other = dir.path().join("5.wasm");
    std::fs::write(&other, of("5")).unwrap();
    std::os::unix::fs::symlink(&other, config.plugins.dir.join("link")).unwrap();
    std::fs::rename(config.plugins.dir.join("link"), &file).unwrap();
    until(&host, "swapped link", |view| version(view, "sample") == "5").await;
    std::fs::write(&other, of("6")).unwrap();
    until(&host, "behind the link", |view| {
        version(view, "sample") == "6"
    })
    .await;
    host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_never_replaces_what_serves() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugins.sandbox.describe_timeout = Duration::from_millis(200);
    let host = serving(&config, &[TestGuest::default()]).await;
    let file = config.plugins.dir.join("sample.wasm");
    let good = std::fs::read(&file).unwrap();
    let describing = |describe| TestGuest {
        version: "2",
        describe,
        ..TestGuest::default()
    };
    let of = |sample: TestGuest<'_>| sample.wasm().unwrap();
    for (content, error) in [
        (b"rubbish".to_vec(), "is not WebAssembly"),
        (good[..good.len() / 2].to_vec(), "is not a valid component"),
        (
            wat::parse_str("(module)").unwrap(),
            "--target wasm32-wasip2",
        ),
        (
            wat::parse_str("(component)").unwrap(),
            "does not export hostel:plugin/manifest@0.1.0",
        ),
        (
            of(describing(test_guest::TRAP)),
            "failed to describe itself: wasm trap",
        ),
        (
            of(describing(test_guest::SPIN)),
            "within 200 ms (plugins.sandbox.describe_timeout_ms)",
        ),
        (
            of(describing(
                "(drop (memory.grow (i32.const 10000))) unreachable",
            )),
            "max_memory_bytes",
        ),
        (
            of(TestGuest {
                name: "a b",
                ..TestGuest::default()
            }),
            "only letters",
        ),
        (
            of(TestGuest {
                version: "",
                ..TestGuest::default()
            }),
            "version is empty",
        ),
        (
            of(TestGuest {
                task_types: &["x", "x"],
                ..TestGuest::default()
            }),
            "declared twice",
        ),
        (
            of(TestGuest {
                task_types: &[],
                ..TestGuest::default()
            }),
            "declares no task types",
        ),
        (
            of(TestGuest {
                interface: "0.2.0",
                ..TestGuest::default()
            }),
            "exports hostel:plugin/manifest@0.2.0, which this node does not know",
        ),
    ] {
        std::fs::write(&file, content).unwrap();
        until(&host, error, |view| errors(view).contains(error)).await;
        assert_eq!(version(&host.catalog().view(), "sample"), "1");
        let handler = host.catalog().resolve("sample").unwrap();
        let ended = handler.run(call(b"on")).await.ended;
        assert_eq!(ended, AttemptResult::Returned(Bytes::from_static(b"on")));
    }
    std::fs::write(&file, &good).unwrap();
    until(&host, "good again", |view| view.rejected.is_empty()).await;
    host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loader_that_panics_takes_no_plugin_out_of_service() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let health = Health::default();
    std::fs::create_dir_all(&config.plugins.dir).unwrap();
    let file = |name: &str| config.plugins.dir.join(name);
    for name in ["gone", "sample"] {
        let guest = TestGuest {
            name,
            task_types: &[name],
            ..TestGuest::default()
        };
        std::fs::write(file(&format!("{name}.wasm")), guest.wasm().unwrap()).unwrap();
    }
    std::fs::write(file("bad.wasm"), "rubbish").unwrap();
    let host = PluginHost::new(&config, Capabilities::default(), &health).unwrap();
    host.start().await.unwrap();
    host.loaded().await;
    let before = host.catalog().view();
    assert_eq!((before.generations.len(), before.rejected.len()), (2, 1));
    // Checks every view from here on.
    let mut changed = host.changed();
    let (watched, served) = (host.clone(), before.generations["sample"].clone());
    let watching = tokio::spawn(async move {
        loop {
            let view = watched.catalog().view();
            assert!(view.scanned, "{view:?}");
            assert!(
                Arc::ptr_eq(&view.generations["sample"], &served),
                "{view:?}"
            );
            assert_eq!(view.rejected.len(), 1, "{view:?}");
            if !view.generations.contains_key("gone") {
                return;
            }
            changed.changed().await.unwrap();
        }
    });
    let mut diagnostics = health.changed();
    let loader = (Part::Plugins, "plugin-loader");
    assert_eq!(health.inject_panic("plugin-loader"), 1);
    let is_down = diagnostics
        .wait_for(|diagnostics| diagnostics.contains_key(&loader))
        .await;
    drop(is_down.unwrap());
    // The next loader notices what was removed before its first scan.
    std::fs::remove_file(file("gone.wasm")).unwrap();
    until(&host, "the removed one is gone", |view| {
        !view.generations.contains_key("gone")
    })
    .await;
    watching.await.unwrap();
    let is_up = diagnostics
        .wait_for(|diagnostics| !diagnostics.contains_key(&loader))
        .await;
    drop(is_up.unwrap());
    let view = host.catalog().view();
    assert!(Arc::ptr_eq(
        &view.generations["sample"],
        &before.generations["sample"]
    ));
    let handler = host.catalog().resolve("sample").unwrap();
    let ended = handler.run(call(b"on")).await.ended;
    assert_eq!(ended, AttemptResult::Returned(Bytes::from_static(b"on")));
    // The refused file is read again once it is good.
    let good = TestGuest {
        name: "bad",
        task_types: &["bad"],
        ..TestGuest::default()
    };
    std::fs::write(file("bad.wasm"), good.wasm().unwrap()).unwrap();
    until(&host, "good", |view| view.rejected.is_empty()).await;
    host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_and_a_task_type_have_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let samples = [
        TestGuest {
            name: "b",
            task_types: &["t", "u"],
            ..TestGuest::default()
        },
        TestGuest {
            name: "a",
            task_types: &["t"],
            ..TestGuest::default()
        },
    ];
    let host = serving(&config, &samples).await;
    let file = |name: &str| config.plugins.dir.join(format!("{name}.wasm"));
    assert_eq!(
        host.catalog()
            .resolve("t")
            .unwrap()
            .generation
            .name
            .as_str(),
        "a"
    );
    let error = errors(&host.catalog().view());
    assert_eq!(
        error,
        "its task type t is taken by plugin a (a.wasm): rename the type, or remove a.wasm"
    );
    std::fs::remove_file(file("a")).unwrap();
    until(&host, "b comes in", |view| version(view, "b") == "1").await;
    // A plugin that serves keeps its task types, whatever its file is called.
    std::fs::write(file("a"), samples[1].wasm().unwrap()).unwrap();
    until(&host, "a is refused", |view| {
        errors(view).contains("taken by plugin b")
    })
    .await;
    let twin = TestGuest {
        name: "b",
        task_types: &["v"],
        ..TestGuest::default()
    };
    std::fs::write(file("0"), twin.wasm().unwrap()).unwrap();
    until(&host, "twin", |view| {
        errors(view).contains("its name b is taken by b.wasm")
    })
    .await;
    let narrower = TestGuest {
        name: "b",
        version: "2",
        task_types: &["u"],
        ..TestGuest::default()
    };
    std::fs::write(file("b"), narrower.wasm().unwrap()).unwrap();
    until(&host, "a serves t", |view| version(view, "a") == "1").await;
    host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_plugin_does_not_delay_the_start_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugins.compile_timeout = Duration::from_secs(2);
    config.plugins.sandbox.describe_timeout = Duration::from_secs(5);
    let slow = TestGuest {
        name: "a-slow",
        task_types: &["slow"],
        describe: test_guest::SPIN,
        ..TestGuest::default()
    };
    let begin = std::time::Instant::now();
    let host = serving(&config, &[slow, TestGuest::default()]).await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    let view = host.catalog().view();
    assert_eq!(version(&view, "sample"), "1");
    assert!(view.rejected.is_empty());
    let refused = "the slow one is refused in the end";
    until(&host, refused, |view| {
        errors(view).contains("describe itself")
    })
    .await;
    host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_compile_process_was_killed_is_compiled_again() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // Kills itself at its first run.
    let compiler = dir.path().join("compiler");
    let (mark, program) = (dir.path().join("killed"), testing::compiler());
    let script = format!("#!/bin/sh\nmkdir {mark:?} && kill -9 $$\nexec {program:?} \"$@\"\n");
    std::fs::write(&compiler, script).unwrap();
    std::fs::set_permissions(&compiler, std::fs::Permissions::from_mode(0o755)).unwrap();
    config.plugins.compiler = Some(compiler);
    let host = serving(&config, &[TestGuest::default()]).await;
    let view = host.catalog().view();
    assert!(errors(&view).contains("was killed"), "{view:?}");
    let limit = Duration::from_secs(60);
    let serves = |view: &View| version(view, "sample") == "1" && view.rejected.is_empty();
    until_within(&host, limit, "compiled again", serves).await;
    host.stop().await.unwrap();
}
