//! TLS: encryption, certificates, and their replacement in a running node.

use super::*;
use hostel::client;
use tokio::{io::AsyncReadExt, net::TcpStream};

pub async fn listening_beyond_loopback_needs_tls_and_tokens() {
    let authority = Authority::new("authority");
    for (settings, lacks) in [
        (TLS, "needs [auth] as well"),
        (TOKENS, "needs [tls] as well"),
    ] {
        let mut node = prepared(settings, &authority);
        node.set_listen("0.0.0.0:0");
        node.spawn();
        assert_eq!(node.wait_for_exit().await.code(), Some(2));
        assert!(node.log().contains(lacks), "{}", node.log());
        assert!(!node.path("data").exists());
    }
    let mut node = prepared(&[TLS, TOKENS].concat(), &authority);
    node.set_listen("0.0.0.0:0");
    let node = node.started().await;
    let options = authority.trusted();
    assert_works(&mut connect(&node, options.clone().token(TOKEN)).await.unwrap()).await;
    let mut stranger = connect(&node, options).await.unwrap();
    assert_unauthenticated(stranger.list_plugins().await);
    // A plain connection fails before the token is checked.
    let mut plain = DistributedClient::connect_lazy(&address(&node)).unwrap();
    plain = plain.with_retry_timeout(Duration::ZERO);
    assert_ne!(
        plain.list_plugins().await.unwrap_err().code(),
        Code::Unauthenticated
    );
}

pub async fn untrusted_certificates_and_plain_text_are_rejected() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let node = prepared(TLS, &authority).started().await;
    assert_works(&mut connect(&node, authority.trusted()).await.unwrap()).await;
    assert_eq!(
        tls_error(connect(&node, other.trusted()).await),
        Some(TlsError::Untrusted)
    );
    // This machine does not trust the authority.
    let https = format!("https://{}", node.address());
    let trusted_here = DistributedClient::connect_with(&https, ClientOptions::new()).await;
    match trusted_here {
        Err(Error::Unreachable { tls, .. }) => assert_eq!(tls, Some(TlsError::Untrusted)),
        // A machine may trust no authority at all.
        Err(Error::Tls { .. }) => {}
        other => panic!("{other:?}"),
    }

    let named = |name: &str| authority.trusted().domain_name(name);
    assert_works(&mut connect(&node, named("node.example")).await.unwrap()).await;
    let elsewhere = connect(&node, named("other.example")).await;
    assert_eq!(tls_error(elsewhere), Some(TlsError::WrongName));

    // A client without TLS. The reason does not always reach it.
    let plain = DistributedClient::connect_lazy(node.address()).unwrap();
    let refused = plain
        .with_retry_timeout(Duration::ZERO)
        .list_plugins()
        .await;
    assert_lost(&refused.unwrap_err(), TlsError::TlsRequired);

    // A CA certificate as the node's own, such as the self-signed ones of openssl.
    let itself = Authority::new("127.0.0.1");
    let self_signed = prepared(TLS, &itself);
    itself.own().write(&self_signed.path(""), "node");
    let self_signed = self_signed.started().await;
    let reason = tls_error(connect(&self_signed, itself.trusted()).await);
    assert_eq!(reason, Some(TlsError::CaCertificate));

    // A client with TLS and a node without.
    let plain = Node::start(&[], "").await;
    let wants = connect(&plain, authority.trusted()).await;
    assert_eq!(tls_error(wants), Some(TlsError::NotTls));
}

pub async fn client_certificates_are_required() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let settings = format!("{TLS}client_ca_file = \"clients.pem\"\n");
    let node = prepared(&settings, &authority);
    fs::write(node.path("clients.pem"), &clients.pem).unwrap();
    let node = node.started().await;
    let with_certificate =
        |signed: Signed| authority.trusted().identity_pem(signed.cert, signed.key);
    assert_works(
        &mut connect(&node, with_certificate(clients.client("ann")))
            .await
            .unwrap(),
    )
    .await;

    // With TLS 1.3, a client is rejected when it sends its first request.
    for (options, why) in [
        (authority.trusted(), TlsError::CertificateRequired),
        (
            with_certificate(authority.client("ann")),
            TlsError::CertificateRejected,
        ),
    ] {
        match connect(&node, options).await {
            Ok(mut client) => assert_lost(&client.list_plugins().await.unwrap_err(), why),
            refused => assert!(tls_error(refused).is_none_or(|reason| reason == why)),
        }
    }
    assert_works(
        &mut connect(&node, with_certificate(clients.client("bob")))
            .await
            .unwrap(),
    )
    .await;
}

