//! A Python client that is generated from the original proto text, without files of this project.

use crate::support::{
    backend::{Backend, Shared},
    plugins::{can_build, showcase, source},
    python::python,
    trial_if,
};
use libtest_mimic::Trial;
use std::process::Command;

pub fn trials() -> Vec<Trial> {
    let possible = || {
        if can_build() {
            python().map(|_| ())
        } else {
            Err("the wasm target is needed".into())
        }
    };
    let on_redis = move || {
        if Shared::is_installed() {
            possible()
        } else {
            Err("redis-server and etcd are needed".into())
        }
    };
    vec![
        trial_if("python::all_six_calls", possible, || {
            all_six_calls(Backend::Embedded)
        }),
        trial_if("python::all_six_calls_on_redis", on_redis, || {
            all_six_calls(Backend::Shared)
        }),
    ]
}

async fn all_six_calls(on: Backend) {
    let python = python().expect("a Python");
    let node = on.start(&[&showcase("echo")], "").await;
    let scripts = source().join("tests/scenarios/python");
    let generated = node.path("generated");
    std::fs::create_dir(&generated).expect("a directory");
    let option = |name: &str, path: &std::path::Path| format!("{name}={}", path.display());
    succeed(
        Command::new(&python)
            .args(["-m", "grpc_tools.protoc"])
            .arg(option("--proto_path", &scripts))
            .arg(option("--python_out", &generated))
            .arg(option("--grpc_python_out", &generated))
            .arg("service.proto"),
    );
    let output = succeed(
        Command::new(&python)
            .arg("-B")
            .arg(scripts.join("client.py"))
            .arg(node.address())
            .env("PYTHONPATH", &generated),
    );
    assert_eq!(output.trim(), "all six calls answer");
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("Python runs");
    let (out, err) = (&output.stdout, &output.stderr);
    let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    out.into_owned()
}
