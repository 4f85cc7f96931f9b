//! The suite of discovery over etcd, and what only a server that fails or forgets can show.

use super::discovery::{self, eventually, found, register, service, unique};
use crate::support::{
    self,
    servers::{Kind, Server},
};
use etcd_client::{Client, PutOptions};
use hostel::{
    config::{Config, Etcd, Secret},
    discovery::{Error, EtcdServiceDiscovery, NodeRecord, ServiceDiscovery},
    task::Name,
};
use libtest_mimic::Trial;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// As short as etcd allows with the elections of a test's server.
const TTL: Duration = Duration::from_secs(2);
const PREFIX: &str = "/test/hostel";

pub fn trials() -> Vec<Trial> {
    let cases = discovery::CASES.iter().map(|&(name, case)| {
        trial(name, move || async move {
            let server = Server::start(Kind::Etcd).await;
            case(connect(&server)).await;
        })
    });
    let mut trials: Vec<Trial> = cases.collect();
    trials.extend([
        trial(
            "the_constructor_of_the_seed_serves",
            the_constructor_of_the_seed_serves,
        ),
        trial("nodes_see_each_other", nodes_see_each_other),
        trial(
            "the_last_view_serves_while_etcd_is_away",
            the_last_view_serves_while_etcd_is_away,
        ),
        trial("a_lost_lease_is_replaced", a_lost_lease_is_replaced),
        trial(
            "a_pause_longer_than_the_lease_is_survived",
            a_pause_longer_than_the_lease_is_survived,
        ),
        trial(
            "all_leases_ended_at_once_lose_nobody",
            all_leases_ended_at_once_lose_nobody,
        ),
        trial(
            "a_compacted_history_is_listed_anew",
            a_compacted_history_is_listed_anew,
        ),
        trial(
            "an_etcd_that_forgot_everything_is_told",
            an_etcd_that_forgot_everything_is_told,
        ),
        trial("an_id_belongs_to_one_node", an_id_belongs_to_one_node),
        trial(
            "what_an_earlier_run_left_is_waited_for",
            what_an_earlier_run_left_is_waited_for,
        ),
        trial(
            "what_cannot_be_read_is_passed_over",
            what_cannot_be_read_is_passed_over,
        ),
        trial("services_have_a_limit", services_have_a_limit),
        trial(
            "a_start_without_etcd_fails_in_time",
            a_start_without_etcd_fails_in_time,
        ),
        trial("who_is_refused_is_told_why", who_is_refused_is_told_why),
    ]);
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
    NodeRecord {
        id: Name::parse("node id", id).unwrap(),
        address: format!("{id}:1"),
        version: "1.2.3".into(),
        task_types: Vec::new(),
        plugins: Vec::new(),
        components: Vec::new(),
    }
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

async fn the_constructor_of_the_seed_serves() {
    let server = Server::start(Kind::Etcd).await;
    let url = server.url();
    let seed = EtcdServiceDiscovery::new(&[&url], "/services")
        .await
        .unwrap();
    seed.announce(record("a")).await.unwrap();
    let got = admin(&server).await.get("/services/nodes/a", None).await;
    assert_eq!(got.unwrap().count(), 1);
}

async fn nodes_see_each_other() {
    let server = Server::start(Kind::Etcd).await;
    let (a, b) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    sees(&b, "a b").await;
    let mut more = record("b");
    more.task_types = vec![unique("echo")];
    b.announce(more.clone()).await.unwrap();
    eventually("what b says anew is seen at a", || {
        a.nodes().contains(&more)
    })
    .await;
    let name = unique("web");
    register(&b, &service(&name, "x")).await;
    support::eventually("what is registered at b is found at a", async || {
        (found(&a, &name).await.len() == 1).then_some(())
    })
    .await;
    // Renewed all the time, so still there long after the lease's time.
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(ids(&a), "a b");
    let since = Instant::now();
    b.withdraw().await.unwrap();
    sees(&a, "a").await;
    assert!(since.elapsed() < TTL, "a withdrawal is heard at once");
    // Nobody withdraws for who is dropped; its lease ends.
    let c = node(&server, "c").await;
    sees(&a, "a c").await;
    drop(c);
    sees(&a, "a").await;
}

async fn the_last_view_serves_while_etcd_is_away() {
    let mut server = Server::start(Kind::Etcd).await;
    let (a, b) = (node(&server, "a").await, node(&server, "b").await);
    let name = unique("web");
    register(&a, &service(&name, "x")).await;
    sees(&a, "a b").await;
    assert!(a.stale_since().is_none());
    server.kill();
    eventually("the view is known to be stale", || {
        a.stale_since().is_some()
    })
    .await;
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(ids(&a), "a b");
    assert_eq!(found(&a, &name).await.len(), 1);
    let since = Instant::now();
    let refused = a.register_service(service(&name, "y")).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(since.elapsed() < Duration::from_secs(10));
    // What changes meanwhile is told once it can be.
    let mut more = record("b");
    more.task_types = vec![unique("echo")];
    b.announce(more.clone()).await.unwrap();

    server.restart().await;
    support::eventually("the view is fresh", async || {
        a.stale_since().is_none().then_some(())
    })
    .await;
    support::eventually("b is there as it is now", async || {
        a.nodes().contains(&more).then_some(())
    })
    .await;
    register(&a, &service(&name, "y")).await;
    let mut admin = admin(&server).await;
    for id in ["a", "b"] {
        support::eventually("the record is in etcd", async || {
            (lease(&mut admin.clone(), id).await != 0).then_some(())
        })
        .await;
    }
    tokio::time::sleep(TTL * 2).await;
    assert_ne!(lease(&mut admin, "b").await, 0, "it is renewed again");
    assert_eq!(ids(&a), "a b");
}

async fn a_lost_lease_is_replaced() {
    let server = Server::start(Kind::Etcd).await;
    let (a, b) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    let mut admin = admin(&server).await;
    let lost = lease(&mut admin, "b").await;
    admin.lease_revoke(lost).await.unwrap();
    another_lease(&admin, "b", lost).await;
    sees(&a, "a b").await;
    // And a record that somebody deleted while its lease goes on.
    admin.delete(key("b"), None).await.unwrap();
    another_lease(&admin, "b", 0).await;
    sees(&a, "a b").await;
    drop(b);
}

async fn a_pause_longer_than_the_lease_is_survived() {
    let server = Server::start(Kind::Etcd).await;
    let (a, b) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    server.pause();
    for _ in 0..50 {
        tokio::time::sleep(TTL / 10).await;
        assert_eq!(ids(&a), "a b");
    }
    assert!(
        a.stale_since().is_some(),
        "a connection that only looks alive is given up"
    );
    server.resume();
    support::eventually("both are followed again", async || {
        let fresh = a.stale_since().is_none() && b.stale_since().is_none();
        (fresh && ids(&a) == "a b" && ids(&b) == "a b").then_some(())
    })
    .await;
    let watching = connect(&server);
    tokio::time::sleep(TTL * 2).await;
    watching.discover_service(&unique("web")).await.unwrap();
    assert_eq!(ids(&watching), "a b");
}

async fn all_leases_ended_at_once_lose_nobody() {
    let server = Server::start(Kind::Etcd).await;
    let (a, b) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    let mut admin = admin(&server).await;
    // This one's own is the first to go, and then the last.
    for order in [["a", "b"], ["b", "a"]] {
        let mut lost = Vec::new();
        for id in order {
            lost.push(lease(&mut admin, id).await);
        }
        for &lease in &lost {
            admin.lease_revoke(lease).await.unwrap();
        }
        for (id, lost) in order.into_iter().zip(lost) {
            another_lease(&admin, id, lost).await;
        }
        sees(&a, "a b").await;
        sees(&b, "a b").await;
    }
}

async fn a_compacted_history_is_listed_anew() {
    let mut server = Server::start(Kind::Etcd).await;
    let a = node(&server, "a").await;
    for round in 0..3 {
        server.restart().await;
        let mut admin = admin(&server).await;
        let mut revision = 0;
        // Changes that the watch has missed, and can never hear of.
        for number in 0..20 {
            let key = format!("{PREFIX}/services/web/{number}");
            let value = format!("{{\"address\":\"{round}:{number}\"}}");
            let put = admin.put(key, value, None).await.unwrap();
            revision = put.header().unwrap().revision();
        }
        admin.compact(revision, None).await.unwrap();
        let name = Name::parse("service", "web").unwrap();
        support::eventually("the view has what etcd has", async || {
            let services = found(&a, &name).await;
            let expected = format!("{round}:19");
            let all = services.len() == 20 && services.iter().any(|one| one.address == expected);
            all.then_some(())
        })
        .await;
        sees(&a, "a").await;
    }
}

async fn an_etcd_that_forgot_everything_is_told() {
    let mut server = Server::start(Kind::Etcd).await;
    let (a, b) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    server.kill();
    server.forget();
    server.restart().await;
    for node in [&a, &b] {
        support::eventually("the view is fresh", async || {
            node.stale_since().is_none().then_some(())
        })
        .await;
    }
    let admin = admin(&server).await;
    for id in ["a", "b"] {
        another_lease(&admin, id, 0).await;
    }
    sees(&a, "a b").await;
    tokio::time::sleep(TTL * 2).await;
    assert_eq!((ids(&a), ids(&b)), ("a b".into(), "a b".into()));
}

async fn an_id_belongs_to_one_node() {
    let server = Server::start(Kind::Etcd).await;
    let first = node(&server, "a").await;
    let second = connect(&server);
    let mut same = record("a");
    same.address = "elsewhere:1".into();
    let since = Instant::now();
    let refused = second.announce(same).await;
    let Err(Error::Misconfigured(why)) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains("a:1") && why.contains("node.id"), "{why}");
    assert!(since.elapsed() > TTL, "it could have been an earlier run");
    assert_eq!(first.nodes()[0].address, "a:1");
    let got = admin(&server).await.get(key("a"), None).await.unwrap();
    assert!(got.kvs()[0].value_str().unwrap().contains("a:1"));
}

