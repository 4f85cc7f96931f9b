//! What the SDK makes of `plugin!`: a file exports the interfaces that the author meant, and imports
//! what the author called. Read from real builds.

use crate::support::{
    node::hostel,
    plugins::{from_source, probe, showcase},
    trial,
};
use libtest_mimic::Trial;
use std::{collections::BTreeSet, path::Path};

pub fn trials() -> Vec<Trial> {
    vec![trial(
        "exports::what_the_author_meant",
        what_the_author_meant,
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

async fn what_the_author_meant() {
    let [manifest, tasks] = ["manifest", "task-handler"];
    let component = ["component", "message-handler"];
    let both = [manifest, tasks, component[0], component[1]];

    assert_eq!(
        listed("exports", &showcase("echo")),
        BTreeSet::from([manifest, tasks].map(own))
    );
    assert_eq!(imported(&showcase("echo")), ["wasi:logging/logging"]);

    let alone = from_source("silent", "1.0.0", COMPONENT_ALONE);
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
            "wasi:keyvalue/store",
            "wasi:logging/logging",
        ]
    );
}

fn own(interface: &str) -> String {
    format!("hostel:plugin/{interface}")
}

/// What a plugin imports besides what Rust's standard library wants of WASI.
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

/// The interfaces that `hostel plugins inspect` lists, without their versions, in order.
fn listed(what: &str, file: &Path) -> BTreeSet<String> {
    let ran = hostel().args(["plugins", "inspect"]).arg(file).output();
    let out = String::from_utf8(ran.expect("hostel runs").stdout).expect("text");
    let lines = out.lines().filter_map(|line| line.strip_prefix(what));
    let names = lines.filter_map(|line| line.trim().split('@').next());
    names.map(str::to_owned).collect()
}
