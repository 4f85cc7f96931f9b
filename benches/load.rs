//! Closed-loop clients: a fixed number of calls in flight over a fixed number of connections. They count
//! the answers.

use crate::machine;
use hostel::proto::distributed::{
    Message, Task, TaskStatus, TaskStatusRequest,
    distributed_service_client::DistributedServiceClient,
};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio_stream::Stream;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

pub const IN_FLIGHT: usize = 128;
pub const CONNECTIONS: usize = 4;
pub const PAYLOAD_BYTES: usize = 256;

pub const WARM_UP: Duration = Duration::from_millis(500);
pub const MEASURED: Duration = Duration::from_millis(2500);

/// The time that a call waits for the end of its task.
const WAIT_MS: u64 = 30_000;

#[derive(Clone)]
pub struct Client(DistributedServiceClient<Channel>);

impl Client {
    /// Connects a client on a new connection.
    pub async fn connect(address: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = endpoint
            .tcp_nodelay(true)
            .connect()
            .await
            .expect("a connection");
        Self(DistributedServiceClient::new(channel))
    }

    /// Sends a message and checks the answer.
    pub async fn ask(&mut self, mut message: Message) {
        message.reply_timeout_ms = WAIT_MS;
        let payload = message.payload.clone();
        let answer = self.0.send_message(message).await.expect("an answer");
        let answer = answer.into_inner();
        assert_eq!(answer.reply.expect(&answer.message).payload, payload);
    }

    pub async fn stream(
        &mut self,
        messages: impl Stream<Item = Message> + Send + 'static,
    ) -> Streaming<Message> {
        let answers = self.0.stream_messages(messages).await;
        answers.expect("a stream").into_inner()
    }

    /// Submits a task and waits for the acknowledgement.
    pub async fn submit(&mut self, task: Task) {
        let answer = self.0.submit_task(task).await.expect("an acknowledgement");
        assert!(answer.into_inner().accepted);
    }

    /// Submits a task, waits for its end in the same call, as `DistributedClient::submit_and_wait` does,
    /// and compares the result.
    pub async fn submit_and_compare(&mut self, mut task: Task) {
        let payload = task.payload.clone();
        task.wait_ms = WAIT_MS;
        let answer = self.0.submit_task(task).await.expect("an answer");
        let status = answer.into_inner().status.expect("a status");
        compare(&status, &payload);
    }

    /// Submits a task, waits for its end in a second call, and compares the result.
    pub async fn submit_then_compare(&mut self, task: Task) {
        let (task_id, payload) = (task.task_id.clone(), task.payload.clone());
        self.submit(task).await;
        let request = TaskStatusRequest {
            task_id,
            wait_ms: WAIT_MS,
        };
        let answer = self.0.get_task_status(request).await.expect("a status");
        compare(&answer.into_inner(), &payload);
    }
}

fn compare(status: &TaskStatus, payload: &[u8]) {
    assert_eq!(status.status, "completed");
    assert_eq!(status.result, payload);
}

/// Returns a unique echo task.
pub fn task() -> Task {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    let mut payload = vec![0; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    Task {
        // Ordered by time and unique for the process, like the ids of clients.
        task_id: format!("bench-{}-{number:012}", std::process::id()),
        task_type: "echo".into(),
        payload: payload.into(),
        ..Task::default()
    }
}

/// The throughput of a server.
#[derive(Clone, Copy)]
pub struct Done {
    pub per_second: f64,
    /// The processor time of the server for each call in microseconds, which hardly depends on other
    /// load.
    pub cpu_us: f64,
}

/// Measures the rate of answers to `call` and the processor time of the server `pid`.
pub async fn rate<F>(address: &str, pid: u32, call: fn(Client, Task) -> F) -> Done
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect(address).await);
    }
    let cpu_before = machine::cpu_time_of(pid);
    let begin = Instant::now() + WARM_UP;
    let end = begin + MEASURED;
    let loops: Vec<_> = (0..IN_FLIGHT)
        .map(|index| {
            let client = clients[index % CONNECTIONS].clone();
            tokio::spawn(async move {
                let (mut counted, mut all) = (0u32, 0u32);
                loop {
                    call(client.clone(), task()).await;
                    all += 1;
                    let now = Instant::now();
                    if now >= end {
                        return (counted, all);
                    }
                    counted += u32::from(now >= begin);
                }
            })
        })
        .collect();
    let (mut counted, mut all) = (0, 0);
    for each in loops {
        let (its_counted, its_all) = each.await.expect("a client");
        counted += its_counted;
        all += its_all;
    }
    let cpu = machine::cpu_time_of(pid) - cpu_before;
    Done {
        per_second: f64::from(counted) / MEASURED.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / f64::from(all),
    }
}

/// Measures the rate of acknowledgements.
pub async fn submit_rate(address: &str, pid: u32) -> Done {
    rate(address, pid, |mut client, task| async move {
        client.submit(task).await;
    })
    .await
}

/// Measures the rate of results in the answers to submissions.
pub async fn result_rate(address: &str, pid: u32) -> Done {
    rate(address, pid, |mut client, task| async move {
        client.submit_and_compare(task).await;
    })
    .await
}

/// Measures the rate of results that a second call returns.
pub async fn two_call_rate(address: &str, pid: u32) -> Done {
    rate(address, pid, |mut client, task| async move {
        client.submit_then_compare(task).await;
    })
    .await
}
