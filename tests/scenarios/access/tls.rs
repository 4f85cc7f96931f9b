//! Encryption, certificates and their replacement while the node runs.

use super::*;
use hostel::client;
use tokio::{io::AsyncReadExt, net::TcpStream};

pub async fn beyond_loopback() {
    let authority = Authority::new("authority");
    for (settings, lacks) in [(TLS, "needs [auth] too"), (TOKENS, "needs [tls] too")] {
        let mut node = prepared(settings, &authority);
        node.listen("0.0.0.0:0");
        node.spawn();
        assert_eq!(node.ended().await.code(), Some(2));
        assert!(node.log().contains(lacks), "{}", node.log());
        assert!(!node.path("data").exists());
    }
    let mut node = prepared(&[TLS, TOKENS].concat(), &authority);
    node.listen("0.0.0.0:0");
    let node = node.started().await;
    let options = authority.trusted();
    works(&mut connect(&node, options.clone().token(TOKEN)).await.unwrap()).await;
    let mut stranger = connect(&node, options).await.unwrap();
    unauthenticated(stranger.list_plugins().await);
    // Without TLS nobody gets as far as that.
    let mut plain = DistributedClient::connect_lazy(&address(&node)).unwrap();
    plain = plain.with_patience(Duration::ZERO);
    assert_ne!(
        plain.list_plugins().await.unwrap_err().code(),
        Code::Unauthenticated
    );
}

pub async fn encrypted() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let node = prepared(TLS, &authority).started().await;
    works(&mut connect(&node, authority.trusted()).await.unwrap()).await;
    assert_eq!(
        trouble(connect(&node, other.trusted()).await),
        Some(Trouble::Untrusted)
    );
    // Nobody on this machine has heard of our authority.
    let https = format!("https://{}", node.address());
    let trusted_here = DistributedClient::connect_with(&https, ClientOptions::new()).await;
    match trusted_here {
        Err(Error::Unreachable { trouble, .. }) => assert_eq!(trouble, Some(Trouble::Untrusted)),
        // A machine may trust nobody at all.
        Err(Error::Tls { .. }) => {}
        other => panic!("{other:?}"),
    }

    let named = |name: &str| authority.trusted().domain_name(name);
    works(&mut connect(&node, named("node.example")).await.unwrap()).await;
    let elsewhere = connect(&node, named("other.example")).await;
    assert_eq!(trouble(elsewhere), Some(Trouble::OtherName));

    // A client that knows nothing of TLS. What it was told does not always get through to it.
    let plain = DistributedClient::connect_lazy(node.address()).unwrap();
    let refused = plain.with_patience(Duration::ZERO).list_plugins().await;
    assert_lost(&refused.unwrap_err(), Trouble::WantsTls);

    // A CA's certificate for the node's own, as openssl makes one that signs itself.
    let itself = Authority::new("127.0.0.1");
    let shows = prepared(TLS, &itself);
    itself.own().write(&shows.path(""), "node");
    let shows = shows.started().await;
    let told = trouble(connect(&shows, itself.trusted()).await);
    assert_eq!(told, Some(Trouble::Authority));

    // The other way round: a client that wants TLS of a node that has none.
    let plain = Node::start(&[], "").await;
    let wants = connect(&plain, authority.trusted()).await;
    assert_eq!(trouble(wants), Some(Trouble::NoTls));
}

pub async fn client_certificates() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let settings = format!("{TLS}client_ca_file = \"clients.pem\"\n");
    let node = prepared(&settings, &authority);
    fs::write(node.path("clients.pem"), &clients.pem).unwrap();
    let node = node.started().await;
    let showing = |signed: Signed| authority.trusted().identity_pem(signed.cert, signed.key);
    works(
        &mut connect(&node, showing(clients.client("ann")))
            .await
            .unwrap(),
    )
    .await;

    // With TLS 1.3 a client is turned away once it has begun to ask for something.
    for (options, why) in [
        (authority.trusted(), Trouble::CertificateWanted),
        (
            showing(authority.client("ann")),
            Trouble::CertificateRefused,
        ),
    ] {
        match connect(&node, options).await {
            Ok(mut client) => assert_lost(&client.list_plugins().await.unwrap_err(), why),
            refused => assert!(trouble(refused).is_none_or(|told| told == why)),
        }
    }
    works(
        &mut connect(&node, showing(clients.client("bob")))
            .await
            .unwrap(),
    )
    .await;
}

/// The connection was lost, for this reason if one got through.
fn assert_lost(status: &Status, why: Trouble) {
    assert!(client::is_lost(status), "{status:?}");
    let told = client::trouble(status);
    assert!(told.is_none() || told == Some(why), "{status:?}");
}

