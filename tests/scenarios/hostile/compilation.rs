//! Files that attack the compiler: each ends only its own compile process.

use super::*;
use hostel::plugin::hostile::{self, Nesting};
use std::{fs, os::unix::process::ExitStatusExt};

const LIMITS: &str = "[plugins]\ncompile_timeout_ms = 6000\n\
    max_compile_memory_bytes = 100663296\nmax_compiles = 2\n";

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "hostile::a_file_that_kills_its_compiler_is_rejected_alone",
            a_file_that_kills_its_compiler_is_rejected_alone,
        ),
        trial(
            "hostile::a_compile_process_is_confined_and_ends_with_its_node",
            a_compile_process_is_confined_and_ends_with_its_node,
        ),
        trial(
            "hostile::the_cli_survives_a_hostile_file",
            the_cli_survives_a_hostile_file,
        ),
    ]
}

fn files() -> [(&'static str, Vec<u8>, &'static str); 4] {
    [
        (
            "instances",
            hostile::nested_types(Nesting::Instances, 20_000),
            "overflows the compiler's stack",
        ),
        (
            "components",
            hostile::nested_types(Nesting::Components, 20_000),
            "overflows the compiler's stack",
        ),
        (
            "doubling",
            hostile::doubling(29),
            "plugins.max_compile_memory_bytes",
        ),
        ("endless", hostile::endless(), "plugins.compile_timeout_ms"),
    ]
}

async fn a_file_that_kills_its_compiler_is_rejected_alone() {
    let mut node = Node::start(&[&showcase("echo")], LIMITS).await;
    for (name, bytes, _) in files() {
        node.add_wasm(&format!("{name}.wasm"), &bytes);
    }
    let valid = TestGuest {
        name: "valid",
        task_types: &["valid"],
        ..TestGuest::default()
    };
    node.add_wasm("valid.wasm", &valid.wasm().unwrap());
    wait_until_rejected(&node).await;
    assert_eq!(served(&node).await, ["echo", "valid"]);
    echo(&mut node.client()).await;
    assert!(node.resident_kib() < 400 << 10, "{}", node.resident_kib());
    eventually("all compile processes have ended", async || {
        node.children().is_empty().then_some(())
    })
    .await;

    // The same content under other names is not compiled again. Whether the file that has no end is,
    // depends on the load of the machine.
    let [lasting @ .., (endless, bytes, _)] = files();
    fs::remove_file(node.plugins_dir().join(format!("{endless}.wasm"))).unwrap();
    eventually("it is no longer compiled", async || {
        let listed = node.client().list_plugins().await.unwrap();
        (listed.rejected.len() == lasting.len() && node.children().is_empty()).then_some(())
    })
    .await;
    for (name, bytes, _) in &lasting {
        node.add_wasm(&format!("{name}-again.wasm"), bytes);
    }
    eventually("the copies are rejected", async || {
        let listed = node.client().list_plugins().await.unwrap();
        assert!(node.children().is_empty());
        (listed.rejected.len() == 2 * lasting.len()).then_some(())
    })
    .await;
    for (name, ..) in &lasting {
        fs::remove_file(node.plugins_dir().join(format!("{name}-again.wasm"))).unwrap();
    }
    node.add_wasm(&format!("{endless}.wasm"), &bytes);

    // A node starts with these files.
    assert!(node.terminate().await.success());
    node.restart().await;
    echo(&mut node.client()).await;
    wait_until_rejected(&node).await;
    assert_eq!(served(&node).await, ["echo", "valid"]);
}

/// Waits until each hostile file is rejected with its reason.
async fn wait_until_rejected(node: &Node) {
    let rejected = eventually("every hostile file is rejected", async || {
        let rejected = node.client().list_plugins().await.unwrap().rejected;
        (rejected.len() == files().len()).then_some(rejected)
    })
    .await;
    for (name, _, words) in files() {
        let file = format!("{name}.wasm");
        let found = rejected.iter().find(|rejected| rejected.file == file);
        let found = found.unwrap_or_else(|| panic!("{file} is not among {rejected:?}"));
        assert!(found.error.contains(words), "{file}: {}", found.error);
    }
}

async fn served(node: &Node) -> Vec<String> {
    let plugins = node.client().list_plugins().await.unwrap().plugins;
    plugins.into_iter().map(|plugin| plugin.name).collect()
}

async fn a_compile_process_is_confined_and_ends_with_its_node() {
    let mut node = Node::start(&[&showcase("echo")], "").await;
    node.add_wasm("endless.wasm", &hostile::endless());
    let child = compilation(&node).await;
    let of = |what: &str| fs::read_to_string(format!("/proc/{child}/{what}")).unwrap();
    let status = eventually("the process is confined", async || {
        let status = of("status");
        status.contains("Seccomp:\t2").then_some(status)
    })
    .await;
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // The environment only has the variable that keeps the allocator from starting a thread.
    assert_eq!(of("environ"), "_RJEM_MALLOC_CONF=background_thread:false\0");
    assert_eq!(of("oom_score_adj"), "1000\n");
    let limits = of("limits");
    for (limit, unlimited) in [
        ("Max cpu time", "unlimited"),
        ("Max data size", "unlimited"),
        ("Max address space", "unlimited"),
        ("Max file size", "unlimited"),
    ] {
        let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
        assert!(!line.contains(unlimited), "{line}");
    }

    // A stop does not wait for compilations; after a kill, the kernel ends them.
    let begin = Instant::now();
    assert!(node.terminate().await.success());
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert!(is_gone(child));
    node.spawn();
    let child = compilation(&node).await;
    node.kill();
    eventually("the process is gone with its node", async || {
        is_gone(child).then_some(())
    })
    .await;
}

/// Waits for the compile process of a node and returns its id.
async fn compilation(node: &Node) -> u32 {
    eventually("a compile process begins", async || {
        let is_it = |child: &&u32| {
            let command = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(hostel::plugin::COMPILE_COMMAND)
        };
        node.children().iter().find(is_it).copied()
    })
    .await
}

/// Returns `true` if the process has ended. It may be a zombie if nothing reaps it.
fn is_gone(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    status.map_or(true, |status| status.contains("State:\tZ"))
}

async fn the_cli_survives_a_hostile_file() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, words) in files() {
        let file = dir.path().join(name).with_extension("wasm");
        fs::write(&file, bytes).unwrap();
        for command in ["verify", "inspect"] {
            let ran = crate::support::node::hostel()
                .args(["plugins", command])
                .arg(&file)
                .env("HOSTEL__NODE__DATA_DIR", dir.path().join("data"))
                .env("HOSTEL__PLUGINS__COMPILE_TIMEOUT_MS", "6000")
                .env("HOSTEL__PLUGINS__MAX_COMPILE_MEMORY_BYTES", "100663296")
                .output()
                .unwrap();
            let out = String::from_utf8_lossy(&ran.stdout);
            assert_eq!(ran.status.code(), Some(1), "{:?}", ran.status.signal());
            assert!(out.contains(words), "{name}: {out}");
        }
    }
}