/// Checks that the connection was lost, with this reason if one reached the client.
fn assert_lost(status: &Status, why: TlsError) {
    assert!(client::is_connection_lost(status), "{status:?}");
    let reason = TlsError::find_in(status);
    assert!(reason.is_none() || reason == Some(why), "{status:?}");
}

pub async fn renewed_certificates_serve_without_a_restart() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let node = prepared(TLS, &first).started().await;
    let mut open = connect(&node, first.trusted()).await.unwrap();
    assert_works(&mut open).await;

    let broken_logged = || {
        node.log()
            .matches("the certificates from before stay in force")
            .count()
    };
    fs::write(node.path("node.pem"), "no certificate").unwrap();
    eventually("the broken file is reported", async || {
        (broken_logged() == 1).then_some(())
    })
    .await;
    assert!(node.log().contains("tls.cert_file: /"), "{}", node.log());
    assert_works(&mut connect(&node, first.trusted()).await.unwrap()).await;

    // The two files change one after the other and are used once they match.
    node_certificate(&second).write(&node.path(""), "node");
    let mut fresh = eventually("the new certificate is shown", async || {
        connect(&node, second.trusted()).await.ok()
    })
    .await;
    assert_works(&mut fresh).await;
    assert_eq!(
        tls_error(connect(&node, first.trusted()).await),
        Some(TlsError::Untrusted)
    );
    // This client could not reconnect, so it uses its old connection.
    assert_works(&mut open).await;
    // Reported once, and possibly once more for the certificate without its key.
    assert!(broken_logged() <= 2, "{}", node.log());
    assert!(!node.log().contains("PRIVATE KEY"));
}

pub async fn an_expiring_certificate_is_reported() {
    let authority = Authority::new("authority");
    let node = prepared(TLS, &authority);
    let names = ["127.0.0.1", "localhost"];
    authority
        .node_for_days(&names, -1)
        .write(&node.path(""), "node");
    let node = node.started().await;
    let words = "tls.cert_file: the certificate in /";
    assert!(node.log().contains(words), "{}", node.log());
    let words = "has expired, and clients refuse it";
    assert_eq!(node.log().matches(words).count(), 1, "{}", node.log());
    for (days, words) in [
        (1, "expires within a day"),
        (5, "expires within 7 days"),
        (29, "expires within 30 days"),
    ] {
        let signed = authority.node_for_days(&names, days);
        signed.write(&node.path(""), "node");
        let what = format!("the log has {words:?}");
        eventually(&what, async || node.log().contains(words).then_some(())).await;
    }
    assert_works(&mut connect(&node, authority.trusted()).await.unwrap()).await;
    assert_eq!(node.log().matches(words).count(), 1, "{}", node.log());
}

pub async fn silent_handshakes_time_out() {
    let authority = Authority::new("authority");
    let settings = format!("{TLS}[limits]\nmax_connections = 4\n");
    let node = prepared(&settings, &authority).started().await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(node.address()).await.unwrap());
    }
    assert_works(&mut connect(&node, authority.trusted()).await.unwrap()).await;
    // The node closes them after the handshake timeout.
    let mut rest = Vec::new();
    for stream in &mut silent {
        assert_eq!(stream.read_to_end(&mut rest).await.unwrap_or(0), 0);
    }
    assert_works(&mut connect(&node, authority.trusted()).await.unwrap()).await;
}

pub async fn broken_certificate_files_are_named() {
    let authority = Authority::new("authority");
    let log_of = async |break_it: &dyn Fn(&Node)| {
        let settings = format!("{TLS}client_ca_file = \"clients.pem\"\n{TOKENS}");
        let mut node = prepared(&settings, &authority);
        fs::write(node.path("clients.pem"), &authority.pem).unwrap();
        break_it(&node);
        node.spawn();
        assert_eq!(node.wait_for_exit().await.code(), Some(1), "{}", node.log());
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
            "tokens line 1: expected the SHA-256",
        ),
    ] {
        let log = log_of(&break_it).await;
        assert!(
            log.contains(setting) && log.contains(problem),
            "{setting}: {log}"
        );
        assert!(!log.contains("hostel_x"), "{log}");
    }
    let log = log_of(&|node: &Node| fs::remove_file(node.path("node.pem")).unwrap()).await;
    assert!(log.contains("node.pem cannot be read"), "{log}");
    let other = node_certificate(&authority).key;
    let log = log_of(&|node: &Node| fs::write(node.path("node.key"), &other).unwrap()).await;
    assert!(
        log.contains("is not the key of the certificate in /"),
        "{log}"
    );
}
