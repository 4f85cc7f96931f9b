//! An etcd that is reached over TLS: whom the node trusts, and what it shows in turn.

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
        "over_tls_both_ends_show_who_they_are",
        over_tls_both_ends_show_who_they_are,
    )]
}

async fn over_tls_both_ends_show_who_they_are() {
    let authority = Authority::new("the CA");
    let files = authority.write_client();
    let file = |name: &str| files.path().join(name);
    let tls = Cell::new(0);
    let more = |dir: &Path, port| {
        authority.write_server(dir);
        tls.set(free_port());
        let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let url = format!("https://127.0.0.1:{}", tls.get());
        // Where it is asked for its health, which needs no certificate.
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
    node.announce(record("a")).await.unwrap();
    sees(&node, "a").await;
    for (ca, own, setting) in [
        ("other.pem", true, "discovery.ca_file"),
        ("ca.pem", false, "discovery.cert_file"),
    ] {
        let refused = with(ca, own).announce(record("b")).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(setting), "{refused}");
        assert_eq!(refused.matches("unavailable:").count(), 1, "{refused}");
    }
    sees(&node, "a").await;
}
