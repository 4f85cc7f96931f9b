//! The cost of an idle node, and the time until a node serves.

use crate::{
    median,
    report::{Aim, Row},
    rounds, runtime,
    support::{
        node::{Node, hostel},
        plugins::showcase,
    },
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// The time before the memory of an idle node is measured.
const SETTLE: Duration = Duration::from_secs(2);

pub fn rows() -> Vec<Row> {
    let runtime = runtime();
    let plugins = ["echo", "text", "thumbnail"].map(showcase);
    let plugins = plugins.each_ref().map(|plugin| plugin.as_path());
    let measured: Vec<[f64; 4]> = rounds(|_| {
        let process = ms(|| {
            let version = hostel().arg("--version").output();
            assert!(version.is_ok_and(|version| version.status.success()));
        });
        let mut node = Node::prepare(&plugins, "");
        let cold = ms(|| start(&mut node));
        runtime.block_on(node.terminate());
        let warm = ms(|| start(&mut node));
        thread::sleep(SETTLE);
        let memory = node.resident_kib() as f64 / 1024.0;
        [process, cold, warm, memory]
    });
    drop(runtime);
    let column = |index: usize| median(measured.iter().map(|round| round[index]).collect());
    let start = |what: &str, ours| Row::new(what, "ms", ours).beside("hostel --version", column(0));
    vec![
        Row::new("resident memory, idle with three plugins", "MiB", column(3)),
        start("start to serving, plugins compiled before", column(2)).aim(Aim::AtMost(300.0)),
        start("start to serving, plugins to compile", column(1)),
    ]
}

/// Waits until the node has written its address, which it does when it is ready.
fn start(node: &mut Node) {
    node.spawn();
    while !node.path("ports.json").exists() {
        assert_eq!(node.exit_status(), None, "{}", node.log());
        thread::sleep(Duration::from_micros(500));
    }
}

fn ms(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64() * 1000.0
}
