//! The backends of a node: its own files, or a Redis and an etcd. A scenario with a `Backend`
//! parameter is written once and runs on both; the name of its second trial ends with `_on_redis`.

use super::{
    node::Node,
    plugins::can_build,
    servers::{Kind, Server},
    trial_needing,
};
use libtest_mimic::Trial;
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A SQLite queue, local discovery and the local broker.
    Embedded,
    /// A queue and a broker in Redis, and discovery in etcd. Both servers belong to this node alone.
    Shared,
}

/// A Redis and an etcd that one or more nodes share.
pub struct Shared {
    pub etcd: Server,
    pub redis: Server,
}

/// Returns the two trials of a scenario that needs plugins built from source. The second trial is
/// ignored where redis-server or etcd is missing, except in CI.
pub fn on_both<F>(
    name: &str,
    scenario: impl FnOnce(Backend) -> F + Copy + Send + 'static,
) -> [Trial; 2]
where
    F: Future<Output = ()>,
{
    on_both_needing(name, can_build(), scenario)
}

/// Returns the two trials of a scenario that can only run if `possible`.
pub fn on_both_needing<F>(
    name: &str,
    possible: bool,
    scenario: impl FnOnce(Backend) -> F + Copy + Send + 'static,
) -> [Trial; 2]
where
    F: Future<Output = ()>,
{
    let embedded = move || scenario(Backend::Embedded);
    let shared = move || scenario(Backend::Shared);
    [
        trial_needing(name, possible, embedded),
        trial_needing(
            &format!("{name}_on_redis"),
            possible && Shared::is_installed(),
            shared,
        ),
    ]
}

impl Backend {
    /// `Node::start` on this backend.
    pub async fn start(self, plugins: &[&Path], settings: &str) -> Node {
        self.prepare(plugins, settings).await.started().await
    }

    /// `Node::prepare` on this backend.
    pub async fn prepare(self, plugins: &[&Path], settings: &str) -> Node {
        match self {
            Self::Embedded => Node::prepare(plugins, settings),
            Self::Shared => {
                // A killed Redis then loses nothing, as SQLite loses nothing.
                let shared = Shared::start_with(&["--appendfsync", "always"]).await;
                let all = shared.settings() + settings;
                Node::prepare(plugins, &all).with_servers(shared)
            }
        }
    }

    /// Returns the number of repetitions on this backend.
    pub fn times(self, embedded: usize, shared: usize) -> usize {
        match self {
            Self::Embedded => embedded,
            Self::Shared => shared,
        }
    }
}

impl Shared {
    /// Returns `true` if both servers are installed.
    pub fn is_installed() -> bool {
        Kind::Redis.is_installed() && Kind::Etcd.is_installed()
    }

    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts both servers with additional arguments for Redis.
    pub async fn start_with(redis: &'static [&'static str]) -> Self {
        let more = |_: &Path, _| redis.iter().map(|&word| word.to_owned()).collect();
        let redis = Server::start_with(Kind::Redis, more);
        let (etcd, redis) = tokio::join!(Server::start(Kind::Etcd), redis);
        Self { etcd, redis }
    }

    /// Kills both servers with SIGKILL and starts them again with their data.
    pub async fn restart(&mut self) {
        tokio::join!(self.etcd.restart(), self.redis.restart());
    }

    /// Returns the settings of a node with all shared backends on these servers.
    pub fn settings(&self) -> String {
        self.discovery_settings() + &self.queue_settings()
    }

    /// Returns the settings of a node with discovery and broker on these servers.
    pub fn discovery_settings(&self) -> String {
        let (etcd, redis) = (self.etcd.url(), self.redis.url());
        format!(
            "[discovery]\nkind = \"etcd\"\nendpoints = [\"{etcd}\"]\n\
             [broker]\nkind = \"redis\"\nurl = \"{redis}\"\n"
        )
    }

    /// Returns the settings of a node with its queue in this Redis.
    pub fn queue_settings(&self) -> String {
        format!(
            "[queue]\nkind = \"redis\"\nurl = \"{}\"\n",
            self.redis.url()
        )
    }
}
