//! Who shall take no new task: said at one node, heard at all, and kept while nodes and etcd are away.

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
        trial("a_wish_outlives_its_node", a_wish_outlives_its_node),
        trial(
            "wishes_stand_while_etcd_is_away",
            wishes_stand_while_etcd_is_away,
        ),
        trial(
            "wishes_outlive_the_data_of_etcd",
            wishes_outlive_the_data_of_etcd,
        ),
        trial(
            "what_was_taken_back_does_not_return",
            what_was_taken_back_does_not_return,
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

async fn forgets(server: &mut Server) {
    server.kill();
    server.forget();
    server.restart().await;
}

async fn wishes_outlive_the_data_of_etcd() {
    let mut server = Server::start(Kind::Etcd).await;
    let (a, there) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    a.drain(&b(), true).await.unwrap();
    knows(&there, true).await;
    for _ in 0..2 {
        forgets(&mut server).await;
        let key = format!("{PREFIX}/drained/b");
        support::eventually("the wish is in etcd again", async || {
            // Nobody takes a task in between.
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
    // For those who come later, too.
    assert!(node(&server, "c").await.is_drained(&b()));
}

async fn what_was_taken_back_does_not_return() {
    let mut server = Server::start(Kind::Etcd).await;
    let url = server.url();
    let proxy = Proxy::to(url.trim_start_matches("http://")).await;
    let mut behind = settings(&server);
    behind.endpoints = vec![format!("http://{}", proxy.address())];
    let limits = Config::default().limits;
    let behind = EtcdServiceDiscovery::open(&behind, &limits).unwrap();
    let away: Arc<dyn ServiceDiscovery> = Arc::new(behind);
    away.announce(record("c")).await.unwrap();
    let (a, there) = (node(&server, "a").await, node(&server, "b").await);
    sees(&away, "a b c").await;
    a.drain(&b(), true).await.unwrap();
    knows(&away, true).await;

    // One that was cut off all the while comes back with the wish in mind.
    proxy.cut();
    forgets(&mut server).await;
    support::eventually("it is taken back where it was written again", async || {
        // As long as a node has not seen what etcd lost, it says so.
        a.drain(&b(), false).await.ok()
    })
    .await;
    knows(&there, false).await;
    assert!(away.is_drained(&b()));
    proxy.mend();
    knows(&away, false).await;
    sees(&away, "a b c").await;
    assert!(!a.is_drained(&b()) && !there.is_drained(&b()));
    let key = format!("{PREFIX}/drained/b");
    let got = admin(&server).await.get(key, None).await.unwrap();
    assert_eq!(got.count(), 0);
}
