//! Plugin files that are invalid or misbehave while they are loaded.

use super::*;
use std::cell::Cell;

pub async fn invalid_plugins_are_rejected_with_the_reason() {
    const LOADING: &str = "[plugins]\nmax_file_bytes = 8388608\n\
        [plugins.sandbox]\ndescribe_timeout_ms = 1000\nmax_cpu_ms = 10000\n";
    let mut node = Node::start(&[&showcase("echo")], LOADING).await;
    let mut client = node.client();
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let of = |sample: TestGuest<'_>| sample.wasm().unwrap();
    let sample = TestGuest::default();
    let many: Vec<String> = (0..257).map(|n| format!("type-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let invalid = [
        (
            "rubbish",
            b"no plugin at all".to_vec(),
            "is not WebAssembly",
        ),
        (
            "large",
            vec![0; (8 << 20) + 1],
            "more than 8388608 bytes (plugins.max_file_bytes)",
        ),
        (
            "half",
            of(sample.clone())[..2000].to_vec(),
            "is not a valid component",
        ),
        ("module", wat("(module)"), "--target wasm32-wasip2"),
        (
            "stranger",
            wat("(component)"),
            "does not export hostel:plugin/manifest@0.1.0",
        ),
        (
            "thief",
            of(TestGuest {
                name: "thief",
                task_types: &["echo"],
                ..sample.clone()
            }),
            "its task type echo is taken by plugin echo (echo.wasm)",
        ),
        (
            "twin",
            of(TestGuest {
                name: "echo",
                task_types: &["other"],
                ..sample.clone()
            }),
            "its name echo is taken by echo.wasm",
        ),
        (
            "bad-name",
            of(TestGuest {
                name: "{a}/b",
                ..sample.clone()
            }),
            "the plugin's name",
        ),
        (
            "no-name",
            of(TestGuest {
                name: "",
                ..sample.clone()
            }),
            "the plugin's name is empty",
        ),
        (
            "bad-type",
            of(TestGuest {
                task_types: &["two words", "ünï"],
                ..sample.clone()
            }),
            "task type \"two words\" has ' '; only letters, digits",
        ),
        (
            "long-type",
            of(TestGuest {
                task_types: &["x".repeat(129).as_str()],
                ..sample.clone()
            }),
            "task type has 129 bytes; at most 128",
        ),
        (
            "many-types",
            of(TestGuest {
                task_types: &many,
                ..sample.clone()
            }),
            "at most 256",
        ),
        (
            "future",
            of(TestGuest {
                interface: "0.2.0",
                ..sample.clone()
            }),
            "exports hostel:plugin/manifest@0.2.0, which this node does not know",
        ),
        (
            "slow",
            of(TestGuest {
                describe: test_guest::SPIN,
                ..sample.clone()
            }),
            "within 1000 ms (plugins.sandbox.describe_timeout_ms)",
        ),
        (
            "slow-start",
            of(TestGuest {
                extra: "(func $spin (loop $l (br $l))) (start $spin)",
                ..sample.clone()
            }),
            "within 1000 ms (plugins.sandbox.describe_timeout_ms)",
        ),
        (
            "trap",
            of(TestGuest {
                describe: test_guest::TRAP,
                ..sample.clone()
            }),
            "failed to describe itself: wasm trap",
        ),
        (
            "greedy",
            of(TestGuest {
                describe: "(drop (memory.grow (i32.const 10000))) unreachable",
                ..sample.clone()
            }),
            "(plugins.sandbox.max_memory_bytes)",
        ),
    ];

    // While the node serves, other tasks are not delayed.
    let mut measured = Vec::new();
    for _ in 0..ROUNDS {
        let alone = median_echo(&mut client, || false).await;
        for (name, bytes, _) in &invalid {
            node.add_wasm(&format!("{name}.wasm"), bytes);
        }
        let all_rejected_yet = Cell::new(false);
        let listing = async {
            let rejected = wait_for_rejected(node.client(), invalid.len()).await;
            all_rejected_yet.set(true);
            rejected
        };
        let echoes = median_echo(&mut client, || !all_rejected_yet.get());
        let (rejected, crowded) = tokio::join!(listing, echoes);
        for (name, _, words) in &invalid {
            check_rejection(&rejected, name, words);
        }
        measured.push((alone, crowded));
        if crowded <= alone + ALLOWANCE {
            break;
        }
        for (name, ..) in &invalid {
            std::fs::remove_file(node.plugins_dir().join(format!("{name}.wasm"))).unwrap();
        }
        wait_for_rejected(node.client(), 0).await;
    }
    let good = measured
        .iter()
        .any(|(alone, crowded)| *crowded <= *alone + ALLOWANCE);
    assert!(
        good,
        "an echo during invalid loads is too slow (alone, during): {measured:?}"
    );

    // A node starts with these files.
    assert!(node.terminate().await.success());
    node.restart().await;
    let mut client = node.client();
    let rejected = wait_for_rejected(node.client(), invalid.len()).await;
    for (name, _, words) in &invalid {
        check_rejection(&rejected, name, words);
    }
    let serving = client.list_plugins().await.unwrap().plugins;
    assert_eq!(serving.len(), 1, "{serving:?}");
    assert_eq!(
        (serving[0].name.as_str(), serving[0].file.as_str()),
        ("echo", "echo.wasm")
    );
    echo(&mut client).await;
}

/// Waits until `count` files are rejected and returns them.
async fn wait_for_rejected(client: DistributedClient, count: usize) -> Vec<RejectedFile> {
    eventually("every invalid plugin is rejected", || {
        let mut client = client.clone();
        async move {
            let rejected = client.list_plugins().await.unwrap().rejected;
            (rejected.len() == count).then_some(rejected)
        }
    })
    .await
}

fn check_rejection(rejected: &[RejectedFile], name: &str, words: &str) {
    let file = format!("{name}.wasm");
    let found = rejected.iter().find(|rejected| rejected.file == file);
    let error = found.map(|rejected| rejected.error.as_str());
    let error = error.unwrap_or_else(|| panic!("{file} is not among {rejected:?}"));
    assert!(error.contains(words), "{file}: {error}");
}

/// Where the address space has no room for the usual pool, a smaller one bounds the size of an instance.
pub async fn large_instances_are_rejected_in_a_small_address_space() {
    let mut node = Node::prepare(&[&showcase("echo")], "");
    node.limit_address_space(160 << 30);
    // Far more than an instance may have, and little enough that the test would survive it.
    let globals = "(global i64 (i64.const 0))".repeat(300_000);
    let text = TestGuest {
        name: "large",
        task_types: &["large"],
        ..TestGuest::default()
    }
    .text();
    let (rest, end) = text.split_at(text.rfind(')').unwrap());
    let instances = "(core instance (instantiate $large))".repeat(20);
    let text = format!("{rest} (core module $large {globals}) {instances} {end}");
    node.add_wasm("large.wasm", &wat::parse_str(text).unwrap());
    let node = node.started().await;
    let log = node.log();
    assert!(log.contains("of 106 pool slots"), "{log}");
    let rejected = wait_for_rejected(node.client(), 1).await;
    check_rejection(&rejected, "large", "instance allocation");
    echo(&mut node.client()).await;
}
