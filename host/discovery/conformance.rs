//! The conformance suite of service discoveries: the contract of `ServiceDiscovery`, one case for each rule.
//! A discovery outside this repository runs it in its own tests:
//!
//! ```ignore
//! for case in conformance::cases() {
//!     case.run(|| async { Arc::new(MyDiscovery::open().await) as Arc<dyn ServiceDiscovery> }).await;
//! }
//! ```
//!
//! A case panics if the discovery breaks the contract. Cases register services under names of their own, so
//! they can share a server. Each case needs a discovery through which no other case registers a node.

use super::{
    error::{Error, NODE_SERVICE},
    record::{MAX_SERVICE_BYTES, MAX_TTL, MIN_TTL, NodeRecord, PluginRecord, ServiceInfo},
    service_discovery::ServiceDiscovery,
};
use hostel_task::Name;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// A discovery under test.
pub type Discovery = Arc<dyn ServiceDiscovery>;

/// One rule of the contract.
pub type Case = hostel_runtime::conformance::Case<Discovery>;

macro_rules! cases {
    ($($name:ident,)*) => {
        const CASES: &[Case] = &[$(Case::new(
            stringify!($name),
            |discovery| Box::pin($name(discovery)),
        )),*];
    };
}

cases! {
    registered_services_are_found_by_name,
    registering_again_replaces_the_service,
    names_match_as_a_whole,
    a_service_expires_unless_it_is_renewed,
    the_time_to_live_is_clamped,
    clients_cannot_register_nodes,
    the_size_of_a_service_is_limited,
    services_beyond_the_callers_limit_are_not_returned,
    a_node_is_listed_until_it_deregisters,
    a_drain_request_lasts_until_it_is_withdrawn,
    an_unknown_node_cannot_be_drained,
    changes_are_signalled,
}

/// Returns the cases, in no particular order.
pub fn cases() -> impl Iterator<Item = Case> {
    CASES.iter().copied()
}

async fn registered_services_are_found_by_name(discovery: Discovery) {
    let name = unique("web");
    assert_eq!(found(&discovery, &name).await, []);
    let mut second = service(&name, "b");
    second.metadata = [("zone".into(), "a/ä\n".into()), ("".into(), "".into())].into();
    let first = service(&name, "a");
    register(&discovery, &second).await;
    register(&discovery, &first).await;
    assert_eq!(found(&discovery, &name).await, [first, second], "by id");
}

async fn registering_again_replaces_the_service(discovery: Discovery) {
    let name = unique("web");
    let mut service = service(&name, "a");
    service.metadata = [("old".into(), "1".into())].into();
    register(&discovery, &service).await;
    service.address = "10.0.0.2:2".into();
    service.metadata = [("new".into(), "2".into())].into();
    register(&discovery, &service).await;
    assert_eq!(found(&discovery, &name).await, [service]);
}

async fn names_match_as_a_whole(discovery: Discovery) {
    let name = unique("web");
    let longer = Name::parse("service name", &format!("{name}2")).unwrap();
    register(&discovery, &service(&longer, "a")).await;
    assert_eq!(found(&discovery, &name).await, []);
}

async fn a_service_expires_unless_it_is_renewed(discovery: Discovery) {
    let name = unique("web");
    let mut short = service(&name, "short");
    short.ttl = Some(MIN_TTL);
    let started = Instant::now();
    let granted = register(&discovery, &short).await;
    register(&discovery, &service(&name, "long")).await;
    let both = found(&discovery, &name).await.len();
    assert!(both == 2 || started.elapsed() >= granted);
    // A server may remove expired services with a delay.
    while started.elapsed() < granted + Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let alive = found(&discovery, &name).await;
        if alive.len() == 1 {
            assert_eq!(alive[0].id.as_str(), "long");
            assert!(started.elapsed() >= granted, "not before its time");
            return;
        }
    }
    panic!("the service still exists five seconds after its time to live");
}

async fn the_time_to_live_is_clamped(discovery: Discovery) {
    let name = unique("web");
    for ttl in [Duration::ZERO, Duration::MAX, Duration::from_secs(30)] {
        let mut service = service(&name, "a");
        service.ttl = Some(ttl);
        let granted = register(&discovery, &service).await;
        assert!((MIN_TTL..=MAX_TTL).contains(&granted), "{granted:?}");
        assert!(granted >= ttl.min(MAX_TTL), "no shorter than requested");
        assert_eq!(found(&discovery, &name).await.len(), 1);
    }
}

async fn clients_cannot_register_nodes(discovery: Discovery) {
    let name = Name::parse("service name", NODE_SERVICE).unwrap();
    let refused = discovery.register_service(service(&name, "a")).await;
    assert!(matches!(refused, Err(Error::Reserved)), "{refused:?}");
}

