//! The conformance suites, run against each backend, and what only a backend's server can show.

mod broker_redis;
mod etcd;
mod keyvalue_sqlite;
mod limits_redis;
mod local;
mod queue;
mod queue_redis;
mod queue_redis_bounds;
mod redis_arguments;
mod redis_bandwidth;
mod redis_clock;
mod redis_cluster;
mod redis_faults;
mod redis_flow;
mod redis_hand_off;
mod redis_memory;
mod redis_outages;
mod redis_reconcile;
mod redis_states;
mod redis_tls;
mod redis_unique;
mod redis_upgrade;
mod schedules_redis;
mod sqlite;
mod sqlite_disk;

pub use keyvalue_sqlite::{ROLE, play};

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = sqlite::trials();
    trials.extend(queue_redis::trials());
    trials.extend(queue_redis_bounds::trials());
    trials.extend(keyvalue_sqlite::trials());
    trials.extend(limits_redis::trials());
    trials.extend(local::trials());
    trials.extend(broker_redis::trials());
    trials.extend(redis_arguments::trials());
    trials.extend(redis_bandwidth::trials());
    trials.extend(redis_clock::trials());
    trials.extend(redis_cluster::trials());
    trials.extend(redis_faults::trials());
    trials.extend(redis_hand_off::trials());
    trials.extend(redis_memory::trials());
    trials.extend(redis_reconcile::trials());
    trials.extend(redis_outages::trials());
    trials.extend(redis_states::trials());
    trials.extend(redis_tls::trials());
    trials.extend(redis_unique::trials());
    trials.extend(redis_upgrade::trials());
    trials.extend(schedules_redis::trials());
    trials.extend(etcd::trials());
    trials
}
