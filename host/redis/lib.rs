//! How a Redis is reached, alone or as a cluster: what the queue and the broker have in common.
//! Knows no task and no message.

mod connection;

pub use connection::{Connection, Nodes};

use hostel_runtime::pem;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, RedisError, RedisResult, ServerErrorKind, TlsCertificates,
    aio::{ConnectionManagerConfig, MultiplexedConnection},
    cluster::ClusterClient,
    io::tcp::TcpSettings,
};
use std::{path::PathBuf, time::Duration};

/// How long connecting and the answer to a command may take, each.
const CONNECT: Duration = Duration::from_millis(1500);
const ANSWER: Duration = Duration::from_secs(3);
/// The same where an answer may be behind megabytes; the caller has a limit of its own.
const BULK_ANSWER: Duration = Duration::from_secs(300);
/// How many commands wait for the socket; further callers wait with theirs.
const PIPELINE: usize = 256;
/// After how long without an acknowledgement a connection counts as dead: one whose other end has
/// vanished would otherwise look idle for a quarter of an hour.
const DEAD: Duration = Duration::from_secs(10);
/// How often a cluster's client tries again by itself, and how long it waits before it does: enough to
/// follow keys that move, and little enough that the caller is told what is wrong.
const RETRIES: u32 = 5;
const RETRY_MS: (u64, u64) = (50, 500);

/// A Redis that the configuration names. Connects to nothing by itself.
#[derive(Clone)]
pub struct Server {
    /// The section of the configuration, for errors.
    section: &'static str,
    /// One, or where a cluster is asked first.
    nodes: Vec<ConnectionInfo>,
    cluster: Option<ClusterClient>,
    /// The same for what takes long to carry.
    bulk_cluster: Option<ClusterClient>,
    certificates: Option<TlsCertificates>,
}

impl Server {
    /// Fails with what is wrong about the settings of `section`. In a cluster a command is sent again
    /// when its answer is missing, if it `repeats`; it may then be done twice.
    pub fn new(
        settings: &hostel_config::Redis,
        section: &'static str,
        repeats: bool,
    ) -> Result<Self, String> {
        let unusable = |error: RedisError| {
            let url = &settings.url;
            format!("{section}.url ({url}) cannot be used: {error}")
        };
        let certificates = certificates(settings, section)?;
        let mut nodes = Vec::new();
        for url in settings.url.reveal().split(',') {
            let info = url.trim().into_connection_info().map_err(unusable)?;
            let tcp = watchful(info.tcp_settings().clone());
            nodes.push(info.set_tcp_settings(tcp));
        }
        let cluster = |answer| {
            let builder = ClusterClient::builder(nodes.clone())
                .connection_timeout(CONNECT)
                .response_timeout(answer)
                .retries(if repeats { RETRIES } else { 0 })
                .min_retry_wait(RETRY_MS.0)
                .max_retry_wait(RETRY_MS.1)
                .tcp_settings(watchful(TcpSettings::default()));
            match &certificates {
                Some(certificates) => builder.certs(certificates.clone()).build(),
                None => builder.build(),
            }
        };
        let of_cluster = |answer| match settings.cluster {
            true => cluster(answer).map(Some).map_err(unusable),
            false => Ok(None),
        };
        let server = Self {
            cluster: of_cluster(ANSWER)?,
            bulk_cluster: of_cluster(BULK_ANSWER)?,
            section,
            nodes: nodes.clone(),
            certificates: certificates.clone(),
        };
        server.node(0).map_err(unusable)?;
        Ok(server)
    }

    /// Where a connection for subscriptions can be had, in turn: in a cluster any node serves.
    pub fn node(&self, turn: usize) -> RedisResult<Client> {
        self.client(self.nodes[turn % self.nodes.len()].clone())
    }

    pub fn is_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    fn is_tls(&self) -> bool {
        matches!(self.nodes[0].addr(), ConnectionAddr::TcpTls { .. })
    }

