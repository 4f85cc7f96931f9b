//! Tasks through the whole node: submitted, run in a new instance, and their results compared. Measured
//! with the result in the answer to the submission, as the client waits, and with a second call.

use crate::{
    child::Server,
    load::{CONNECTIONS, Done, IN_FLIGHT, result_rate, submit_rate, two_call_rate},
    median,
    report::{Aim, Row},
    rounds, runtime,
    support::{node::Node, plugins::showcase},
};

pub fn rows() -> Vec<Row> {
    let runtime = runtime();
    let echo = Server::echo();
    let node = runtime.block_on(Node::start(&[&showcase("echo")], ""));
    let measured: Vec<[Done; 3]> = rounds(|_| {
        runtime.block_on(async {
            let raw = submit_rate(&echo.address, echo.pid()).await;
            let one_call = result_rate(node.address(), node.pid()).await;
            [
                raw,
                one_call,
                two_call_rate(node.address(), node.pid()).await,
            ]
        })
    });
    let of = |index: usize, value: fn(&Done) -> f64| {
        median(measured.iter().map(|round| value(&round[index])).collect())
    };
    let rate = |index| of(index, |done| done.per_second);
    let cpu = |index| of(index, |done| done.cpu_us);
    let load = format!("{IN_FLIGHT} in flight on {CONNECTIONS} connections");
    let row = |what: String, ours| Row::new(what, "/s", ours).beside("unary echo", rate(0));
    let cpu_row = |what, ours| Row::new(what, "µs", ours).beside("unary echo", cpu(0));
    vec![
        row(format!("tasks with results compared, {load}"), rate(1)).aim(Aim::RatioAtLeast(0.35)),
        row("the same in two calls, submit and result".into(), rate(2)),
        cpu_row("processor time of the node for one task", cpu(1)),
        cpu_row("the same in two calls", cpu(2)),
    ]
}
