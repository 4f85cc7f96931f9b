//! Whose record it is: one id, one node, through restarts and mistakes.

use super::{TTL, admin, connect, key, lease, node, record, sees, trial};
use crate::support::servers::{Kind, Server};
use etcd_client::PutOptions;
use hostel::discovery::Error;
use libtest_mimic::Trial;
use std::time::Instant;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("an_id_belongs_to_one_node", an_id_belongs_to_one_node),
        trial(
            "what_an_earlier_run_left_is_waited_for",
            what_an_earlier_run_left_is_waited_for,
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
