//! Durable submissions, compared with calls that do nothing. Measured without a worker, and in a whole
//! node whose worker runs the tasks at the same time.

use crate::{
    child::Server,
    load::{CONNECTIONS, Done, IN_FLIGHT, submit_rate},
    median,
    report::{Aim, Row},
    rounds, runtime,
    support::{node::Node, plugins::showcase},
};

pub fn rows() -> Vec<Row> {
    let runtime = runtime();
    let (echo, queue) = (Server::echo(), Server::without_worker());
    let measured: Vec<[Done; 3]> = rounds(|_| {
        runtime.block_on(async {
            let raw = submit_rate(&echo.address, echo.pid()).await;
            let held_back = submit_rate(&queue.address, queue.pid()).await;
            // A new node each round, because work is left when the clients stop.
            let node = Node::start(&[&showcase("echo")], "").await;
            let running = submit_rate(node.address(), node.pid()).await;
            [raw, held_back, running]
        })
    });
    let column = |index: usize| {
        median(
            measured
                .iter()
                .map(|round| round[index].per_second)
                .collect(),
        )
    };
    let cpu = |index: usize| median(measured.iter().map(|round| round[index].cpu_us).collect());
    let load = format!("{IN_FLIGHT} in flight on {CONNECTIONS} connections");
    let row = |what: String, ours| Row::new(what, "/s", ours).beside("unary echo", column(0));
    vec![
        row(format!("durable submits, {load}"), column(1)).aim(Aim::RatioAtLeast(0.5)),
        row("the same while the worker runs them".into(), column(2)),
        Row::new(
            "processor time of the server for one durable submit",
            "µs",
            cpu(1),
        )
        .beside("unary echo", cpu(0)),
    ]
}
