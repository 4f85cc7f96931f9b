//! An id belongs to one node, through restarts and mistakes.

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
            "the_record_of_an_earlier_run_is_waited_for",
            the_record_of_an_earlier_run_is_waited_for,
        ),
        trial(
            "a_killed_node_replaces_its_record",
            a_killed_node_replaces_its_record,
        ),
        trial(
            "a_copied_data_directory_is_another_node",
            a_copied_data_directory_is_another_node,
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
    let refused = second.register_node(same).await;
    let Err(Error::Misconfigured(why)) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains("a:1") && why.contains("node.id"), "{why}");
    assert!(
        since.elapsed() > TTL,
        "the record could be of an earlier run"
    );
    assert_eq!(first.nodes()[0].address, "a:1");
    let got = admin(&server).await.get(key("a"), None).await.unwrap();
    assert!(got.kvs()[0].value_str().unwrap().contains("a:1"));
}

async fn the_record_of_an_earlier_run_is_waited_for() {
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

async fn a_killed_node_replaces_its_record() {
    let server = Server::start(Kind::Etcd).await;
    let dir = tempfile::tempdir().unwrap();
    let mut admin = admin(&server).await;
    let mut leases = Vec::new();
    // At the same address, at another one, and at one more: no program listens at the old one.
    for port in [1, 1, 2, 3] {
        let mut record = record("a");
        record.address = format!("127.0.0.1:{port}");
        let a = open_in(&server, dir.path());
        a.register_node(record.clone()).await.unwrap();
        leases.push(lease(&mut admin, "a").await);
        assert_eq!(a.nodes()[..], [record]);
        // A dropped discovery does not deregister, and its lease lasts for minutes.
        drop(a);
    }
    leases.dedup();
    assert_eq!(leases.len(), 4, "each run has a lease of its own");
    // The leases of earlier runs end without the record.
    admin.lease_revoke(leases[0]).await.unwrap();
    assert_eq!(lease(&mut admin, "a").await, leases[3]);
}

async fn a_copied_data_directory_is_another_node() {
    let server = Server::start(Kind::Etcd).await;
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut first = record("a");
    first.address = listener.local_addr().unwrap().to_string();
    let a = open_in(&server, dir.path());
    a.register_node(first.clone()).await.unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let copied_node = open_in(&server, copy.path());
    let mut elsewhere = first.clone();
    elsewhere.address = "127.0.0.1:1".into();
    // It waits until the record ends.
    let waits = tokio::spawn(async move { copied_node.register_node(elsewhere).await });
    let mut admin = admin(&server).await;
    let before = lease(&mut admin, "a").await;
    support::eventually("the copy probes the first one", async || {
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