async fn the_size_of_a_service_is_limited(discovery: Discovery) {
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

async fn services_beyond_the_callers_limit_are_not_returned(discovery: Discovery) {
    let name = unique("web");
    let mut services = ["a", "b", "c"].map(|id| service(&name, id));
    for (service, length) in services.iter_mut().zip([100, 200, 300]) {
        service.address = "x".repeat(length);
        service.metadata = [("zone".into(), "eu".into())].into();
        register(&discovery, service).await;
    }
    let total = services.iter().map(ServiceInfo::size).sum();
    let all = discovery.discover_service(&name, total).await.unwrap();
    assert_eq!(all.len(), services.len());
    for limit in [0, 150, total - 1] {
        let refused = discovery.discover_service(&name, limit).await;
        assert!(
            matches!(refused, Err(Error::ResponseTooLarge { limit: of }) if of == limit),
            "{refused:?}"
        );
    }
    let nothing = discovery.discover_service(&unique("none"), 0).await;
    assert_eq!(nothing.unwrap(), []);

    // The same for the nodes.
    let nodes = Name::parse("service name", NODE_SERVICE).unwrap();
    let record = NodeRecord::new(unique("node"), "10.0.0.1:1");
    discovery.register_node(record).await.unwrap();
    let refused = discovery.discover_service(&nodes, 1).await;
    let is_refused = matches!(refused, Err(Error::ResponseTooLarge { limit: 1 }));
    assert!(is_refused, "{refused:?}");
    discovery.deregister_node().await.unwrap();
}

async fn a_node_is_listed_until_it_deregisters(discovery: Discovery) {
    let nodes = Name::parse("service name", NODE_SERVICE).unwrap();
    let id = unique("node");
    let mut record = NodeRecord::new(id.clone(), "10.0.0.1:50051");
    discovery.register_node(record.clone()).await.unwrap();
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
    discovery.register_node(record.clone()).await.unwrap();
    eventually("the node is listed as last registered", || {
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

    discovery.deregister_node().await.unwrap();
    eventually("the node is not listed", || {
        discovery.nodes().iter().all(|node| node.id != id)
    })
    .await;
    let services = found(&discovery, &nodes).await;
    assert!(services.iter().all(|service| service.id != id));
    discovery.deregister_node().await.unwrap();
}

async fn a_drain_request_lasts_until_it_is_withdrawn(discovery: Discovery) {
    let record = NodeRecord::new(unique("node"), "10.0.0.1:1");
    let id = &record.id;
    discovery.register_node(record.clone()).await.unwrap();
    assert!(!discovery.is_drained(id));
    discovery.drain(id, false).await.unwrap();
    for _ in 0..2 {
        discovery.drain(id, true).await.unwrap();
        assert!(discovery.is_drained(id), "at once");
    }
    assert!(discovery.drained().contains(id));
    assert!(discovery.nodes().contains(&record), "and is still listed");
    discovery.deregister_node().await.unwrap();
    assert!(discovery.is_drained(id), "also while it is not registered");
    discovery.register_node(record.clone()).await.unwrap();
    assert!(discovery.is_drained(id), "and when it registers again");
    for _ in 0..2 {
        discovery.drain(id, false).await.unwrap();
        assert!(!discovery.is_drained(id));
    }
    discovery.drain(id, true).await.unwrap();
    discovery.deregister_node().await.unwrap();
    discovery.drain(id, false).await.unwrap();
    assert!(
        !discovery.is_drained(id),
        "undrained while it is not registered"
    );
}

async fn an_unknown_node_cannot_be_drained(discovery: Discovery) {
    let record = NodeRecord::new(unique("node"), "10.0.0.1:1");
    discovery.register_node(record.clone()).await.unwrap();
    let unknown = unique("unknown");
    for drained in [true, false] {
        let refused = discovery.drain(&unknown, drained).await.unwrap_err();
        let text = refused.to_string();
        let Error::UnknownNode { node, known } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(node, unknown);
        assert!(known.contains(&record.id), "{known:?}");
        assert!(text.contains(unknown.as_str()) && text.contains(record.id.as_str()));
    }
    assert!(!discovery.is_drained(&unknown));
    discovery.deregister_node().await.unwrap();
}

async fn changes_are_signalled(discovery: Discovery) {
    let record = NodeRecord::new(unique("node"), "10.0.0.1:1");
    let mut changed = discovery.changed();
    for step in 0..4 {
        changed.mark_unchanged();
        match step {
            0 => discovery.register_node(record.clone()).await.unwrap(),
            1 => discovery.drain(&record.id, true).await.unwrap(),
            2 => discovery.drain(&record.id, false).await.unwrap(),
            _ => discovery.deregister_node().await.unwrap(),
        }
        let change = tokio::time::timeout(Duration::from_secs(60), changed.changed()).await;
        change
            .unwrap_or_else(|_| panic!("step {step} is not signalled"))
            .unwrap();
    }
}

/// Returns a name that no other case and no other run uses.
pub fn unique(prefix: &str) -> Name {
    let name = format!("{prefix}-{:016x}", fastrand::u64(..));
    Name::parse("name", &name).unwrap()
}

/// Returns a service without metadata.
pub fn service(name: &Name, id: &str) -> ServiceInfo {
    ServiceInfo {
        id: Name::parse("service id", id).unwrap(),
        name: name.clone(),
        address: "10.0.0.1:1".into(),
        metadata: BTreeMap::new(),
        ttl: None,
    }
}

/// Registers a service, and returns the time to live granted.
pub async fn register(discovery: &Discovery, service: &ServiceInfo) -> Duration {
    discovery.register_service(service.clone()).await.unwrap()
}

/// Returns the services of a name, without their times to live, which a backend need not keep.
pub async fn found(discovery: &Discovery, name: &Name) -> Vec<ServiceInfo> {
    let mut found = discovery.discover_service(name, usize::MAX).await.unwrap();
    for service in &mut found {
        service.ttl = None;
    }
    found
}

/// Waits until a condition holds. Panics if it does not.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("after five seconds this does not hold: {what}");
}
