//! A ledger outside the nodes and the clients that fill it. It checks that acknowledged tasks end
//! exactly once and that ended tasks never change. The scenarios cause the faults.

use super::{DEADLINE, eventually, task};
use futures_util::{StreamExt, stream};
use hostel::proto::{
    distributed::{
        Task, TaskStatus, TaskStatusRequest,
        distributed_service_client::DistributedServiceClient as Client,
    },
    hostel::v1::{CountTasksRequest, task_service_client::TaskServiceClient},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

const CLIENTS: u64 = 6;

/// Settings with enough attempts, since every fault can cost a task an attempt.
pub const SETTINGS: &str = "[plugin.echo.task.echo]\n\
    max_attempts = 100\nbackoff_initial_ms = 20\nbackoff_max_ms = 200\n";

/// The facts that clients know, independent of the nodes.
#[derive(Default)]
pub struct Ledger {
    /// The seed of the payload of each acknowledged task, by id.
    acknowledged: Mutex<HashMap<String, u64>>,
    pub acknowledgements: AtomicU64,
    pub broken_calls: AtomicU64,
    /// Set if the store may be full at times, which rejects submissions.
    pub may_be_full: AtomicBool,
    /// Each ended task as it was first observed, without its result.
    ended: Mutex<HashMap<String, TaskStatus>>,
}

impl Ledger {
    fn acknowledge(&self, id: String, content: u64) {
        self.acknowledged.lock().insert(id, content);
        self.acknowledgements.fetch_add(1, Relaxed);
    }

    /// Reads a task and compares it with earlier observations.
    async fn check(
        &self,
        client: &mut Client<Channel>,
        id: &str,
        wait: Duration,
    ) -> Result<TaskStatus, Status> {
        let had_ended = self.ended.lock().contains_key(id);
        let request = TaskStatusRequest {
            task_id: id.into(),
            wait_ms: u64::try_from(wait.as_millis()).expect("a short time"),
        };
        let mut status = client.get_task_status(request).await?.into_inner();
        if matches!(status.status.as_str(), "pending" | "running") {
            assert!(!had_ended, "it had ended before: {status:?}");
            assert_eq!(status.finishes, 0, "{status:?}");
            return Ok(status);
        }
        let result = std::mem::take(&mut status.result);
        assert_eq!(status.status, "completed", "{status:?}");
        assert_eq!(status.finishes, 1, "{status:?}");
        let content = self.acknowledged.lock()[id];
        assert!(result == payload(content), "{id} has another's result");
        let mut ended = self.ended.lock();
        let first = ended.entry(id.into()).or_insert_with(|| status.clone());
        assert_eq!(*first, status, "an ended task has changed");
        Ok(status)
    }

    /// Reads a sample of ended tasks and of all tasks again.
    pub async fn audit(&self, address: &str, rng: &mut fastrand::Rng) {
        let mut known: Vec<String> = self.ended.lock().keys().cloned().collect();
        // The order of a map does not depend on the seed.
        known.sort_unstable();
        let mut sample = rng.choose_multiple(known, 20);
        let mut all: Vec<String> = self.acknowledged.lock().keys().cloned().collect();
        all.sort_unstable();
        sample.extend(rng.choose_multiple(all, 10));
        let mut client = client(address);
        for id in sample {
            let checked = self.check(&mut client, &id, Duration::ZERO).await;
            checked.expect("what was acknowledged is known");
        }
    }

    /// Waits for the end of every task. Returns the number of tasks and of lost attempts.
    pub async fn settle(&self, address: &str) -> (usize, u64) {
        let ids: Vec<String> = self.acknowledged.lock().keys().cloned().collect();
        let lost = AtomicU64::new(0);
        let shared = client(address);
        stream::iter(&ids)
            .for_each_concurrent(16, async |id| {
                let status = eventually("it ends", async || {
                    let wait = DEADLINE / 10;
                    let checked = self.check(&mut shared.clone(), id, wait).await;
                    let status = checked.expect("what was acknowledged is known");
                    (status.status == "completed").then_some(status)
                });
                let status = status.await;
                let all = u64::from(status.attempts) + u64::from(status.losses);
                lost.fetch_add(all - 1, Relaxed);
            })
            .await;
        // Tasks whose submitters got no reply have to end as well.
        let tasks = TaskServiceClient::new(channel(address));
        let total = eventually("nothing but completed tasks", async || {
            let counts = tasks
                .clone()
                .count(CountTasksRequest {})
                .await
                .expect("counts");
            let mut counts = counts.into_inner().counts;
            counts.retain(|count| count.task_type == "echo");
            let done = counts.iter().all(|count| count.status == "completed");
            done.then(|| counts.iter().map(|count| count.count).sum::<u64>())
        });
        assert!(total.await >= ids.len() as u64);
        (ids.len(), lost.into_inner())
    }
}

/// Clients that submit tasks to randomly chosen nodes until they are stopped.
pub struct Load {
    pub ledger: Arc<Ledger>,
    addresses: watch::Sender<Vec<String>>,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

impl Load {
    pub fn start(rng: &mut fastrand::Rng) -> Self {
        Self::start_paced(rng, Duration::ZERO)
    }

    /// Starts clients that pause between submissions.
    pub fn start_paced(rng: &mut fastrand::Rng, pause: Duration) -> Self {
        let ledger = Arc::<Ledger>::default();
        let (addresses, receiver) = watch::channel(Vec::new());
        let stop = CancellationToken::new();
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let client = LoadClient {
                number,
                pause,
                rng: rng.fork(),
                addresses: receiver.clone(),
                ledger: ledger.clone(),
            };
            clients.spawn(client.run(stop.clone()));
        }
        Self {
            ledger,
            addresses,
            stop,
            clients,
        }
    }

    /// Sets the addresses of the nodes that clients use from now on.
    pub fn set_addresses(&self, addresses: Vec<String>) {
        self.addresses.send_replace(addresses);
    }

    /// Waits for `more` further acknowledgements.
    pub async fn wait_for_more(&mut self, more: u64) {
        let acknowledged = || self.ledger.acknowledgements.load(Relaxed);
        let target = acknowledged() + more;
        let since = Instant::now();
        while acknowledged() < target {
            if let Some(ended) = self.clients.try_join_next() {
                panic!("a client ended: {ended:?}");
            }
            assert!(
                since.elapsed() < DEADLINE,
                "no task was acknowledged in time"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops the clients and waits until every task has ended. Returns the number of tasks and of lost
    /// attempts.
    pub async fn settle(mut self, address: &str) -> (usize, u64) {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("no client fails");
        }
        self.ledger.settle(address).await
    }
}

/// A client that submits one task at a time. Half of the tasks have an id that the client chose, and
/// are submitted again until there is a reply.
struct LoadClient {
    number: u64,
    pause: Duration,
    rng: fastrand::Rng,
    /// The addresses of the serving nodes, which change with each start.
    addresses: watch::Receiver<Vec<String>>,
    ledger: Arc<Ledger>,
}

impl LoadClient {
    async fn run(mut self, stop: CancellationToken) {
        let mut node = None;
        let mut submitted = 0_u64;
        while !stop.is_cancelled() {
            tokio::time::sleep(self.pause).await;
            submitted += 1;
            let content = self.rng.u64(..);
            let own_id = self.rng.bool();
            let task = Task {
                task_id: if own_id {
                    format!("client-{}:{submitted}", self.number)
                } else {
                    String::new()
                },
                ..task("echo", payload(content))
            };
            let id = loop {
                let client = match &mut node {
                    Some(client) => client,
                    None => node.insert(self.connect().await),
                };
                match client.submit_task(task.clone()).await {
                    Ok(response) => break Some(response.into_inner().task_id),
                    Err(status) => {
                        self.expect_broken_call(&status).await;
                        node = None;
                    }
                }
                if !own_id {
                    break None;
                }
            };
            let Some(id) = id else { continue };
            assert!(!own_id || id == task.task_id);
            self.ledger.acknowledge(id.clone(), content);
            if self.rng.bool()
                && let Some(client) = &mut node
            {
                let checked = self.ledger.check(client, &id, Duration::from_secs(2));
                if let Err(status) = checked.await {
                    self.expect_broken_call(&status).await;
                    node = None;
                }
            }
        }
    }

    /// Connects to one of the nodes.
    async fn connect(&mut self) -> Client<Channel> {
        let some = self.addresses.wait_for(|addresses| !addresses.is_empty());
        let some = tokio::time::timeout(DEADLINE, some).await;
        let addresses = some.expect("a node serves").expect("a publisher").clone();
        client(&addresses[self.rng.usize(..addresses.len())])
    }

    /// Checks that a failed call was broken by a fault: a killed node must not return wrong answers.
    async fn expect_broken_call(&self, status: &Status) {
        use Code::{Cancelled, Internal, Unavailable, Unknown};
        let broken = [Cancelled, Internal, Unavailable, Unknown].contains(&status.code());
        let full = status.code() == Code::ResourceExhausted;
        let may_be_full = self.ledger.may_be_full.load(Relaxed);
        assert!(broken || (full && may_be_full), "{status:?}");
        self.ledger.broken_calls.fetch_add(1, Relaxed);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns the payload of a seed; most are small and some are large.
fn payload(content: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(content);
    let largest = match rng.u8(..100) {
        0..70 => 512,
        70..98 => 16 << 10,
        _ => 512 << 10,
    };
    let mut payload = vec![0; rng.usize(..largest)];
    rng.fill(&mut payload);
    payload
}

pub fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect_lazy()
}

pub fn client(address: &str) -> Client<Channel> {
    Client::new(channel(address))
}
