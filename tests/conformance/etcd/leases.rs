//! Leases and pings that etcd limits, and a node whose id another node takes after its lease.

use super::{LONG_TTL, admin, connect, node, record, settings, trial};
use crate::support::{
    self,
    proxy::Proxy,
    servers::{Kind, Server},
};
use hostel::{
    config::{Config, Etcd},
    discovery::{Error, EtcdServiceDiscovery, ServiceDiscovery, ServiceInfo},
    health::{Health, Part},
    task::Name,
};
use libtest_mimic::Trial;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_service_registered_again_keeps_one_lease",
            a_service_registered_again_keeps_one_lease,
        ),
        trial(
            "a_cancelled_registration_leaves_no_lease",
            a_cancelled_registration_leaves_no_lease,
        ),
        trial(
            "connections_are_not_pinged_too_often",
            connections_are_not_pinged_too_often,
        ),
        trial(
            "an_id_that_another_node_took_is_contested",
            an_id_that_another_node_took_is_contested,
        ),
    ]
}

fn service(ttl: Duration) -> ServiceInfo {
    let name = |text| Name::parse("name", text).unwrap();
    ServiceInfo {
        id: name("printer-1"),
        name: name("printer"),
        address: "127.0.0.1:1".into(),
        metadata: Default::default(),
        ttl: Some(ttl),
    }
}

async fn a_service_registered_again_keeps_one_lease() {
    let server = Server::start(Kind::Etcd).await;
    let (a, b) = (node(&server, "a").await, node(&server, "b").await);
    let mut admin = admin(&server).await;
    let before = admin.leases().await.unwrap().leases().len();
    for turn in 0..20 {
        let ttl = Duration::from_secs(60 + turn % 3);
        let by = if turn % 2 == 0 { &a } else { &b };
        assert_eq!(by.register_service(service(ttl)).await.unwrap(), ttl);
    }
    let after = admin.leases().await.unwrap().leases().len();
    assert_eq!(after, before + 1);
    let name = Name::parse("name", "printer").unwrap();
    assert_eq!(
        a.discover_service(&name, usize::MAX).await.unwrap().len(),
        1
    );
}

/// Over a line on which a lease is granted long before the service is written.
async fn a_cancelled_registration_leaves_no_lease() {
    let server = Server::start(Kind::Etcd).await;
    let proxy = Proxy::with_bandwidth(&format!("127.0.0.1:{}", server.port()), 100_000).await;
    let mut behind = settings(&server);
    behind.endpoints = vec![format!("http://{}", proxy.address())];
    let a = EtcdServiceDiscovery::open(&behind, &Config::default().limits).unwrap();
    let mut large = service(LONG_TTL);
    large.metadata.insert("a".into(), "a".repeat(14_000));
    a.register_service(large.clone()).await.unwrap();
    let admin = admin(&server).await;
    let leases = async || admin.clone().leases().await.unwrap().leases().len();
    let before = leases().await;
    for _ in 0..8 {
        let granted = async { while leases().await == before {} };
        tokio::select! {
            done = a.register_service(large.clone()) => panic!("not cancelled: {done:?}"),
            () = granted => {}
        }
    }
    support::eventually("only the lease of the service is left", async || {
        (leases().await == before).then_some(())
    })
    .await;
    let name = Name::parse("name", "printer").unwrap();
    assert_eq!(
        a.discover_service(&name, usize::MAX).await.unwrap().len(),
        1
    );
}

/// etcd ends a connection at the third ping that came too early, which was after 12 s.
async fn connections_are_not_pinged_too_often() {
    let server = Server::start(Kind::Etcd).await;
    let proxy = Proxy::to(&format!("127.0.0.1:{}", server.port())).await;
    let mut settings: Etcd = settings(&server);
    settings.endpoints = vec![format!("http://{}", proxy.address())];
    settings.ttl = LONG_TTL;
    let a = EtcdServiceDiscovery::open(&settings, &Config::default().limits).unwrap();
    a.register_node(record("a")).await.unwrap();
    a.register_service(service(LONG_TTL)).await.unwrap();
    let before = proxy.connections();
    for _ in 0..80 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(a.stale_since(), None);
    }
    assert_eq!(proxy.connections(), before);
}

async fn an_id_that_another_node_took_is_contested() {
    let server = Server::start(Kind::Etcd).await;
    let proxy = Proxy::to(&format!("127.0.0.1:{}", server.port())).await;
    let mut behind = settings(&server);
    behind.endpoints = vec![format!("http://{}", proxy.address())];
    let (limits, health) = (Config::default().limits, Health::default());
    let a = EtcdServiceDiscovery::open_reporting(&behind, &limits, health.clone()).unwrap();
    a.register_node(record("a")).await.unwrap();
    assert!(!a.is_id_contested());
    // A node that is cut off continues, since it cannot learn more.
    proxy.cut();
    support::eventually("the view of the first node is stale", async || {
        (a.stale_since().is_some() && !a.is_id_contested()).then_some(())
    })
    .await;
    let other = connect(&server);
    let taken = support::eventually("another node takes the id", async || {
        match other.register_node(record("a")).await {
            Err(Error::Misconfigured(_)) => None,
            done => Some(done),
        }
    });
    taken.await.unwrap();
    proxy.restore();
    let is_reported = || health.faults().contains_key(&(Part::Discovery, "id-taken"));
    support::eventually("the first node reports it", async || {
        (a.is_id_contested() && is_reported()).then_some(())
    })
    .await;
    other.deregister_node().await.unwrap();
    support::eventually("the first node has its id again", async || {
        (!a.is_id_contested() && !is_reported()).then_some(())
    })
    .await;
}
