//! What a node stands on: files of its own, or a Redis and an etcd. A scenario that takes a `Backend`
//! is written once and runs on both; the second of its trials has `_on_redis` at the end of its name.

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
    /// SQLite, and nobody else to find or to talk to.
    Embedded,
    /// Tasks and messages in a Redis, who is there in an etcd, both for this node alone.
    Shared,
}

/// A Redis and an etcd, for one node or several.
pub struct Shared {
    pub etcd: Server,
    pub redis: Server,
}

/// The trials of a scenario that needs plugins built from source: one for each backend. The second is
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

/// The same for a scenario that can only run where `possible`.
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
            possible && Shared::is_here(),
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
                // A Redis that dies then loses nothing, just as SQLite does not.
                let shared = Shared::start_with(&["--appendfsync", "always"]).await;
                let all = shared.settings() + settings;
                Node::prepare(plugins, &all).keeping(shared)
            }
        }
    }

    /// As often as the issue asks for; less often on the second backend, since the first has shown it.
    pub fn times(self, embedded: usize, shared: usize) -> usize {
        match self {
            Self::Embedded => embedded,
            Self::Shared => shared,
        }
    }
}

impl Shared {
    /// Whether both are installed.
    pub fn is_here() -> bool {
        Kind::Redis.is_here() && Kind::Etcd.is_here()
    }

    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further arguments for Redis.
    pub async fn start_with(redis: &'static [&'static str]) -> Self {
        let more = |_: &Path, _| redis.iter().map(|&word| word.to_owned()).collect();
        let redis = Server::start_with(Kind::Redis, more);
        let (etcd, redis) = tokio::join!(Server::start(Kind::Etcd), redis);
        Self { etcd, redis }
    }

    /// kill -9 of both, and started again with what they have on disk.
    pub async fn restart(&mut self) {
        tokio::join!(self.etcd.restart(), self.redis.restart());
    }

    /// Settings of a node that has everything here.
    pub fn settings(&self) -> String {
        self.presence() + &self.tasks()
    }

    /// Settings of a node that is found here and gets its messages here.
    pub fn presence(&self) -> String {
        let (etcd, redis) = (self.etcd.url(), self.redis.url());
        format!(
            "[discovery]\nkind = \"etcd\"\nendpoints = [\"{etcd}\"]\n\
             [broker]\nkind = \"redis\"\nurl = \"{redis}\"\n"
        )
    }

    /// Settings of a node that keeps its tasks here.
    pub fn tasks(&self) -> String {
        format!(
            "[queue]\nkind = \"redis\"\nurl = \"{}\"\n",
            self.redis.url()
        )
    }
}
