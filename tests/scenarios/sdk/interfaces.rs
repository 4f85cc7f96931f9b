//! The interfaces of a plugin that is built with the SDK: it exports those that it implements, and
//! imports those that it calls.

use crate::support::{
    node::hostel,
    plugins::{build_source, probe, showcase},
    trial,
};
use libtest_mimic::Trial;
use std::{collections::BTreeSet, path::Path};

pub fn trials() -> Vec<Trial> {
    vec![trial(
        "sdk::a_plugin_has_only_the_interfaces_it_declares",
        a_plugin_has_only_the_interfaces_it_declares,
    )]
}

const COMPONENT_ALONE: &str = r#"use hostel_sdk::prelude::*;

struct Silent;

impl Component for Silent {
    type In = String;
    type Out = ();

    fn start() -> Result<Self> {
        Ok(Self)
    }

    fn on_message(&mut self, text: String, _: &Message) -> Result<()> {
        tracing::info!(text, "heard");
        Ok(())
    }
}

hostel_sdk::plugin! {
    component = Silent,
}
"#;

async fn a_plugin_has_only_the_interfaces_it_declares() {
    let [manifest, tasks] = ["manifest", "task-handler"];
    let component = ["component", "message-handler"];
    let both = [manifest, tasks, component[0], component[1]];

    assert_eq!(
        listed("exports", &showcase("echo")),
        BTreeSet::from([manifest, tasks].map(own))
    );
    assert_eq!(imported(&showcase("echo")), ["wasi:logging/logging"]);

    let alone = build_source("silent", "1.0.0", COMPONENT_ALONE);
    let expected = [manifest, component[0], component[1]].map(own);
    assert_eq!(listed("exports", &alone), BTreeSet::from(expected));
    assert_eq!(imported(&alone), ["wasi:logging/logging"]);

    let probe = probe("1.0.0");
    assert_eq!(listed("exports", &probe), BTreeSet::from(both.map(own)));
    assert_eq!(
        imported(&probe),
        [
            "hostel:plugin/messaging",
            "wasi:config/store",
            "wasi:keyvalue/atomics",
            "wasi:keyvalue/batch",
            "wasi:keyvalue/store",
            "wasi:logging/logging",
        ]
    );
}

fn own(interface: &str) -> String {
    format!("hostel:plugin/{interface}")
}

/// Returns the imports of a plugin without those of Rust's standard library.
fn imported(file: &Path) -> Vec<String> {
    let standard = [
        "wasi:io",
        "wasi:cli",
        "wasi:clocks",
        "wasi:random",
        "wasi:filesystem",
    ];
    let ours = |name: &String| !standard.iter().any(|package| name.starts_with(package));
    listed("imports", file).into_iter().filter(ours).collect()
}

/// Returns the interfaces that `hostel plugins inspect` lists, without versions and in order.
fn listed(what: &str, file: &Path) -> BTreeSet<String> {
    let ran = hostel().args(["plugins", "inspect"]).arg(file).output();
    let out = String::from_utf8(ran.expect("hostel runs").stdout).expect("text");
    let lines = out.lines().filter_map(|line| line.strip_prefix(what));
    let names = lines.filter_map(|line| line.trim().split('@').next());
    names.map(str::to_owned).collect()
}
