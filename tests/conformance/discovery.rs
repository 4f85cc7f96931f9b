//! What every `ServiceDiscovery` does, as cases that any implementation runs. Each case uses
//! service names of its own, so that all can share one server; cases that announce a node need a
//! discovery that no other case announces through.

use hostel::{
    discovery::{
        Error, MAX_SERVICE_BYTES, MAX_TTL, MIN_TTL, NODE_SERVICE, NodeRecord, PluginRecord,
        ServiceDiscovery, ServiceInfo,
    },
    task::Name,
};
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

pub type Discovery = Arc<dyn ServiceDiscovery>;
pub type Case = fn(Discovery) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// All cases with their names.
pub const CASES: &[(&str, Case)] = &[
    ("what_is_registered_is_found_by_name", |discovery| {
        Box::pin(what_is_registered_is_found_by_name(discovery))
    }),
    ("registering_again_replaces", |discovery| {
        Box::pin(registering_again_replaces(discovery))
    }),
    ("names_are_whole_words", |discovery| {
        Box::pin(names_are_whole_words(discovery))
    }),
    ("a_service_that_is_not_renewed_ends", |discovery| {
        Box::pin(a_service_that_is_not_renewed_ends(discovery))
    }),
    ("the_time_to_live_has_bounds", |discovery| {
        Box::pin(the_time_to_live_has_bounds(discovery))
    }),
    ("clients_do_not_speak_for_nodes", |discovery| {
        Box::pin(clients_do_not_speak_for_nodes(discovery))
    }),
    ("a_service_has_a_size", |discovery| {
        Box::pin(a_service_has_a_size(discovery))
    }),
    ("a_node_is_seen_until_it_withdraws", |discovery| {
        Box::pin(a_node_is_seen_until_it_withdraws(discovery))
    }),
    ("a_drained_node_is_one_until_it_is_undrained", |discovery| {
        Box::pin(a_drained_node_is_one_until_it_is_undrained(discovery))
    }),
    ("who_is_unknown_is_not_drained", |discovery| {
        Box::pin(who_is_unknown_is_not_drained(discovery))
    }),
    ("changes_are_heard_of", |discovery| {
        Box::pin(changes_are_heard_of(discovery))
    }),
];

pub async fn what_is_registered_is_found_by_name(discovery: Discovery) {
    let name = unique("web");
    assert_eq!(found(&discovery, &name).await, []);
    let mut second = service(&name, "b");
    second.metadata = [("zone".into(), "a/ä\n".into()), ("".into(), "".into())].into();
    let first = service(&name, "a");
    register(&discovery, &second).await;
    register(&discovery, &first).await;
    assert_eq!(found(&discovery, &name).await, [first, second], "by id");
}

pub async fn registering_again_replaces(discovery: Discovery) {
    let name = unique("web");
    let mut service = service(&name, "a");
    service.metadata = [("old".into(), "1".into())].into();
    register(&discovery, &service).await;
    service.address = "10.0.0.2:2".into();
    service.metadata = [("new".into(), "2".into())].into();
    register(&discovery, &service).await;
    assert_eq!(found(&discovery, &name).await, [service]);
}

pub async fn names_are_whole_words(discovery: Discovery) {
    let name = unique("web");
    let longer = Name::parse("service name", &format!("{name}2")).unwrap();
    register(&discovery, &service(&longer, "a")).await;
    assert_eq!(found(&discovery, &name).await, []);
}

pub async fn a_service_that_is_not_renewed_ends(discovery: Discovery) {
    let name = unique("web");
    let mut short = service(&name, "short");
    short.ttl = Some(MIN_TTL);
    let started = Instant::now();
    let granted = register(&discovery, &short).await;
    register(&discovery, &service(&name, "long")).await;
    let both = found(&discovery, &name).await.len();
    assert!(both == 2 || started.elapsed() >= granted);
    // A server looks for what has ended when it finds the time.
    while started.elapsed() < granted + Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let alive = found(&discovery, &name).await;
        if alive.len() == 1 {
            assert_eq!(alive[0].id.as_str(), "long");
            assert!(started.elapsed() >= granted, "not before its time");
            return;
        }
    }
    panic!("it is still there five seconds after its time");
}

pub async fn the_time_to_live_has_bounds(discovery: Discovery) {
    let name = unique("web");
    for ttl in [Duration::ZERO, Duration::MAX, Duration::from_secs(30)] {
        let mut service = service(&name, "a");
        service.ttl = Some(ttl);
        let granted = register(&discovery, &service).await;
        assert!((MIN_TTL..=MAX_TTL).contains(&granted), "{granted:?}");
        assert!(granted >= ttl.min(MAX_TTL), "no shorter than asked for");
        assert_eq!(found(&discovery, &name).await.len(), 1);
    }
}

pub async fn clients_do_not_speak_for_nodes(discovery: Discovery) {
    let name = Name::parse("service name", NODE_SERVICE).unwrap();
    let refused = discovery.register_service(service(&name, "a")).await;
    assert!(matches!(refused, Err(Error::Reserved)), "{refused:?}");
}

