//! One node and the services registered with it, in memory. After a restart services register
//! again, as they do to stay alive, and the node is not drained.

use super::{Error, NODE_SERVICE, NodeRecord, ServiceDiscovery, ServiceInfo};
use async_trait::async_trait;
use hostel_task::Name;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How often registering looks for services that nobody asks for any more.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Knows this node alone.
pub struct LocalDiscovery {
    services: Mutex<Services>,
    nodes: Mutex<Arc<[NodeRecord]>>,
    drained: Mutex<Arc<BTreeSet<Name>>>,
    changed: watch::Sender<u64>,
    default_ttl: Duration,
}

impl LocalDiscovery {
    /// Uses `max_services` and `service_ttl`.
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
        *lock(&self.nodes) = nodes;
        self.changed.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl ServiceDiscovery for LocalDiscovery {
    async fn register_service(&self, service: ServiceInfo) -> Result<Duration, Error> {
        service.check()?;
        let ttl = service.granted_ttl(self.default_ttl);
        lock(&self.services).keep(service, ttl, Instant::now())?;
        Ok(ttl)
    }

    async fn discover_service(&self, name: &Name) -> Result<Vec<ServiceInfo>, Error> {
        if name.as_str() == NODE_SERVICE {
            let nodes = self.nodes();
            return Ok(nodes.iter().map(|node| node.as_service(name)).collect());
        }
        Ok(lock(&self.services).alive(name, Instant::now()))
    }

    async fn announce(&self, node: NodeRecord) -> Result<(), Error> {
        self.set_nodes(Arc::new([node]));
        Ok(())
    }

    async fn withdraw(&self) -> Result<(), Error> {
        self.set_nodes(Arc::new([]));
        Ok(())
    }

    fn nodes(&self) -> Arc<[NodeRecord]> {
        lock(&self.nodes).clone()
    }

    async fn drain(&self, node: &Name, drained: bool) -> Result<(), Error> {
        Error::unless_known(node, &self.nodes(), &self.drained())?;
        {
            let mut kept = lock(&self.drained);
            let all = Arc::make_mut(&mut kept);
            match drained {
                true => all.insert(node.clone()),
                false => all.remove(node),
            };
        }
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    fn drained(&self) -> Arc<BTreeSet<Name>> {
        lock(&self.drained).clone()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn cluster_id(&self) -> &str {
        "local"
    }
}

/// Every change under these locks is whole or not at all, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registered services by name and id. The caller brings the time.
struct Services {
    by_name: BTreeMap<Name, BTreeMap<Name, Kept>>,
    /// How many there are, dead ones included until they are swept.
    count: usize,
    limit: usize,
    next_sweep: Instant,
}

struct Kept {
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

    fn keep(&mut self, service: ServiceInfo, ttl: Duration, now: Instant) -> Result<(), Error> {
        // Before a refusal too: the dead take nobody's place.
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
            .insert(service.id.clone(), Kept { service, until })
            .is_none()
        {
            self.count += 1;
        }
        Ok(())
    }

    fn alive(&self, name: &Name, now: Instant) -> Vec<ServiceInfo> {
        let kept = self
            .by_name
            .get(name)
            .into_iter()
            .flat_map(BTreeMap::values);
        let alive = kept.filter(|kept| now < kept.until);
        alive.map(|kept| kept.service.clone()).collect()
    }

    fn sweep(&mut self, now: Instant) {
        self.by_name.retain(|_, ids| {
            ids.retain(|_, kept| now < kept.until);
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
        let alive = |services: &Services, after| services.alive(&name("web"), start + after).len();
        services.keep(service("web", "a"), SECOND, start).unwrap();
        assert_eq!(alive(&services, SECOND / 2), 1);
        assert_eq!(alive(&services, SECOND), 0);
        services
            .keep(service("web", "a"), SECOND, start + SECOND / 2)
            .unwrap();
        assert_eq!(alive(&services, SECOND), 1);
        assert_eq!(services.count, 1);
    }

    #[test]
    fn the_dead_take_nobodys_place_and_do_not_stay() {
        let start = Instant::now();
        let mut services = Services::new(2, start);
        services.keep(service("web", "a"), SECOND, start).unwrap();
        services
            .keep(service("db", "a"), SECOND * 60, start)
            .unwrap();
        let full = services.keep(service("web", "b"), SECOND, start);
        assert!(matches!(full, Err(Error::Full { limit: 2 })));
        services.keep(service("web", "a"), SECOND, start).unwrap();
        services
            .keep(service("web", "b"), SECOND, start + SECOND)
            .unwrap();
        assert_eq!(services.count, 2);
        // Renewing another is enough to be rid of it, though nobody asks for its name again.
        services
            .keep(service("db", "a"), SECOND, start + SWEEP_EVERY)
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