async fn what_an_earlier_run_left_is_waited_for() {
    let server = Server::start(Kind::Etcd).await;
    let mut admin = admin(&server).await;
    let granted = admin.lease_grant(2, None).await.unwrap().id();
    let left = serde_json::json!({
        "id": "a", "address": "a:1", "version": "1", "task_types": [], "plugins": [],
        "components": [], "instance": "killed",
    });
    let options = PutOptions::new().with_lease(granted);
    admin
        .put(key("a"), left.to_string(), Some(options))
        .await
        .unwrap();
    let a = node(&server, "a").await;
    assert_ne!(lease(&mut admin, "a").await, granted);
    sees(&a, "a").await;
}

async fn what_cannot_be_read_is_passed_over() {
    let server = Server::start(Kind::Etcd).await;
    let mut admin = admin(&server).await;
    let rubbish = [
        (key("x"), "{"),
        (key("y"), "{\"id\":\"other\"}"),
        (format!("{PREFIX}/later/kind"), "?"),
        (format!("{PREFIX}/services/web/x"), "[]"),
        (format!("{PREFIX}2/nodes/z"), "?"),
    ];
    for (key, value) in rubbish {
        admin.put(key, value, None).await.unwrap();
    }
    let a = node(&server, "a").await;
    let b = node(&server, "b").await;
    admin.put(key("v"), "\u{0}", None).await.unwrap();
    sees(&a, "a b").await;
    sees(&b, "a b").await;
}