pub async fn replaced() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let node = prepared(TLS, &first).started().await;
    let mut open = connect(&node, first.trusted()).await.unwrap();
    works(&mut open).await;

    let broken_logged = || {
        node.log()
            .matches("the certificates from before stay in force")
            .count()
    };
    fs::write(node.path("node.pem"), "no certificate").unwrap();
    eventually("the broken file is told", async || {
        (broken_logged() == 1).then_some(())
    })
    .await;
    assert!(node.log().contains("tls.cert_file: /"), "{}", node.log());
    works(&mut connect(&node, first.trusted()).await.unwrap()).await;

    // The two files change one after the other, and are in force once they fit.
    here(&second).write(&node.path(""), "node");
    let mut fresh = eventually("the new certificate is shown", async || {
        connect(&node, second.trusted()).await.ok()
    })
    .await;
    works(&mut fresh).await;
    assert_eq!(
        trouble(connect(&node, first.trusted()).await),
        Some(Trouble::Untrusted)
    );
    // It could not connect again, so this is the connection from before.
    works(&mut open).await;
    // Told once, or once more for the certificate that was there before its key.
    assert!(broken_logged() <= 2, "{}", node.log());
    assert!(!node.log().contains("PRIVATE KEY"));
}

pub async fn ends_are_told() {
    let authority = Authority::new("authority");
    let node = prepared(TLS, &authority);
    let names = ["127.0.0.1", "localhost"];
    authority
        .node_for_days(&names, -1)
        .write(&node.path(""), "node");
    let node = node.started().await;
    let words = "tls.cert_file: the certificate in /";
    assert!(node.log().contains(words), "{}", node.log());
    let told = "has expired, and clients refuse it";
    assert_eq!(node.log().matches(told).count(), 1, "{}", node.log());
    for (days, words) in [
        (1, "expires within a day"),
        (5, "expires within 7 days"),
        (29, "expires within 30 days"),
    ] {
        let signed = authority.node_for_days(&names, days);
        signed.write(&node.path(""), "node");
        let what = format!("the log says {words:?}");
        eventually(&what, async || node.log().contains(words).then_some(())).await;
    }
    works(&mut connect(&node, authority.trusted()).await.unwrap()).await;
    assert_eq!(node.log().matches(told).count(), 1, "{}", node.log());
}

pub async fn silent_handshakes() {
    let authority = Authority::new("authority");
    let settings = format!("{TLS}[limits]\nmax_connections = 4\n");
    let node = prepared(&settings, &authority).started().await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(node.address()).await.unwrap());
    }
    works(&mut connect(&node, authority.trusted()).await.unwrap()).await;
    // In the end they are cut off, and not before the node has lost patience.
    let mut rest = Vec::new();
    for stream in &mut silent {
        assert_eq!(stream.read_to_end(&mut rest).await.unwrap_or(0), 0);
    }
    works(&mut connect(&node, authority.trusted()).await.unwrap()).await;
}

pub async fn broken_files() {
    let authority = Authority::new("authority");
    let told = async |break_it: &dyn Fn(&Node)| {
        let settings = format!("{TLS}client_ca_file = \"clients.pem\"\n{TOKENS}");
        let mut node = prepared(&settings, &authority);
        fs::write(node.path("clients.pem"), &authority.pem).unwrap();
        break_it(&node);
        node.spawn();
        assert_eq!(node.ended().await.code(), Some(1), "{}", node.log());
        node.log()
    };
    let write = |name: &'static str, text: &'static str| {
        move |node: &Node| fs::write(node.path(name), text).unwrap()
    };
    for (break_it, setting, problem) in [
        (
            write("node.pem", ""),
            "tls.cert_file: /",
            "node.pem holds no certificate in PEM",
        ),
        (
            write("node.key", "x"),
            "tls.key_file: /",
            "node.key holds no key in PEM",
        ),
        (
            write("clients.pem", "x"),
            "tls.client_ca_file: /",
            "holds no certificate",
        ),
        (
            write("tokens", "ci hostel_x"),
            "auth.tokens_file: /",
            "tokens line 1: the SHA-256",
        ),
    ] {
        let log = told(&break_it).await;
        assert!(
            log.contains(setting) && log.contains(problem),
            "{setting}: {log}"
        );
        assert!(!log.contains("hostel_x"), "{log}");
    }
    let log = told(&|node: &Node| fs::remove_file(node.path("node.pem")).unwrap()).await;
    assert!(log.contains("node.pem cannot be read"), "{log}");
    let other = here(&authority).key;
    let log = told(&|node: &Node| fs::write(node.path("node.key"), &other).unwrap()).await;
    assert!(
        log.contains("is not the key of the certificate in /"),
        "{log}"
    );
}
