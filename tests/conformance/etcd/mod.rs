//! The suite of discovery over etcd, and what only a server that fails or forgets can show: cases by
//! what they are about, over the helpers here.

mod drained;
mod identity;
mod lost;
mod sparing;
mod stored;
mod tls;

use super::discovery;
use crate::support::{
    self,
    servers::{Kind, Server},
};
use etcd_client::Client;
use hostel::{
    config::{Config, Etcd},
    discovery::{EtcdServiceDiscovery, NodeRecord, ServiceDiscovery},
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
    let cases = discovery::CASES.iter().map(|&(name, case)| {
        trial(name, move || async move {
            let server = Server::start(Kind::Etcd).await;
            case(connect(&server)).await;
        })
    });
    let mut trials: Vec<Trial> = cases.collect();
    trials.extend(drained::trials());
    trials.extend(identity::trials());
    trials.extend(lost::trials());
    trials.extend(sparing::trials());
    trials.extend(stored::trials());
    trials.extend(tls::trials());
    trials
}

fn trial<F>(name: &str, case: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let name = format!("discovery::etcd::{name}");
    support::trial_needing(&name, Kind::Etcd.is_here(), case)
}

fn settings(server: &Server) -> Etcd {
    let mut settings = Etcd::at(&[&server.url()], PREFIX);
    settings.ttl = TTL;
    settings
}

/// A node's discovery as the configuration makes it, with a data directory.
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

/// A node that has announced itself.
async fn node(server: &Server, id: &str) -> Arc<dyn ServiceDiscovery> {
    let node = connect(server);
    node.announce(record(id)).await.unwrap();
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

/// The lease that a node's record has in etcd; 0 where there is no record.
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
