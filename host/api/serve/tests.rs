//! Handshakes that never end: cut off in time, in nobody's way until then.

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

/// A door with TLS, and a client that trusts it.
fn door(dir: &Path) -> (Arc<Access>, TlsConnector) {
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
    let access = Access::open(&config).unwrap();
    (Arc::new(access), TlsConnector::from(Arc::new(client)))
}

/// What becomes of `client` at a server that gives handshakes this time and has room for `max`.
async fn served<F: Future>(
    handshake: Duration,
    max: usize,
    client: impl FnOnce(SocketAddr, TlsConnector) -> F,
) -> F::Output {
    let dir = tempfile::tempdir().unwrap();
    let (access, connector) = door(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Config::default().limits;
    let shared = Shared {
        connections: Connections::new(max),
        shares: Arc::new(Shares::new(&limits)),
        http: protocol(&limits),
        access,
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
async fn one_that_says_nothing_is_cut_off() {
    let read = served(SOON, 8, async |address, _| {
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.read(&mut [0; 1]).await
    });
    assert_eq!(read.await.unwrap_or(0), 0);
}

#[tokio::test]
async fn one_that_says_nothing_is_in_nobodys_way() {
    served(NEVER, 8, async |address, connector| {
        let _silent = TcpStream::connect(address).await.unwrap();
        greet(address, &connector).await.unwrap();
        // Nor is one that says something else.
        let mut strange = TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut strange, b"GET / HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        greet(address, &connector).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn one_that_says_nothing_makes_room() {
    served(NEVER, 1, async |address, connector| {
        let mut silent = TcpStream::connect(address).await.unwrap();
        greet(address, &connector).await.unwrap();
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
    })
    .await;
}
