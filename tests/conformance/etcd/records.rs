//! Records and services in etcd: what nodes see, unreadable entries, limits and access.

use super::{PREFIX, TTL, admin, ids, key, node, record, sees, settings, trial};
use crate::support::{
    self,
    servers::{Kind, Server},
};
use hostel::{
    config::{Config, Secret},
    discovery::{
        Error, EtcdServiceDiscovery, ServiceDiscovery,
        conformance::{eventually, found, register, service, unique},
    },
};
use libtest_mimic::Trial;
use serde_json::Value;
use std::{sync::Arc, time::Instant};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "the_constructor_of_the_seed_serves",
            the_constructor_of_the_seed_serves,
        ),
        trial("nodes_see_each_other", nodes_see_each_other),
        trial(
            "unreadable_entries_are_skipped",
            unreadable_entries_are_skipped,
        ),
        trial(
            "records_of_many_megabytes_are_read",
            records_of_many_megabytes_are_read,
        ),
        trial(
            "the_number_of_services_is_limited",
            the_number_of_services_is_limited,
        ),
        trial(
            "a_refused_node_reports_what_to_check",
            a_refused_node_reports_what_to_check,
        ),
    ]
}

async fn the_constructor_of_the_seed_serves() {
    let server = Server::start(Kind::Etcd).await;
    let url = server.url();
    let seed = EtcdServiceDiscovery::new(&[&url], "/services")
        .await
        .unwrap();
    seed.register_node(record("a")).await.unwrap();
    let got = admin(&server).await.get("/services/nodes/a", None).await;
    assert_eq!(got.unwrap().count(), 1);
}

async fn records_of_many_megabytes_are_read() {
    let server = Server::start(Kind::Etcd).await;
    let watching = node(&server, "a").await;
    let mut admin = admin(&server).await;
    let written = admin.get(key("a"), None).await.unwrap();
    let mut record: Value = serde_json::from_slice(written.kvs()[0].value()).unwrap();
    // A field of a later version, so that each record is nearly as large as etcd takes.
    record["later"] = "x".repeat(1 << 20).into();
    let mut expected = vec!["a".to_owned()];
    for number in 10..30 {
        let id = format!("n{number}");
        record["id"] = id.clone().into();
        admin.put(key(&id), record.to_string(), None).await.unwrap();
        expected.push(id);
    }
    let expected = expected.join(" ");
    sees(&watching, &expected).await;
    sees(&node(&server, "z").await, &format!("{expected} z")).await;
}

async fn nodes_see_each_other() {
    let server = Server::start(Kind::Etcd).await;
    let (a, b) = (node(&server, "a").await, node(&server, "b").await);
    sees(&a, "a b").await;
    sees(&b, "a b").await;
    let mut more = record("b");
    more.task_types = [unique("echo")].into();
    b.register_node(more.clone()).await.unwrap();
    eventually("a sees the changed record of b", || {
        a.nodes().contains(&more)
    })
    .await;
    let name = unique("web");
    register(&b, &service(&name, "x")).await;
    support::eventually("a finds the service registered through b", async || {
        (found(&a, &name).await.len() == 1).then_some(())
    })
    .await;
    // Renewed meanwhile, so still there long after the time to live.
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(ids(&a), "a b");
    let since = Instant::now();
    b.deregister_node().await.unwrap();
    sees(&a, "a").await;
    assert!(since.elapsed() < TTL, "a deregistration is seen at once");
    // A dropped discovery does not deregister; its lease ends.
    let c = node(&server, "c").await;
    sees(&a, "a c").await;
    drop(c);
    sees(&a, "a").await;
}

async fn unreadable_entries_are_skipped() {
    let server = Server::start(Kind::Etcd).await;
    let mut admin = admin(&server).await;
    let unreadable = [
        (key("x"), "{"),
        (key("y"), "{\"id\":\"other\"}"),
        (format!("{PREFIX}/later/kind"), "?"),
        (format!("{PREFIX}/services/web/x"), "[]"),
        (format!("{PREFIX}2/nodes/z"), "?"),
    ];
    for (key, value) in unreadable {
        admin.put(key, value, None).await.unwrap();
    }
    let a = node(&server, "a").await;
    let b = node(&server, "b").await;
    admin.put(key("v"), "\u{0}", None).await.unwrap();
    sees(&a, "a b").await;
    sees(&b, "a b").await;
}

async fn the_number_of_services_is_limited() {
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

async fn a_refused_node_reports_what_to_check() {
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
    with("root").register_node(record("a")).await.unwrap();
    let refused = with("wrong").register_node(record("b")).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("discovery.password"), "{refused}");
    assert!(!refused.contains("wrong"), "{refused}");
}
