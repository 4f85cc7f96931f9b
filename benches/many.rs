//! Many tasks on one stream, with their ends, compared with one call for each task, both through the whole
//! node, whose worker runs them in new instances; and with the database alone.

use crate::{
    bare_engine,
    load::{CONNECTIONS, Done, IN_FLIGHT, MEASURED, WARM_UP, result_rate, task},
    machine, median,
    report::{Aim, Row},
    rounds, runtime,
    support::{node::Node, plugins::showcase},
};
use hostel::proto::hostel::v1::{
    SubmitManyRequest, submit_many_response::Event, task_service_client::TaskServiceClient,
};
use std::{collections::HashMap, time::Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// How many tasks of the stream are under way.
const WINDOW: usize = 2048;

pub fn rows() -> Vec<Row> {
    let runtime = runtime();
    let node = runtime.block_on(Node::start(&[&showcase("echo")], ""));
    let measured: Vec<([Done; 2], f64)> = rounds(|_| {
        let of_node = runtime.block_on(async {
            [
                result_rate(node.address(), node.pid()).await,
                many_rate(node.address(), node.pid()).await,
            ]
        });
        (of_node, bare_engine::per_second())
    });
    let of = |index: usize, value: fn(&Done) -> f64| {
        let rounds = measured.iter().map(|(done, _)| value(&done[index]));
        median(rounds.collect())
    };
    let bare = median(measured.iter().map(|(_, bare)| *bare).collect());
    let what = format!("tasks with results compared on one stream, {WINDOW} under way");
    let cpu = "processor time of the node for one task on a stream";
    let limit = "one call each";
    let note = format!(", beside {IN_FLIGHT} calls in flight on {CONNECTIONS} connections");
    vec![
        Row::new(what + &note, "/s", of(1, |done| done.per_second))
            .beside(limit, of(0, |done| done.per_second))
            .aim(Aim::RatioAtLeast(3.0)),
        Row::new("the same", "/s", of(1, |done| done.per_second))
            .beside("SQLite alone, 500 at once", bare)
            .aim(Aim::RatioAtLeast(0.5)),
        Row::new(cpu, "µs", of(1, |done| done.cpu_us)).beside(limit, of(0, |done| done.cpu_us)),
    ]
}

/// Measures the rate of ends. For each end that comes, the next task goes.
async fn many_rate(address: &str, pid: u32) -> Done {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.tcp_nodelay(true).connect().await;
    let mut client = TaskServiceClient::new(channel.expect("a connection"));
    let (requests, receiver) = mpsc::channel(WINDOW);
    let (mut payloads, mut sent) = (HashMap::new(), 0_u64);
    let mut send = |payloads: &mut HashMap<_, _>| {
        let task = task();
        payloads.insert(sent, task.payload.clone());
        sent += 1;
        let request = SubmitManyRequest {
            task: Some(task),
            results: true,
            ..SubmitManyRequest::default()
        };
        requests.try_send(request).expect("room");
    };
    (0..WINDOW).for_each(|_| send(&mut payloads));
    let cpu_before = machine::cpu_time_of(pid);
    let begin = Instant::now() + WARM_UP;
    let end = begin + MEASURED;
    let responses = client.submit_many(ReceiverStream::new(receiver)).await;
    let mut responses = responses.expect("a stream").into_inner();
    let (mut counted, mut all) = (0_u32, 0_u32);
    loop {
        let response = responses.message().await.expect("a response");
        let response = response.expect("a response");
        match response.event.expect("an event") {
            Event::Accepted(_) => {}
            Event::Ended(status) => {
                let payload = payloads.remove(&response.position).expect("one end");
                assert_eq!((&*status.status, &status.result), ("completed", &payload));
                all += 1;
                let now = Instant::now();
                if now >= end {
                    break;
                }
                counted += u32::from(now >= begin);
                send(&mut payloads);
            }
            other => panic!("{other:?}"),
        }
    }
    let cpu = machine::cpu_time_of(pid) - cpu_before;
    Done {
        per_second: f64::from(counted) / MEASURED.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / f64::from(all),
    }
}
