//! Tasks through the whole node: submitted, run in a fresh sandbox, their results read back and
//! compared.

use crate::{
    child::Server,
    load::{CONNECTIONS, IN_FLIGHT, result_rate, submit_rate},
    median,
    report::{Aim, Row},
    rounds, runtime,
    support::{node::Node, plugins::showcase},
};

pub fn rows() -> Vec<Row> {
    let runtime = runtime();
    let echo = Server::echo();
    let node = runtime.block_on(Node::start(&[&showcase("echo")], ""));
    let measured: Vec<(f64, f64)> = rounds(|_| {
        runtime.block_on(async {
            let raw = submit_rate(&echo.address).await;
            (raw, result_rate(node.address()).await)
        })
    });
    let raw = median(measured.iter().map(|round| round.0).collect());
    let ours = median(measured.iter().map(|round| round.1).collect());
    let what =
        format!("tasks with results compared, {IN_FLIGHT} in flight on {CONNECTIONS} connections");
    vec![
        Row::new(what, "/s", ours)
            .beside("unary echo", raw)
            .aim(Aim::RatioAtLeast(0.35)),
    ]
}
