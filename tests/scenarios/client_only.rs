//! A program that depends on the client alone: it builds outside the clone without protoc, and without
//! the engines of a node.

use crate::support::{
    crates,
    node::Node,
    plugins::{can_build, showcase, source},
    trial_needing,
};
use libtest_mimic::Trial;
use std::process::Command;

pub fn trials() -> Vec<Trial> {
    vec![trial_needing(
        "client_only::a_client_depends_on_no_engine_and_builds_without_protoc",
        can_build(),
        a_client_depends_on_no_engine_and_builds_without_protoc,
    )]
}

const PROGRAM: &str = r#"use hostel::{DistributedClient, proto::distributed::Task};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("no address")?;
    let mut client = DistributedClient::connect(&address).await?;
    let task = Task { task_type: "echo".into(), payload: "hello".into(), ..Task::default() };
    let status = client.submit_and_wait(task).await?;
    Ok(println!("{}", String::from_utf8(status.result.to_vec())?))
}
"#;

/// Crates of the engines, which a client must not depend on.
const ENGINES: [&str; 5] = [
    "etcd-client",
    "libsqlite3-sys",
    "redis",
    "rusqlite",
    "wasmtime",
];

async fn a_client_depends_on_no_engine_and_builds_without_protoc() {
    let dir = tempfile::tempdir().expect("a directory");
    let hostel = source();
    let manifest = format!(
        "[package]\nname = \"client-only\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
         [dependencies]\n\
         hostel = {{ path = {hostel:?}, default-features = false, features = [\"client\"] }}\n\
         tokio = {{ version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }}\n"
    );
    crates::write(dir.path(), &manifest, "src/main.rs", PROGRAM);
    let target = crates::target("client");
    let cargo = |arguments: &[&str]| {
        let mut command = crates::cargo(&target);
        crates::run(command.current_dir(dir.path()).args(arguments))
    };

    let tree = cargo(&["tree", "--edges", "normal,build", "--prefix", "none"]);
    let tree = String::from_utf8(tree.stdout).expect("text");
    let names: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(names.contains(&"tonic"), "{tree}");
    for engine in ENGINES {
        assert!(!names.contains(&engine), "{engine} is in\n{tree}");
    }
    let mut distinct = names.clone();
    distinct.sort_unstable();
    distinct.dedup();
    println!("client_only: {} crates", distinct.len());

    cargo(&["build"]);
    let node = Node::start(&[&showcase("echo")], "").await;
    let ran = crates::run(Command::new(target.join("debug/client-only")).arg(node.address()));
    assert_eq!(ran.stdout, b"hello\n");
}