    fn client(&self, node: ConnectionInfo) -> RedisResult<Client> {
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(node, certificates.clone()),
            None => Client::open(node),
        }
    }

    /// A connection that many share and that is made anew when it is lost.
    pub async fn connect(&self) -> RedisResult<Connection> {
        self.connect_within(&self.cluster, ANSWER).await
    }

    /// The same for calls that carry much: how long one may take is for its caller to say.
    pub async fn connect_for_bulk(&self) -> RedisResult<Connection> {
        self.connect_within(&self.bulk_cluster, BULK_ANSWER).await
    }

    async fn connect_within(
        &self,
        cluster: &Option<ClusterClient>,
        answer: Duration,
    ) -> RedisResult<Connection> {
        let Some(cluster) = cluster else {
            let config = ConnectionManagerConfig::new()
                .set_connection_timeout(Some(CONNECT))
                .set_response_timeout(Some(answer))
                .set_number_of_retries(1)
                .set_max_delay(Duration::from_millis(200))
                .set_pipeline_buffer_size(PIPELINE);
            let connection = self.node(0)?.get_connection_manager_lazy(config)?;
            return Ok(Connection::Server(connection::OneServer::new(connection)));
        };
        let connection = cluster.get_async_connection().await?;
        Ok(Connection::Cluster(connection))
    }

    /// A connection for one caller whose commands may wait for `block` at the server; to the node of
    /// a cluster that a redirection named, where there was one.
    pub async fn connect_blocking(
        &self,
        redirected: Option<&(String, u16)>,
        block: Duration,
    ) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(block + ANSWER));
        let mut node = self.nodes[fastrand::usize(..self.nodes.len())].clone();
        if let Some((host, port)) = redirected {
            let address = match node.addr().clone() {
                ConnectionAddr::TcpTls {
                    insecure,
                    tls_params,
                    ..
                } => ConnectionAddr::TcpTls {
                    host: host.clone(),
                    port: *port,
                    insecure,
                    tls_params,
                },
                _ => ConnectionAddr::Tcp(host.clone(), *port),
            };
            node = node.set_addr(address);
        }
        self.client(node)?
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    /// What went wrong, and what to do where somebody has to do something. `needs` says what the
    /// user must be allowed.
    pub fn problem(&self, error: &RedisError, needs: &str) -> String {
        let section = self.section;
        // In the words of Redis, which are those that its manual has.
        let said = match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => format!("{code} {detail}"),
            _ => error.to_string(),
        };
        if is_refusal(error) {
            return format!(
                "Redis refuses this node: {said}; check the user and password in {section}.url, and \
                 that its ACL allows {needs}"
            );
        }
        let about = |words: &[&str]| words.iter().any(|word| said.contains(word));
        // What rustls says of the server's certificate, and what a server says of ours.
        if about(&["invalid peer certificate"]) {
            return format!(
                "the certificate of Redis is not accepted: {said}; check that {section}.ca_file holds \
                 the CA that signed it, and that it names the host of {section}.url"
            );
        }
        if about(&["fatal alert: CertificateRequired", "fatal alert: UnknownCA"]) {
            return format!(
                "Redis does not accept this node's certificate: {said}; check {section}.cert_file and \
                 {section}.key_file"
            );
        }
        // With TLS 1.3 the refusal of a certificate is often lost together with the connection.
        let lost = error.is_connection_dropped() && !error.is_connection_refusal();
        if self.is_tls() && lost {
            return format!(
                "the connection was lost: {said}; where Redis asks for a certificate, check \
                 {section}.cert_file and {section}.key_file"
            );
        }
        said
    }
}

/// The node of a cluster that an error sends us to, for good. While keys are on the way it is known
/// only to who asks for one of them.
pub fn redirection(error: &RedisError) -> Option<(String, u16)> {
    if error.kind() != ErrorKind::Server(ServerErrorKind::Moved) {
        return None;
    }
    let (address, _slot) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// Whether the server does not let us do this, whenever we try.
pub fn is_refusal(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
}

fn watchful(tcp: TcpSettings) -> TcpSettings {
    let tcp = tcp.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(DEAD);
    tcp
}

fn certificates(
    settings: &hostel_config::Redis,
    section: &str,
) -> Result<Option<TlsCertificates>, String> {
    let read = |key: &str, file: &Option<PathBuf>| match file {
        None => Ok(None),
        Some(file) => std::fs::read(file)
            .map(Some)
            .map_err(|error| format!("cannot read {} ({section}.{key}): {error}", file.display())),
    };
    let root_cert = read("ca_file", &settings.ca_file)?;
    let client_cert = read("cert_file", &settings.cert_file)?;
    let client_key = read("key_file", &settings.key_file)?;
    let client_tls = client_cert.zip(client_key);
    if let Some((cert, key)) = &client_tls {
        pem::check_pair(section, cert, key)?;
    }
    if root_cert.is_none() && client_tls.is_none() {
        return Ok(None);
    }
    Ok(Some(TlsCertificates {
        root_cert,
        client_tls: client_tls.map(|(client_cert, client_key)| ClientTlsConfig {
            client_cert,
            client_key,
        }),
    }))
}
