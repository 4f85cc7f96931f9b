//! An etcd that goes away, stalls, forgets, or ends leases that are alive.

use super::{
    super::discovery::{eventually, found, register, service, unique},
    PREFIX, TTL, admin, another_lease, connect, ids, key, lease, node, record, sees, trial,
};
use crate::support::{
    self,
    servers::{Kind, Server},
};
use etcd_client::DeleteOptions;
use hostel::{discovery::Error, task::Name};
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
            "a_pause_longer_than_the_lease_is_survived",
            a_pause_longer_than_the_lease_is_survived,
        ),
        trial(
            "all_leases_ended_at_once_lose_nobody",
            all_leases_ended_at_once_lose_nobody,
        ),
        trial(
            "who_seems_to_have_gone_is_asked",
            who_seems_to_have_gone_is_asked,
        ),
        trial(
            "a_compacted_history_is_listed_anew",
            a_compacted_history_is_listed_anew,
        ),
        trial(
            "an_etcd_that_forgot_everything_is_told",
            an_etcd_that_forgot_everything_is_told,
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
    more.task_types = [unique("echo")].into();
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

async fn who_seems_to_have_gone_is_asked() {
    let server = Server::start(Kind::Etcd).await;
    let a = node(&server, "a").await;
    let mut admin = admin(&server).await;
    // Nodes that do not come back by themselves: one that lives, one that is dead, and one that cannot
    // be asked.
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
    // Long before the grace of those that may still live is over.
    sees(&a, "a b d").await;
    // It is over for who says nothing, and not for who answers.
    sees(&a, "a b").await;
    drop(living);
    sees(&a, "a").await;
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
