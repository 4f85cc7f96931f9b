//! A ledger outside of the nodes: what was acknowledged ends, exactly once, and what has ended never
//! changes. And the clients that fill it. Knows no fault.

use super::{PATIENCE, eventually, task};
use futures_util::{StreamExt, stream};
use hostel::proto::{
    distributed::{
        Task, TaskStatus, TaskStatusRequest,
        distributed_service_client::DistributedServiceClient as Client,
    },
    hostel::v1::{CountTasksRequest, task_service_client::TaskServiceClient},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
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

/// A fault can cost any task an attempt; none may run out of them.
pub const SETTINGS: &str = "[plugin.echo.task.echo]\n\
    max_attempts = 100\nbackoff_initial_ms = 20\nbackoff_max_ms = 200\n";

/// What clients know: outside of the node, and never taken from it.
#[derive(Default)]
pub struct Ledger {
    /// By id, what the payload was made from.
    acknowledged: Mutex<HashMap<String, u64>>,
    pub acknowledgements: AtomicU64,
    pub broken_calls: AtomicU64,
    /// The store may be full now and then, and a submission refused for that.
    pub may_be_full: AtomicBool,
    /// Each task as it was when it was first seen to have ended, without its result.
    ended: Mutex<HashMap<String, TaskStatus>>,
}

impl Ledger {
    fn acknowledge(&self, id: String, content: u64) {
        self.acknowledged.lock().unwrap().insert(id, content);
        self.acknowledgements.fetch_add(1, Relaxed);
    }

    /// Asks for a task and holds the answer against what was seen of it before.
    async fn look(
        &self,
        client: &mut Client<Channel>,
        id: &str,
        wait: Duration,
    ) -> Result<TaskStatus, Status> {
        let had_ended = self.ended.lock().unwrap().contains_key(id);
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
        let content = self.acknowledged.lock().unwrap()[id];
        assert!(result == payload(content), "{id} has another's result");
        let mut ended = self.ended.lock().unwrap();
        let first = ended.entry(id.into()).or_insert_with(|| status.clone());
        assert_eq!(*first, status, "an ended task has changed");
        Ok(status)
    }

    /// Looks again at some tasks that had ended, and at some that had not.
    pub async fn audit(&self, address: &str, rng: &mut fastrand::Rng) {
        let mut known: Vec<String> = self.ended.lock().unwrap().keys().cloned().collect();
        // The order of a map is not the seed's.
        known.sort_unstable();
        let mut sample = rng.choose_multiple(known, 20);
        let mut all: Vec<String> = self.acknowledged.lock().unwrap().keys().cloned().collect();
        all.sort_unstable();
        sample.extend(rng.choose_multiple(all, 10));
        let mut client = client(address);
        for id in sample {
            let looked = self.look(&mut client, &id, Duration::ZERO).await;
            looked.expect("what was acknowledged is known");
        }
    }

    /// Waits for the end of every task. Returns how many there are and how many attempts were lost.
    pub async fn settle(&self, address: &str) -> (usize, u64) {
        let ids: Vec<String> = self.acknowledged.lock().unwrap().keys().cloned().collect();
        let lost = AtomicU64::new(0);
        let shared = client(address);
        stream::iter(&ids)
            .for_each_concurrent(16, async |id| {
                let status = eventually("it ends", async || {
                    let wait = PATIENCE / 10;
                    let looked = self.look(&mut shared.clone(), id, wait).await;
                    let status = looked.expect("what was acknowledged is known");
                    (status.status == "completed").then_some(status)
                });
                let status = status.await;
                let all = u64::from(status.attempts) + u64::from(status.losses);
                lost.fetch_add(all - 1, Relaxed);
            })
            .await;
        // Tasks whose submitter never heard of them end as well.
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

/// Clients that submit for as long as they are not stopped, each to any of the nodes that serve.
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

    /// The same with clients that pause between their submissions.
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

    /// Where clients find a node from now on.
    pub fn serve_at(&self, addresses: Vec<String>) {
        self.addresses.send_replace(addresses);
    }

    /// Waits for `more` acknowledgements from now.
    pub async fn goes_on(&mut self, more: u64) {
        let acknowledged = || self.ledger.acknowledgements.load(Relaxed);
        let target = acknowledged() + more;
        let since = Instant::now();
        while acknowledged() < target {
            if let Some(ended) = self.clients.try_join_next() {
                panic!("a client ended: {ended:?}");
            }
            assert!(
                since.elapsed() < PATIENCE,
                "nothing is acknowledged any more"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops the clients and waits until everything has ended. Returns how many tasks there were and
    /// how many attempts were lost.
    pub async fn settle(mut self, address: &str) -> (usize, u64) {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("no client fails");
        }
        self.ledger.settle(address).await
    }
}

/// Submits one task after the other, half of them under an id of its own that it submits again
/// until it gets an answer.
struct LoadClient {
    number: u64,
    pause: Duration,
    rng: fastrand::Rng,
    /// Of the nodes that serve; changes with each start.
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
                task_id: match own_id {
                    true => format!("client-{}:{submitted}", self.number),
                    false => String::new(),
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
                        self.gone(&status).await;
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
                let looked = self.ledger.look(client, &id, Duration::from_secs(2));
                if let Err(status) = looked.await {
                    self.gone(&status).await;
                    node = None;
                }
            }
        }
    }

    /// A client of one of the nodes.
    async fn connect(&mut self) -> Client<Channel> {
        let some = self.addresses.wait_for(|addresses| !addresses.is_empty());
        let some = tokio::time::timeout(PATIENCE, some).await;
        let addresses = some.expect("a node serves").expect("a publisher").clone();
        client(&addresses[self.rng.usize(..addresses.len())])
    }

    /// A killed node may break calls, and never answers them wrongly.
    async fn gone(&self, status: &Status) {
        use Code::{Cancelled, Internal, Unavailable, Unknown};
        let broken = [Cancelled, Internal, Unavailable, Unknown].contains(&status.code());
        let full = status.code() == Code::ResourceExhausted;
        let may_be_full = self.ledger.may_be_full.load(Relaxed);
        assert!(broken || (full && may_be_full), "{status:?}");
        self.ledger.broken_calls.fetch_add(1, Relaxed);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Mostly small, now and then large.
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