pub async fn a_service_has_a_size(discovery: Discovery) {
    let name = unique("web");
    let mut service = service(&name, "a");
    service.address = "x".repeat(MAX_SERVICE_BYTES);
    register(&discovery, &service).await;
    service.address.push('x');
    let refused = discovery.register_service(service).await;
    let Err(Error::TooLarge { given, limit }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((given, limit), (MAX_SERVICE_BYTES + 1, MAX_SERVICE_BYTES));
}

pub async fn a_node_is_seen_until_it_withdraws(discovery: Discovery) {
    let nodes = Name::parse("service name", NODE_SERVICE).unwrap();
    let id = unique("node");
    let mut record = NodeRecord::new(id.clone(), "10.0.0.1:50051");
    discovery.announce(record.clone()).await.unwrap();
    record.version = "1.2.3".into();
    record.capacity = 7;
    record.labels = vec![unique("gpu"), unique("eu")];
    let task_types = [unique("count"), unique("echo")];
    record.task_types = task_types.clone().into();
    record.plugins = vec![PluginRecord {
        name: unique("echo"),
        version: "0.1.0".into(),
        sha256: "00".into(),
    }];
    discovery.announce(record.clone()).await.unwrap();
    eventually("the node is seen as last announced", || {
        discovery.nodes().contains(&record)
    })
    .await;

    let services = found(&discovery, &nodes).await;
    let service = services.iter().find(|service| service.id == id).unwrap();
    let types = format!("{},{}", task_types[0], task_types[1]);
    assert_eq!(service.address, record.address);
    assert_eq!(service.metadata["version"], "1.2.3");
    assert_eq!(service.metadata["task_types"], types);
    let labels = format!("{},{}", record.labels[0], record.labels[1]);
    assert_eq!(service.metadata["labels"], labels);
    assert_eq!(service.metadata["capacity"], "7");
    assert_eq!(
        service.metadata["plugins"],
        format!("{}@0.1.0", record.plugins[0].name)
    );

    discovery.withdraw().await.unwrap();
    eventually("the node is gone", || {
        discovery.nodes().iter().all(|node| node.id != id)
    })
    .await;
    let services = found(&discovery, &nodes).await;
    assert!(services.iter().all(|service| service.id != id));
    discovery.withdraw().await.unwrap();
}

pub async fn a_drained_node_is_one_until_it_is_undrained(discovery: Discovery) {
    let record = NodeRecord::new(unique("node"), "10.0.0.1:1");
    let id = &record.id;
    discovery.announce(record.clone()).await.unwrap();
    assert!(!discovery.is_drained(id));
    discovery.drain(id, false).await.unwrap();
    for _ in 0..2 {
        discovery.drain(id, true).await.unwrap();
        assert!(discovery.is_drained(id), "as soon as it is said");
    }
    assert!(discovery.drained().contains(id));
    assert!(
        discovery.nodes().contains(&record),
        "and is there all the same"
    );
    discovery.withdraw().await.unwrap();
    assert!(discovery.is_drained(id), "also while it is away");
    discovery.announce(record.clone()).await.unwrap();
    assert!(discovery.is_drained(id), "and when it comes back");
    for _ in 0..2 {
        discovery.drain(id, false).await.unwrap();
        assert!(!discovery.is_drained(id));
    }
    discovery.drain(id, true).await.unwrap();
    discovery.withdraw().await.unwrap();
    discovery.drain(id, false).await.unwrap();
    assert!(!discovery.is_drained(id), "undrained while it is away");
}

pub async fn who_is_unknown_is_not_drained(discovery: Discovery) {
    let record = NodeRecord::new(unique("node"), "10.0.0.1:1");
    discovery.announce(record.clone()).await.unwrap();
    let stranger = unique("stranger");
    for drained in [true, false] {
        let refused = discovery.drain(&stranger, drained).await.unwrap_err();
        let text = refused.to_string();
        let Error::UnknownNode { node, known } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(node, stranger);
        assert!(known.contains(&record.id), "{known:?}");
        assert!(text.contains(stranger.as_str()) && text.contains(record.id.as_str()));
    }
    assert!(!discovery.is_drained(&stranger));
    discovery.withdraw().await.unwrap();
}

pub async fn changes_are_heard_of(discovery: Discovery) {
    let record = NodeRecord::new(unique("node"), "10.0.0.1:1");
    let mut changed = discovery.changed();
    for step in 0..4 {
        changed.mark_unchanged();
        match step {
            0 => discovery.announce(record.clone()).await.unwrap(),
            1 => discovery.drain(&record.id, true).await.unwrap(),
            2 => discovery.drain(&record.id, false).await.unwrap(),
            _ => discovery.withdraw().await.unwrap(),
        }
        let heard = tokio::time::timeout(Duration::from_secs(60), changed.changed());
        let heard = heard.await.unwrap_or_else(|_| panic!("step {step}"));
        heard.unwrap();
    }
}

/// A name that no other case and no other run uses.
pub fn unique(prefix: &str) -> Name {
    let name = format!("{prefix}-{}", uuid::Uuid::now_v7());
    Name::parse("name", &name).unwrap()
}

pub fn service(name: &Name, id: &str) -> ServiceInfo {
    ServiceInfo {
        id: Name::parse("service id", id).unwrap(),
        name: name.clone(),
        address: "10.0.0.1:1".into(),
        metadata: BTreeMap::new(),
        ttl: None,
    }
}

pub async fn register(discovery: &Discovery, service: &ServiceInfo) -> Duration {
    discovery.register_service(service.clone()).await.unwrap()
}

/// What is found, without the time to live, which engines need not keep.
pub async fn found(discovery: &Discovery, name: &Name) -> Vec<ServiceInfo> {
    let mut found = discovery.discover_service(name).await.unwrap();
    for service in &mut found {
        service.ttl = None;
    }
    found
}

pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("five seconds later it still does not hold that {what}");
}
