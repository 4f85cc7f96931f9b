//! The latency of one task at a time, from its submission to its result, compared with a sync of the disk
//! and a call.

use crate::{
    child::Server,
    fsync,
    load::{Client, task},
    median,
    report::{Aim, Row},
    rounds, runtime,
    support::{node::Node, plugins::showcase},
};
use hdrhistogram::Histogram;
use std::time::Instant;

const TASKS: usize = 500;

pub fn rows() -> Vec<Row> {
    let runtime = runtime();
    let echo = Server::echo();
    let node = runtime.block_on(Node::start(&[&showcase("echo")], ""));
    let measured: Vec<[f64; 4]> = rounds(|_| {
        let disk = fsync::p50_ms(300);
        runtime.block_on(async {
            let client = Client::connect(&echo.address).await;
            let (call, _) = times(client, |mut client| async move {
                client.submit(task()).await;
            })
            .await;
            let client = Client::connect(node.address()).await;
            let (p50, p99) = times(client, |mut client| async move {
                client.submit_and_compare(task()).await;
            })
            .await;
            [disk, call, p50, p99]
        })
    });
    let column = |index: usize| median(measured.iter().map(|round| round[index]).collect());
    let disk = column(0);
    vec![
        Row::new("one unary echo, p50", "ms", column(1)),
        Row::new("one task from submit to result, p50", "ms", column(2))
            .beside("one sync", disk)
            // For a disk that syncs in a millisecond; with a faster one, calls and threads dominate.
            .aim(Aim::AtMost((3.0 * disk.max(1.0)).round())),
        Row::new("the same, p99", "ms", column(3)).beside("one sync", disk),
    ]
}

/// Returns the median and the 99th percentile in milliseconds of sequential calls.
pub async fn times<F: Future<Output = ()>>(
    client: Client,
    call: impl Fn(Client) -> F,
) -> (f64, f64) {
    let mut histogram = Histogram::<u64>::new(3).expect("a histogram");
    for index in 0..TASKS + TASKS / 10 {
        let begin = Instant::now();
        call(client.clone()).await;
        // The first tenth is the warm-up.
        if index >= TASKS / 10 {
            let us = begin.elapsed().as_micros();
            let us = u64::try_from(us).expect("a short time");
            histogram.record(us).expect("a histogram that grows");
        }
    }
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    (ms(0.5), ms(0.99))
}
