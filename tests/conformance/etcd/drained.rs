//! Who shall take no new task: said at one node, heard at all, and kept while nodes and etcd are away.

use super::{PREFIX, admin, connect, node, record, sees, trial};
use crate::support::{
    self,
    servers::{Kind, Server},
};
use etcd_client::GetOptions;
use hostel::{
    discovery::{Error, ServiceDiscovery},
    task::Name,
};
use libtest_mimic::Trial;
use std::sync::Arc;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_wish_outlives_its_node", a_wish_outlives_its_node),
        trial(
            "wishes_stand_while_etcd_is_away",
            wishes_stand_while_etcd_is_away,
        ),
    ]
}

fn b() -> Name {
    Name::parse("node id", "b").unwrap()
}

async fn knows(node: &Arc<dyn ServiceDiscovery>, drained: bool) {
    support::eventually(
        &format!("it knows that b drained is {drained}"),
        async || (node.is_drained(&b()) == drained).then_some(()),
    )
    .await;
}

async fn a_wish_outlives_its_node() {
    let server = Server::start(Kind::Etcd).await;
    let (a, first) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    a.drain(&b(), true).await.unwrap();
    knows(&first, true).await;
    first.withdraw().await.unwrap();
    sees(&a, "a").await;
    assert!(a.is_drained(&b()));

    let second = connect(&server);
    second.announce(record("b")).await.unwrap();
    assert!(second.is_drained(&b()), "known before it takes any task");
    // Everybody may say it, the node itself included.
    second.drain(&b(), false).await.unwrap();
    knows(&a, false).await;
    second.drain(&b(), true).await.unwrap();
    knows(&a, true).await;
    second.withdraw().await.unwrap();
    a.drain(&b(), false).await.unwrap();
    let options = GetOptions::new().with_prefix().with_keys_only();
    let mut admin = admin(&server).await;
    let left = admin.get(PREFIX, Some(options)).await.unwrap();
    let left = left.kvs().iter().map(|pair| pair.key_str().unwrap());
    let left: Vec<&str> = left.filter(|key| key.contains("drained")).collect();
    assert!(left.is_empty(), "{left:?}");
}

async fn wishes_stand_while_etcd_is_away() {
    let mut server = Server::start(Kind::Etcd).await;
    let (a, there) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    a.drain(&b(), true).await.unwrap();
    knows(&there, true).await;
    server.kill();
    support::eventually("both views are known to be stale", async || {
        let stale = a.stale_since().is_some() && there.stale_since().is_some();
        stale.then_some(())
    })
    .await;
    let refused = a.drain(&b(), false).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(a.is_drained(&b()) && there.is_drained(&b()));

    server.restart().await;
    // Before or after they are back: what has gone meanwhile is missed in the list.
    let key = format!("{PREFIX}/drained/b");
    admin(&server).await.delete(key, None).await.unwrap();
    knows(&a, false).await;
    knows(&there, false).await;
    sees(&a, "a b").await;
}
