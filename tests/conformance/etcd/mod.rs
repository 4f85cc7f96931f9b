//! The conformance suite of discovery over etcd, and cases that need a server which fails or loses its data.

mod drain_requests;
mod identity;
mod leases;
mod outages;
mod records;
mod tls;

use crate::support::{
    self,
    servers::{Kind, Server},
};
use etcd_client::Client;
use hostel::{
    config::{Config, Etcd},
    discovery::{self, EtcdServiceDiscovery, NodeRecord, ServiceDiscovery},
    health::Health,
    task::Name,
};
use libtest_mimic::Trial;
use std::{path::Path, sync::Arc, time::Duration};

/// As short as etcd allows with the elections of a test's server.
const TTL: Duration = Duration::from_secs(2);
/// Longer than any case waits.
const LONG_TTL: Duration = Duration::from_secs(600);
const PREFIX: &str = "/test/hostel";

pub fn trials() -> Vec<Trial> {
    let cases = discovery::conformance::cases().map(|case| {
        trial(case.name(), async move || {
            let server = Server::start(Kind::Etcd).await;
            case.run(async || connect(&server)).await;
        })
    });
    let mut trials: Vec<Trial> = cases.collect();
    trials.extend(drain_requests::trials());
    trials.extend(identity::trials());
    trials.extend(leases::trials());
    trials.extend(outages::trials());
    trials.extend(records::trials());
    trials.extend(tls::trials());
    trials
}

fn trial<F>(name: &str, case: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let name = format!("discovery::etcd::{name}");
    support::trial_needing(&name, Kind::Etcd.is_installed(), case)
}

fn settings(server: &Server) -> Etcd {
    let mut settings = Etcd::at(&[&server.url()], PREFIX);
    settings.ttl = TTL;
    settings
}

/// Opens a node's discovery from a configuration, with a data directory.
fn open_in(server: &Server, data_dir: &Path) -> Arc<dyn ServiceDiscovery> {
    let mut config = Config::default();
    config.node.data_dir = data_dir.into();
    let mut settings = settings(server);
    settings.ttl = LONG_TTL;
    config.discovery = hostel::config::Discovery::Etcd(settings);
    hostel::discovery::open(&config, &Health::default()).unwrap()
}

fn connect(server: &Server) -> Arc<dyn ServiceDiscovery> {
    let limits = Config::default().limits;
    Arc::new(EtcdServiceDiscovery::open(&settings(server), &limits).unwrap())
}

/// Returns the discovery of a registered node.
async fn node(server: &Server, id: &str) -> Arc<dyn ServiceDiscovery> {
    let node = connect(server);
    node.register_node(record(id)).await.unwrap();
    node
}

fn record(id: &str) -> NodeRecord {
    let name = Name::parse("node id", id).unwrap();
    NodeRecord::new(name, format!("{id}:1"))
}

fn ids(node: &Arc<dyn ServiceDiscovery>) -> String {
    let nodes = node.nodes();
    let ids: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
    ids.join(" ")
}

async fn sees(node: &Arc<dyn ServiceDiscovery>, expected: &str) {
    support::eventually(&format!("{expected} are seen"), async || {
        (ids(node) == expected).then_some(())
    })
    .await;
}

async fn admin(server: &Server) -> Client {
    Client::connect([server.url()], None).await.unwrap()
}

fn key(id: &str) -> String {
    format!("{PREFIX}/nodes/{id}")
}

/// Returns the lease of a node's record; 0 if there is no record.
async fn lease(admin: &mut Client, id: &str) -> i64 {
    let got = admin.get(key(id), None).await.unwrap();
    got.kvs().first().map_or(0, |pair| pair.lease())
}

async fn another_lease(admin: &Client, id: &str, than: i64) {
    support::eventually("the record has another lease", async || {
        let lease = lease(&mut admin.clone(), id).await;
        (lease != 0 && lease != than).then_some(())
    })
    .await;
}
