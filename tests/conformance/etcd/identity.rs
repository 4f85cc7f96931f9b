//! Whose record it is: one id, one node, through restarts and mistakes.

use super::{TTL, admin, connect, key, lease, node, open_in, record, sees, trial};
use crate::support::{
    self,
    servers::{Kind, Server},
};
use etcd_client::PutOptions;
use hostel::discovery::Error;
use libtest_mimic::Trial;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("an_id_belongs_to_one_node", an_id_belongs_to_one_node),
        trial(
            "what_an_earlier_run_left_is_waited_for",
            what_an_earlier_run_left_is_waited_for,
        ),
        trial(
            "a_killed_node_takes_its_record_over",
            a_killed_node_takes_its_record_over,
        ),
        trial(
            "a_copied_data_directory_is_told_apart",
            a_copied_data_directory_is_told_apart,
        ),
    ]
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

async fn a_killed_node_takes_its_record_over() {
    let server = Server::start(Kind::Etcd).await;
    let dir = tempfile::tempdir().unwrap();
    let mut admin = admin(&server).await;
    let mut leases = Vec::new();
    // At the same address, at another one, and at one more: nobody listens where it was.
    for port in [1, 1, 2, 3] {
        let mut record = record("a");
        record.address = format!("127.0.0.1:{port}");
        let a = open_in(&server, dir.path());
        a.announce(record.clone()).await.unwrap();
        leases.push(lease(&mut admin, "a").await);
        assert_eq!(a.nodes()[..], [record]);
        // Nobody withdraws for who is dropped, and its lease goes on for minutes.
        drop(a);
    }
    leases.dedup();
    assert_eq!(leases.len(), 4, "each run has a lease of its own");
    // What the first runs left ends without taking the record along.
    admin.lease_revoke(leases[0]).await.unwrap();
    assert_eq!(lease(&mut admin, "a").await, leases[3]);
}

async fn a_copied_data_directory_is_told_apart() {
    let server = Server::start(Kind::Etcd).await;
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut first = record("a");
    first.address = listener.local_addr().unwrap().to_string();
    let a = open_in(&server, dir.path());
    a.announce(first.clone()).await.unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let twin = open_in(&server, copy.path());
    let mut elsewhere = first.clone();
    elsewhere.address = "127.0.0.1:1".into();
    // It waits for the record's end, for as long as that may take.
    let waits = tokio::spawn(async move { twin.announce(elsewhere).await });
    let mut admin = admin(&server).await;
    let before = lease(&mut admin, "a").await;
    support::eventually("the twin asks the first one", async || {
        tokio::time::timeout(Duration::from_millis(20), listener.accept())
            .await
            .ok()?
            .ok()
    })
    .await;
    assert_eq!(lease(&mut admin, "a").await, before);
    assert_eq!(a.nodes()[..], [first]);
    drop(listener);
    waits.await.unwrap().unwrap();
    assert_ne!(lease(&mut admin, "a").await, before);
}