async fn services_have_a_limit() {
    let server = Server::start(Kind::Etcd).await;
    let mut limits = Config::default().limits;
    limits.max_services = 2;
    let open = || -> Arc<dyn ServiceDiscovery> {
        Arc::new(EtcdServiceDiscovery::open(&settings(&server), &limits).unwrap())
    };
    let (here, there) = (open(), open());
    let name = unique("web");
    register(&here, &service(&name, "a")).await;
    register(&here, &service(&name, "b")).await;
    register(&here, &service(&name, "a")).await;
    let refused = here.register_service(service(&name, "c")).await;
    assert!(
        matches!(refused, Err(Error::Full { limit: 2 })),
        "{refused:?}"
    );
    let refused = there.register_service(service(&name, "c")).await;
    assert!(
        matches!(refused, Err(Error::Full { limit: 2 })),
        "{refused:?}"
    );
}

async fn a_start_without_etcd_fails_in_time() {
    let mut server = Server::start(Kind::Etcd).await;
    server.kill();
    let a = connect(&server);
    let since = Instant::now();
    let refused = a.announce(record("a")).await.unwrap_err().to_string();
    assert!(refused.contains("etcd"), "{refused}");
    assert!(
        since.elapsed() < Duration::from_secs(25),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(ids(&a), "");
    server.restart().await;
    a.announce(record("a")).await.unwrap();
    sees(&a, "a").await;
}

async fn who_is_refused_is_told_why() {
    let server = Server::start(Kind::Etcd).await;
    let mut admin = admin(&server).await;
    admin.user_add("root", "root", None).await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.auth_enable().await.unwrap();
    let limits = Config::default().limits;
    let with = |password: &str| {
        let mut settings = settings(&server);
        settings.user = Some("root".into());
        settings.password = Some(Secret::new(password));
        EtcdServiceDiscovery::open(&settings, &limits).unwrap()
    };
    with("root").announce(record("a")).await.unwrap();
    let refused = with("wrong").announce(record("b")).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("discovery.password"), "{refused}");
    assert!(!refused.contains("wrong"), "{refused}");
}
