//! Handshakes that never complete: they are cut off in time, and hold up no other connection.

use super::*;
use crate::Config;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::{fs, io, net::SocketAddr, path::Path};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
};

const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(50);
/// Against a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// The security of a server with TLS, and a client that trusts its certificate.
fn tls(dir: &Path) -> (Arc<Security>, TlsConnector) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(dir.join("c"), cert.pem()).unwrap();
    fs::write(dir.join("k"), signing_key.serialize_pem()).unwrap();
    let text = format!(
        "[tls]\ncert_file = {:?}\nkey_file = {:?}",
        dir.join("c"),
        dir.join("k")
    );
    let config = Config::parse(&text, std::iter::empty()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(crate::pem::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let security = Security::open(&config).unwrap();
    (Arc::new(security), TlsConnector::from(Arc::new(client)))
}

/// Runs `client` against a server with this handshake timeout and `max` connections.
async fn served<F: Future>(
    handshake: Duration,
    max: usize,
    client: impl FnOnce(SocketAddr, TlsConnector) -> F,
) -> F::Output {
    let dir = tempfile::tempdir().unwrap();
    let (security, connector) = tls(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Config::default().limits;
    let shared = Shared {
        limit: ConnectionLimit::new(max),
        shares: Arc::new(Shares::new(&limits)),
        http: http2_settings(&limits),
        security,
        routes: Routes::default(),
        layers: tower::layer::util::Identity::new(),
        max_age: limits.max_connection_age,
        idle_timeout: limits.idle_timeout,
        handshake,
        end: CancellationToken::new(),
    };
    tokio::select! {
        () = shared.run(listener) => unreachable!(),
        done = tokio::time::timeout(PATIENCE, client(address, connector)) => done.unwrap(),
    }
}

async fn greet(address: SocketAddr, connector: &TlsConnector) -> io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, stream).await.map(drop)
}

#[tokio::test]
async fn a_silent_connection_is_cut_off() {
    let read = served(SOON, 8, async |address, _| {
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.read(&mut [0; 1]).await
    });
    assert_eq!(read.await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_silent_connection_holds_up_no_other() {
    served(NEVER, 8, async |address, connector| {
        let _silent = TcpStream::connect(address).await.unwrap();
        greet(address, &connector).await.unwrap();
        // Nor does one that speaks another protocol.
        let mut strange = TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut strange, b"GET / HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        greet(address, &connector).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_silent_connection_makes_room() {
    served(NEVER, 1, async |address, connector| {
        let mut silent = TcpStream::connect(address).await.unwrap();
        greet(address, &connector).await.unwrap();
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
    })
    .await;
}
