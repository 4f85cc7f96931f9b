//! Queue and broker over a Redis with TLS: with a private CA, with client certificates, and the errors if
//! these do not match.

use super::queue;
use crate::support::{
    self,
    certificates::Authority,
    servers::{Kind, Server, free_port},
};
use hostel::{
    broker::{MessageBroker, RedisBroker, conformance as broker},
    config,
    queue::{Error, RedisQueue, TaskQueue},
};
use libtest_mimic::Trial;
use std::{cell::Cell, path::Path, sync::Arc};
use tempfile::TempDir;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("queue", "serves_with_a_ca", queue_serves_with_a_ca),
        trial("broker", "serves_with_a_ca", broker_serves_with_a_ca),
        trial(
            "queue",
            "serves_with_client_certificates",
            queue_with_client_certificates,
        ),
        trial(
            "broker",
            "serves_with_client_certificates",
            broker_with_client_certificates,
        ),
        trial(
            "queue",
            "an_unknown_ca_is_refused",
            queue_refuses_an_unknown_ca,
        ),
        trial(
            "broker",
            "an_unknown_ca_is_refused",
            broker_refuses_an_unknown_ca,
        ),
    ]
}

fn trial<F>(what: &str, name: &str, case: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let name = format!("{what}::redis_tls::{name}");
    support::trial_needing(&name, Kind::Redis.is_installed(), case)
}

/// A Redis with TLS, and the files of a node.
struct Tls {
    _server: Server,
    url: String,
    files: TempDir,
}

impl Tls {
    /// Starts a Redis. Clients need certificates if `clients` is true.
    async fn start(clients: bool) -> Self {
        let authority = Authority::new("the CA");
        let files = authority.write_client();
        let port = Cell::new(0);
        let more = |dir: &Path, _| {
            authority.write_server(dir);
            port.set(free_port());
            let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
            let clients = if clients { "yes" } else { "no" };
            vec![
                "--tls-port".to_owned(),
                port.get().to_string(),
                "--tls-cert-file".to_owned(),
                file("server.pem"),
                "--tls-key-file".to_owned(),
                file("server.key"),
                "--tls-ca-cert-file".to_owned(),
                file("ca.pem"),
                "--tls-auth-clients".to_owned(),
                clients.to_owned(),
            ]
        };
        let server = Server::start_with(Kind::Redis, more).await;
        Self {
            _server: server,
            url: format!("rediss://127.0.0.1:{}", port.get()),
            files,
        }
    }

    fn with(&self, prefix: &str, ca: Option<&str>, own: Option<&str>) -> config::Redis {
        let file = |name: String| self.files.path().join(name);
        let mut settings = config::Redis::at(&self.url, prefix).unwrap();
        settings.ca_file = ca.map(|name| file(format!("{name}.pem")));
        settings.cert_file = own.map(|name| file(format!("{name}.pem")));
        settings.key_file = own.map(|name| file(format!("{name}.key")));
        settings
    }
}

fn queue_settings(server: config::Redis) -> config::RedisQueue {
    config::RedisQueue {
        server,
        shards: 1,
        max_open_tasks: queue::MAX_OPEN_TASKS,
        replicas: 0,
        reserve_percent: config::RedisQueue::RESERVE_PERCENT,
    }
}

/// Runs cases of the suite that use every connection: scripts, submissions, events.
async fn is_served(tls: &Tls, own: Option<&str>) {
    for case in queue::cases() {
        let chosen = [
            "a_task_goes_from_submit_to_result",
            "watchers_see_every_state",
        ];
        if chosen.contains(&case.name()) {
            let settings = queue_settings(tls.with(case.name(), Some("ca"), own));
            let open = || async {
                let queue = RedisQueue::open(&settings).await.unwrap();
                Arc::new(queue) as Arc<dyn TaskQueue>
            };
            case.run(open).await;
        }
    }
    // Changes of other queues come over a separate connection.
    let settings = queue_settings(tls.with("shared", Some("ca"), own));
    super::queue_redis::share_their_tasks(&settings).await;
}

fn connect(settings: &config::Redis) -> Arc<dyn MessageBroker> {
    Arc::new(RedisBroker::open(settings).unwrap())
}

async fn queue_serves_with_a_ca() {
    is_served(&Tls::start(false).await, None).await;
}

async fn broker_serves_with_a_ca() {
    let tls = Tls::start(false).await;
    for case in broker::cases() {
        case.run(async || connect(&tls.with("test", Some("ca"), None)))
            .await;
    }
}

async fn queue_with_client_certificates() {
    let tls = Tls::start(true).await;
    is_served(&tls, Some("node")).await;
    let error = refusal(tls.with("test", Some("ca"), None)).await;
    assert!(error.contains("queue.cert_file"), "{error}");
}

async fn broker_with_client_certificates() {
    let tls = Tls::start(true).await;
    let broker = connect(&tls.with("test", Some("ca"), Some("node")));
    let topic = broker::topic();
    let mut subscription = broker::subscribe(&broker, &topic).await;
    broker::publish(&broker, &topic, "a", 1).await;
    assert_eq!(broker::received(&mut subscription).await.id, "1");
    let error = publishing_fails(&tls.with("test", Some("ca"), None)).await;
    assert!(error.contains("broker.cert_file"), "{error}");
}

async fn queue_refuses_an_unknown_ca() {
    let tls = Tls::start(false).await;
    let error = refusal(tls.with("test", Some("other"), None)).await;
    assert!(error.contains("queue.ca_file"), "{error}");
}

async fn broker_refuses_an_unknown_ca() {
    let tls = Tls::start(false).await;
    let error = publishing_fails(&tls.with("test", Some("other"), None)).await;
    assert!(error.contains("broker.ca_file"), "{error}");
}

async fn refusal(settings: config::Redis) -> String {
    match RedisQueue::open(&queue_settings(settings)).await {
        Err(Error::Unavailable { reason, .. }) => reason,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it opened"),
    }
}

async fn publishing_fails(settings: &config::Redis) -> String {
    let broker = connect(settings);
    let error = super::broker_redis::try_publish(&broker, &broker::topic()).await;
    error.unwrap_err().to_string()
}
