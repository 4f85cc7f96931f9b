//! An etcd that goes away, stalls, loses its data, or ends the leases of live nodes.

use super::{
    PREFIX, TTL, admin, another_lease, connect, ids, key, lease, node, record, sees, trial,
};
use crate::support::{
    self,
    servers::{Kind, Server},
};
use etcd_client::DeleteOptions;
use hostel::{
    discovery::{
        Error,
        conformance::{eventually, found, register, service, unique},
    },
    task::Name,
};
use libtest_mimic::Trial;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "the_last_view_serves_while_etcd_is_away",
            the_last_view_serves_while_etcd_is_away,
        ),
        trial("a_lost_lease_is_replaced", a_lost_lease_is_replaced),
        trial(
            "nodes_survive_a_pause_longer_than_the_lease",
            nodes_survive_a_pause_longer_than_the_lease,
        ),
        trial(
            "nodes_survive_the_end_of_all_leases",
            nodes_survive_the_end_of_all_leases,
        ),
        trial(
            "nodes_that_etcd_lost_are_probed",
            nodes_that_etcd_lost_are_probed,
        ),
        trial(
            "a_compacted_history_is_read_as_a_snapshot",
            a_compacted_history_is_read_as_a_snapshot,
        ),
        trial(
            "nodes_register_again_after_etcd_lost_its_data",
            nodes_register_again_after_etcd_lost_its_data,
        ),
        trial(
            "a_start_without_etcd_fails_in_time",
            a_start_without_etcd_fails_in_time,
        ),
    ]
}

async fn the_last_view_serves_while_etcd_is_away() {
    let mut server = Server::start(Kind::Etcd).await;
    let (a, b) = (node(&server, "a").await, node(&server, "b").await);
    let name = unique("web");
    register(&a, &service(&name, "x")).await;
    sees(&a, "a b").await;
    assert!(a.stale_since().is_none());
    server.kill();
    eventually("the view is stale", || a.stale_since().is_some()).await;
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(ids(&a), "a b");
    assert_eq!(found(&a, &name).await.len(), 1);
    let since = Instant::now();
    let refused = a.register_service(service(&name, "y")).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(since.elapsed() < Duration::from_secs(10));
    // Changes made meanwhile are written later.
    let mut more = record("b");
    more.task_types = [unique("echo")].into();
    b.register_node(more.clone()).await.unwrap();

    server.restart().await;
    support::eventually("the view is fresh", async || {
        a.stale_since().is_none().then_some(())
    })
    .await;
    support::eventually("the changed record of b is seen", async || {
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
    // And a record that was deleted while its lease lasts.
    admin.delete(key("b"), None).await.unwrap();
    another_lease(&admin, "b", 0).await;
    sees(&a, "a b").await;
    drop(b);
}

async fn nodes_survive_a_pause_longer_than_the_lease() {
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
        "a connection that does not answer is dropped"
    );
    server.resume();
    support::eventually("both views are fresh", async || {
        let fresh = a.stale_since().is_none() && b.stale_since().is_none();
        (fresh && ids(&a) == "a b" && ids(&b) == "a b").then_some(())
    })
    .await;
    let watching = connect(&server);
    tokio::time::sleep(TTL * 2).await;
    watching
        .discover_service(&unique("web"), usize::MAX)
        .await
        .unwrap();
    assert_eq!(ids(&watching), "a b");
}

async fn nodes_survive_the_end_of_all_leases() {
    let server = Server::start(Kind::Etcd).await;
    let (a, b) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    let mut admin = admin(&server).await;
    // The record of a is removed first, and then last.
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

async fn nodes_that_etcd_lost_are_probed() {
    let server = Server::start(Kind::Etcd).await;
    let a = node(&server, "a").await;
    let mut admin = admin(&server).await;
    // Nodes that do not register again: one that listens, one that refuses, and one that cannot be probed.
    let living = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [
        ("b", living.local_addr().unwrap().to_string()),
        ("c", dead.local_addr().unwrap().to_string()),
        ("d", "0.0.0.0:1".into()),
    ];
    drop(dead);
    for (id, address) in addresses {
        let mut record = serde_json::to_value(record(id)).unwrap();
        record["address"] = address.into();
        record["instance"] = id.into();
        admin.put(key(id), record.to_string(), None).await.unwrap();
    }
    sees(&a, "a b c d").await;
    let all = DeleteOptions::new().with_prefix();
    admin.delete(key(""), Some(all)).await.unwrap();
    // The one that refuses is removed long before the grace is over.
    sees(&a, "a b d").await;
    // The grace ends for the one that cannot be probed, and not for the one that listens.
    sees(&a, "a b").await;
    drop(living);
    sees(&a, "a").await;
}

async fn a_compacted_history_is_read_as_a_snapshot() {
    let mut server = Server::start(Kind::Etcd).await;
    let a = node(&server, "a").await;
    for round in 0..3 {
        server.restart().await;
        let mut admin = admin(&server).await;
        let mut revision = 0;
        // Changes that the watch has missed and cannot read any more.
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

async fn nodes_register_again_after_etcd_lost_its_data() {
    let mut server = Server::start(Kind::Etcd).await;
    let (a, b) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    server.kill();
    server.delete_data();
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

async fn a_start_without_etcd_fails_in_time() {
    let mut server = Server::start(Kind::Etcd).await;
    server.kill();
    let a = connect(&server);
    let since = Instant::now();
    let refused = a.register_node(record("a")).await.unwrap_err().to_string();
    assert!(refused.contains("etcd"), "{refused}");
    assert!(
        since.elapsed() < Duration::from_secs(25),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(ids(&a), "");
    server.restart().await;
    a.register_node(record("a")).await.unwrap();
    sees(&a, "a").await;
}
