//! The discovery of a single node: the node and the services registered with it, in memory. After a
//! restart the services register again, as they do to stay alive, and the node is not drained.

use super::{
    error::{Error, NODE_SERVICE},
    record::{NodeRecord, ServiceInfo, check_known, copy_within, nodes_within},
    service_discovery::ServiceDiscovery,
};
use async_trait::async_trait;
use hostel_task::Name;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How often a registration removes services whose time to live is over.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Knows only this node.
pub struct LocalDiscovery {
    services: Mutex<Services>,
    nodes: Mutex<Arc<[NodeRecord]>>,
    drained: Mutex<Arc<BTreeSet<Name>>>,
    changed: watch::Sender<u64>,
    default_ttl: Duration,
}

impl LocalDiscovery {
    /// Creates a discovery with the limits `max_services` and `service_ttl`.
    pub fn new(limits: &hostel_config::Limits) -> Self {
        Self {
            services: Mutex::new(Services::new(limits.max_services, Instant::now())),
            nodes: Mutex::new(Arc::new([])),
            drained: Mutex::default(),
            changed: watch::Sender::new(0),
            default_ttl: limits.service_ttl,
        }
    }

    fn set_nodes(&self, nodes: Arc<[NodeRecord]>) {
        *self.nodes.lock() = nodes;
        self.changed.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl ServiceDiscovery for LocalDiscovery {
    async fn register_service(&self, service: ServiceInfo) -> Result<Duration, Error> {
        service.check()?;
        let ttl = service.granted_ttl(self.default_ttl);
        self.services
            .lock()
            .register(service, ttl, Instant::now())?;
        Ok(ttl)
    }

    async fn discover_service(
        &self,
        name: &Name,
        max_bytes: usize,
    ) -> Result<Vec<ServiceInfo>, Error> {
        if name.as_str() == NODE_SERVICE {
            return nodes_within(&self.nodes(), name, max_bytes);
        }
        let services = self.services.lock();
        copy_within(services.live(name, Instant::now()), max_bytes)
    }

    async fn register_node(&self, node: NodeRecord) -> Result<(), Error> {
        self.set_nodes(Arc::new([node]));
        Ok(())
    }

    async fn deregister_node(&self) -> Result<(), Error> {
        self.set_nodes(Arc::new([]));
        Ok(())
    }

    fn nodes(&self) -> Arc<[NodeRecord]> {
        self.nodes.lock().clone()
    }

    async fn drain(&self, node: &Name, drained: bool) -> Result<(), Error> {
        check_known(node, &self.nodes(), &self.drained())?;
        {
            let mut guard = self.drained.lock();
            let requests = Arc::make_mut(&mut guard);
            if drained {
                requests.insert(node.clone());
            } else {
                requests.remove(node);
            }
        }
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    fn drained(&self) -> Arc<BTreeSet<Name>> {
        self.drained.lock().clone()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn cluster_id(&self) -> &str {
        "local"
    }
}

/// Registered services by name and id. Callers pass the time.
struct Services {
    by_name: BTreeMap<Name, BTreeMap<Name, Registered>>,
    /// How many services there are, including expired ones that were not removed yet.
    count: usize,
    limit: usize,
    next_sweep: Instant,
}

struct Registered {
    service: ServiceInfo,
    until: Instant,
}

impl Services {
    fn new(limit: usize, now: Instant) -> Self {
        Self {
            by_name: BTreeMap::new(),
            count: 0,
            limit,
            next_sweep: now + SWEEP_EVERY,
        }
    }

    fn register(&mut self, service: ServiceInfo, ttl: Duration, now: Instant) -> Result<(), Error> {
        // Also before a refusal: expired services take no place.
        if now >= self.next_sweep || self.count >= self.limit {
            self.sweep(now);
        }
        let same_name = self.by_name.get(&service.name);
        let renewed = same_name.is_some_and(|ids| ids.contains_key(&service.id));
        if !renewed && self.count >= self.limit {
            return Err(Error::Full { limit: self.limit });
        }
        let ids = self.by_name.entry(service.name.clone()).or_default();
        let until = now + ttl;
        if ids
            .insert(service.id.clone(), Registered { service, until })
            .is_none()
        {
            self.count += 1;
        }
        Ok(())
    }

    fn live(&self, name: &Name, now: Instant) -> impl Iterator<Item = &ServiceInfo> + Clone {
        let ids = self.by_name.get(name).into_iter();
        ids.flat_map(BTreeMap::values)
            .filter(move |registered| now < registered.until)
            .map(|registered| &registered.service)
    }

    fn sweep(&mut self, now: Instant) {
        self.by_name.retain(|_, ids| {
            ids.retain(|_, registered| now < registered.until);
            !ids.is_empty()
        });
        self.count = self.by_name.values().map(BTreeMap::len).sum();
        self.next_sweep = now + SWEEP_EVERY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn name(text: &str) -> Name {
        Name::parse("service", text).unwrap()
    }

    fn service(service: &str, id: &str) -> ServiceInfo {
        ServiceInfo {
            id: name(id),
            name: name(service),
            address: "127.0.0.1:1".into(),
            metadata: BTreeMap::new(),
            ttl: None,
        }
    }

    #[test]
    fn a_service_lives_as_long_as_it_is_renewed() {
        let start = Instant::now();
        let mut services = Services::new(9, start);
        let live = |services: &Services, after| services.live(&name("web"), start + after).count();
        services
            .register(service("web", "a"), SECOND, start)
            .unwrap();
        assert_eq!(live(&services, SECOND / 2), 1);
        assert_eq!(live(&services, SECOND), 0);
        services
            .register(service("web", "a"), SECOND, start + SECOND / 2)
            .unwrap();
        assert_eq!(live(&services, SECOND), 1);
        assert_eq!(services.count, 1);
    }

    #[test]
    fn expired_services_take_no_place_and_are_removed() {
        let start = Instant::now();
        let mut services = Services::new(2, start);
        services
            .register(service("web", "a"), SECOND, start)
            .unwrap();
        services
            .register(service("db", "a"), SECOND * 60, start)
            .unwrap();
        let full = services.register(service("web", "b"), SECOND, start);
        assert!(matches!(full, Err(Error::Full { limit: 2 })));
        services
            .register(service("web", "a"), SECOND, start)
            .unwrap();
        services
            .register(service("web", "b"), SECOND, start + SECOND)
            .unwrap();
        assert_eq!(services.count, 2);
        // Renewing one service removes the expired others, without a lookup of their names.
        services
            .register(service("db", "a"), SECOND, start + SWEEP_EVERY)
            .unwrap();
        assert_eq!((services.count, services.by_name.len()), (1, 1));
    }

    #[tokio::test]
    async fn limits_come_from_the_configuration() {
        let mut limits = hostel_config::Config::default().limits;
        limits.max_services = 0;
        limits.service_ttl = SECOND * 7;
        let discovery = LocalDiscovery::new(&limits);
        let refused = discovery.register_service(service("web", "a")).await;
        assert!(matches!(refused, Err(Error::Full { limit: 0 })));
        limits.max_services = 1;
        let discovery = LocalDiscovery::new(&limits);
        let granted = discovery.register_service(service("web", "a")).await;
        assert_eq!(granted.unwrap(), SECOND * 7);
    }
}
