//! `[node]`

use super::super::{
    advertise::Advertise,
    group::{self, Field, Item, Section, settings},
    setting::{DAY, Defaulted, flag, millis, name, path, text, texts},
};
use hostel_task::Name;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

settings! {
    /// The node itself: its name, addresses and files.
    struct Node {
        /// Name of the node in the cluster. By default the node generates one and keeps it in data_dir.
        id: Option<Name> = name("node id").example("node-1");

        /// Labels of this node; a task may require one. `hostel nodes list` shows them.
        labels: Vec<Name> = texts(|given| {
            Name::parse("label", given).map_err(|error| error.to_string())
        })
        .map(sorted)
        .default(Vec::new())
        .example(vec!["eu", "gpu"]);

        /// IP address and port for gRPC. Port 0 selects a free port.
        listen: SocketAddr = text(parse_listen).default(SocketAddr::from(([127, 0, 0, 1], 50051)));

        /// Host name or IP address under which other nodes reach this one, with a port unless it is
        /// that of `listen`. The list of nodes contains it, and other nodes probe it if etcd has lost all
        /// nodes at once. By default it is the address of `listen`. If that is 0.0.0.0 or `[::]`
        /// and discovery.kind is "etcd", it is the local address on the route to etcd, or if etcd is on
        /// this machine, on the default route. The log names the address; if there is none, the node
        /// refuses to start.
        advertise: Option<Advertise> = text(Advertise::parse).example("node-1.example:50051");

        /// Allows `listen` to be an address other than loopback without `[tls]` and `[auth]`. Every
        /// client that reaches the port can then use the node.
        insecure: bool = flag().default(false);

        /// Directory of the queue, the key-value store, caches and the generated node id, readable by
        /// the node's user only. By default hostel in $XDG_DATA_HOME (~/.local/share), or ./hostel-data
        /// for a user without a home.
        data_dir: PathBuf = DataDir(
            path().default_with(|dirs| dirs.data.clone()).example("data"),
        );

        /// How long a stopping node waits for running tasks. Tasks that still run after that are
        /// released without having lost an attempt.
        drain: Duration = millis(0..=DAY).default(Duration::from_secs(30));
    }
}

fn parse_listen(given: &str) -> Result<SocketAddr, String> {
    given.parse().map_err(|_| {
        format!("expected an IP address with a port, such as 127.0.0.1:50051, found {given:?}")
    })
}

fn sorted(mut labels: Vec<Name>) -> Vec<Name> {
    labels.sort_unstable();
    labels.dedup();
    labels
}

/// `data_dir`, in which the default paths of other sections start.
struct DataDir(Defaulted<PathBuf>);

impl Field for DataDir {
    type Value = PathBuf;

    fn read(&self, field: &'static str, section: &mut Section<'_>) -> PathBuf {
        let dir = self.0.read(field, section);
        section.base_dirs().data.clone_from(&dir);
        dir
    }

    fn describe(
        &self,
        field: &'static str,
        doc: &'static [&'static str],
        value: Option<&PathBuf>,
        items: &mut Vec<Item>,
    ) {
        self.0.describe(field, doc, value, items);
    }
}
