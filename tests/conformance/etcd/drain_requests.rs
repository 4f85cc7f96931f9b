//! Drain requests: written through one node, seen by all, and kept while nodes and etcd are away.

use super::{PREFIX, admin, connect, node, record, sees, settings, trial};
use crate::support::{
    self,
    proxy::Proxy,
    servers::{Kind, Server},
};
use etcd_client::GetOptions;
use hostel::{
    config::Config,
    discovery::{Error, EtcdServiceDiscovery, ServiceDiscovery},
    task::Name,
};
use libtest_mimic::Trial;
use std::sync::Arc;

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_drain_request_outlives_its_node",
            a_drain_request_outlives_its_node,
        ),
        trial(
            "drain_requests_hold_while_etcd_is_away",
            drain_requests_hold_while_etcd_is_away,
        ),
        trial(
            "drain_requests_outlive_the_data_of_etcd",
            drain_requests_outlive_the_data_of_etcd,
        ),
        trial(
            "a_withdrawn_drain_request_does_not_return",
            a_withdrawn_drain_request_does_not_return,
        ),
    ]
}

fn b() -> Name {
    Name::parse("node id", "b").unwrap()
}

async fn sees_drained(node: &Arc<dyn ServiceDiscovery>, drained: bool) {
    support::eventually(
        &format!("the node sees that b drained is {drained}"),
        async || (node.is_drained(&b()) == drained).then_some(()),
    )
    .await;
}

async fn a_drain_request_outlives_its_node() {
    let server = Server::start(Kind::Etcd).await;
    let (a, first) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    a.drain(&b(), true).await.unwrap();
    sees_drained(&first, true).await;
    first.deregister_node().await.unwrap();
    sees(&a, "a").await;
    assert!(a.is_drained(&b()));

    let second = connect(&server);
    second.register_node(record("b")).await.unwrap();
    assert!(second.is_drained(&b()), "before it takes any task");
    // Each node may write it, the drained one included.
    second.drain(&b(), false).await.unwrap();
    sees_drained(&a, false).await;
    second.drain(&b(), true).await.unwrap();
    sees_drained(&a, true).await;
    second.deregister_node().await.unwrap();
    a.drain(&b(), false).await.unwrap();
    let options = GetOptions::new().with_prefix().with_keys_only();
    let mut admin = admin(&server).await;
    let left = admin.get(PREFIX, Some(options)).await.unwrap();
    let left = left.kvs().iter().map(|pair| pair.key_str().unwrap());
    let left: Vec<&str> = left.filter(|key| key.contains("drained")).collect();
    assert!(left.is_empty(), "{left:?}");
}

async fn drain_requests_hold_while_etcd_is_away() {
    let mut server = Server::start(Kind::Etcd).await;
    let (a, there) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    a.drain(&b(), true).await.unwrap();
    sees_drained(&there, true).await;
    server.kill();
    support::eventually("both views are stale", async || {
        let stale = a.stale_since().is_some() && there.stale_since().is_some();
        stale.then_some(())
    })
    .await;
    let refused = a.drain(&b(), false).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(a.is_drained(&b()) && there.is_drained(&b()));

    server.restart().await;
    // Whether the watches are back or not: a deletion is missing from the snapshot.
    let key = format!("{PREFIX}/drained/b");
    admin(&server).await.delete(key, None).await.unwrap();
    sees_drained(&a, false).await;
    sees_drained(&there, false).await;
    sees(&a, "a b").await;
}

async fn lose_data(server: &mut Server) {
    server.kill();
    server.delete_data();
    server.restart().await;
}

async fn drain_requests_outlive_the_data_of_etcd() {
    let mut server = Server::start(Kind::Etcd).await;
    let (a, there) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    a.drain(&b(), true).await.unwrap();
    sees_drained(&there, true).await;
    for _ in 0..2 {
        lose_data(&mut server).await;
        let key = format!("{PREFIX}/drained/b");
        support::eventually("the drain request is in etcd again", async || {
            // The view keeps it in between.
            assert!(a.is_drained(&b()) && there.is_drained(&b()));
            let got = admin(&server).await.get(key.clone(), None).await.unwrap();
            (got.count() == 1).then_some(())
        })
        .await;
    }
    for node in [&a, &there] {
        support::eventually("the view is fresh", async || {
            node.stale_since().is_none().then_some(())
        })
        .await;
        assert!(node.is_drained(&b()));
    }
    // A node that starts later sees it as well.
    assert!(node(&server, "c").await.is_drained(&b()));
}

async fn a_withdrawn_drain_request_does_not_return() {
    let mut server = Server::start(Kind::Etcd).await;
    let url = server.url();
    let proxy = Proxy::to(url.trim_start_matches("http://")).await;
    let mut behind = settings(&server);
    behind.endpoints = vec![format!("http://{}", proxy.address())];
    let limits = Config::default().limits;
    let behind = EtcdServiceDiscovery::open(&behind, &limits).unwrap();
    let away: Arc<dyn ServiceDiscovery> = Arc::new(behind);
    away.register_node(record("c")).await.unwrap();
    let (a, there) = (node(&server, "a").await, node(&server, "b").await);
    sees(&away, "a b c").await;
    a.drain(&b(), true).await.unwrap();
    sees_drained(&away, true).await;

    // A node that was cut off meanwhile comes back with the drain request in its view.
    proxy.cut();
    lose_data(&mut server).await;
    support::eventually(
        "the drain request is withdrawn from the new store",
        async || {
            // It fails until the node has read the new store.
            a.drain(&b(), false).await.ok()
        },
    )
    .await;
    sees_drained(&there, false).await;
    assert!(away.is_drained(&b()));
    proxy.restore();
    sees_drained(&away, false).await;
    sees(&away, "a b c").await;
    assert!(!a.is_drained(&b()) && !there.is_drained(&b()));
    let key = format!("{PREFIX}/drained/b");
    let got = admin(&server).await.get(key, None).await.unwrap();
    assert_eq!(got.count(), 0);
}
