//! Tasks through the whole node: submitted, run in a fresh sandbox, their results read back and
//! compared.

use crate::{
    child::Server,
    load::{CONNECTIONS, Done, IN_FLIGHT, result_rate, submit_rate},
    median,
    report::{Aim, Row},
    rounds, runtime,
    support::{node::Node, plugins::showcase},
};

pub fn rows() -> Vec<Row> {
    let runtime = runtime();
    let echo = Server::echo();
    let node = runtime.block_on(Node::start(&[&showcase("echo")], ""));
    let measured: Vec<(Done, Done)> = rounds(|_| {
        runtime.block_on(async {
            let raw = submit_rate(&echo.address, echo.pid()).await;
            (raw, result_rate(node.address(), node.pid()).await)
        })
    });
    let raw = median(measured.iter().map(|round| round.0.per_second).collect());
    let ours = median(measured.iter().map(|round| round.1.per_second).collect());
    let cpu = (
        median(measured.iter().map(|round| round.0.cpu_us).collect()),
        median(measured.iter().map(|round| round.1.cpu_us).collect()),
    );
    let what =
        format!("tasks with results compared, {IN_FLIGHT} in flight on {CONNECTIONS} connections");
    vec![
        Row::new(what, "/s", ours)
            .beside("unary echo", raw)
            .aim(Aim::RatioAtLeast(0.35)),
        Row::new("processor time of the node for one task", "µs", cpu.1)
            .beside("unary echo", cpu.0),
    ]
}
