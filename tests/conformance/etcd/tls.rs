//! An etcd over TLS: the CA that a node trusts, and its own certificate.

use super::{PREFIX, record, sees, trial};
use crate::support::{
    certificates::Authority,
    servers::{Kind, Server, free_port},
};
use hostel::{
    config::{Config, Etcd},
    discovery::{EtcdServiceDiscovery, ServiceDiscovery},
};
use libtest_mimic::Trial;
use std::{cell::Cell, path::Path, sync::Arc};

pub fn trials() -> Vec<Trial> {
    vec![trial(
        "both_ends_authenticate_over_tls",
        both_ends_authenticate_over_tls,
    )]
}

async fn both_ends_authenticate_over_tls() {
    let authority = Authority::new("the CA");
    let files = authority.write_client();
    let file = |name: &str| files.path().join(name);
    let tls = Cell::new(0);
    let more = |dir: &Path, port| {
        authority.write_server(dir);
        tls.set(free_port());
        let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let url = format!("https://127.0.0.1:{}", tls.get());
        // For health checks, which need no certificate.
        let health = format!("http://127.0.0.1:{port}");
        let words = [
            ("--listen-client-urls", url.clone()),
            ("--advertise-client-urls", url),
            ("--listen-metrics-urls", health),
            ("--cert-file", file("server.pem")),
            ("--key-file", file("server.key")),
            ("--trusted-ca-file", file("ca.pem")),
        ];
        let words = words.into_iter();
        let words = words.flat_map(|(flag, value)| [flag.to_owned(), value]);
        words.chain(["--client-cert-auth".to_owned()]).collect()
    };
    let _server = Server::start_with(Kind::Etcd, more).await;
    let url = format!("https://127.0.0.1:{}", tls.get());
    let limits = Config::default().limits;
    let with = |ca: &str, own: bool| -> Arc<dyn ServiceDiscovery> {
        let mut settings = Etcd::at(&[&url], PREFIX);
        settings.ca_file = Some(file(ca));
        settings.cert_file = own.then(|| file("node.pem"));
        settings.key_file = own.then(|| file("node.key"));
        Arc::new(EtcdServiceDiscovery::open(&settings, &limits).unwrap())
    };
    let node = with("ca.pem", true);
    node.register_node(record("a")).await.unwrap();
    sees(&node, "a").await;
    for (ca, own, setting) in [
        ("other.pem", true, "discovery.ca_file"),
        ("ca.pem", false, "discovery.cert_file"),
    ] {
        let refused = with(ca, own).register_node(record("b")).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(setting), "{refused}");
        assert_eq!(refused.matches("unavailable:").count(), 1, "{refused}");
    }
    sees(&node, "a").await;
}
