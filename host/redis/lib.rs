//! Connections to Redis, a single server or a cluster, for the queue and the broker. Knows neither tasks
//! nor messages.

mod cluster;
mod connection;

pub use cluster::Cluster;
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

/// How long connecting may take, and how long the answer to a command.
const CONNECT: Duration = Duration::from_millis(1500);
const ANSWER: Duration = Duration::from_secs(3);
/// How long an answer may take that waits behind megabytes; callers set a shorter limit of their own.
const BULK_ANSWER: Duration = Duration::from_secs(300);
/// How many commands wait for the socket; further callers wait until there is room.
const PIPELINE: usize = 256;
/// A connection without a TCP acknowledgement for this long is dead. Without this limit one whose peer
/// has vanished looks idle for a quarter of an hour.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// How often a command to a cluster is repeated, and how long it waits before that: enough to follow keys
/// that move to another node, and short enough that the caller gets the error.
const RETRIES: u32 = 5;
const RETRY_MS: (u64, u64) = (50, 500);

/// A Redis named by the configuration. Creating it connects to nothing.
#[derive(Clone)]
pub struct Server {
    /// The section of the configuration, for errors.
    section: &'static str,
    /// The one server, or the nodes through which a cluster is discovered.
    nodes: Vec<ConnectionInfo>,
    cluster: Option<ClusterClient>,
    /// The cluster's client for large commands and answers.
    bulk_cluster: Option<ClusterClient>,
    certificates: Option<TlsCertificates>,
    /// Whether a command to a cluster may be executed twice.
    retries: bool,
}

impl Server {
    /// Returns an error text if the settings of `section` cannot be used. With `retries`, a command to
    /// a cluster is sent again when its answer does not come, and may then be executed twice.
    pub fn new(
        settings: &hostel_config::Redis,
        section: &'static str,
        retries: bool,
    ) -> Result<Self, String> {
        let unusable = |error: RedisError| {
            let url = &settings.url;
            format!("{section}.url ({url}) cannot be used: {error}")
        };
        let certificates = certificates(settings, section)?;
        let mut nodes = Vec::new();
        for url in settings.url.reveal().split(',') {
            let info = url.trim().into_connection_info().map_err(unusable)?;
            let tcp = tuned(info.tcp_settings().clone());
            nodes.push(info.set_tcp_settings(tcp));
        }
        let cluster = |answer| {
            let builder = ClusterClient::builder(nodes.clone())
                .connection_timeout(CONNECT)
                .response_timeout(answer)
                // `Cluster::send` repeats commands.
                .retries(0)
                .tcp_settings(tuned(TcpSettings::default()));
            match &certificates {
                Some(certificates) => builder.certs(certificates.clone()).build(),
                None => builder.build(),
            }
        };
        let if_cluster = |answer| {
            let client = settings.cluster.then(|| cluster(answer));
            client.transpose().map_err(unusable)
        };
        let server = Self {
            cluster: if_cluster(ANSWER)?,
            bulk_cluster: if_cluster(BULK_ANSWER)?,
            section,
            nodes: nodes.clone(),
            certificates: certificates.clone(),
            retries,
        };
        server.node(0).map_err(unusable)?;
        Ok(server)
    }

    /// Returns a client for subscriptions to one of the nodes, chosen by `turn`: in a cluster every node
    /// serves them.
    pub fn node(&self, turn: usize) -> RedisResult<Client> {
        self.client(self.nodes[turn % self.nodes.len()].clone())
    }

    /// Whether this is a cluster.
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

    /// Returns a connection for many callers, which reconnects by itself.
    pub async fn connect(&self) -> RedisResult<Connection> {
        self.connect_within(&self.cluster, ANSWER).await
    }

    /// Returns the same for large commands and answers, whose callers set the time limit.
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
            return Ok(Connection::Server(connection::SingleServer::new(
                connection,
            )));
        };
        let connection = cluster.get_async_connection().await?;
        let cluster = cluster::Cluster::new(connection, self.clone());
        Ok(Connection::Cluster(cluster))
    }

    /// Returns a connection for one caller whose commands may block at the server for `block`. It goes
    /// to the node named by a redirection if there was one.
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

    /// Describes an error, and what to do about it where an operator can do something. `needs` names
    /// the commands that the ACL must allow.
    pub fn describe(&self, error: &RedisError, needs: &str) -> String {
        let section = self.section;
        // Redis's own words, which its manual explains.
        let text = match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => format!("{code} {detail}"),
            _ => error.to_string(),
        };
        if is_refusal(error) {
            return format!(
                "Redis refuses this node: {text}; check the user and password in {section}.url, and \
                 that its ACL allows {needs}"
            );
        }
        let mentions = |words: &[&str]| words.iter().any(|word| text.contains(word));
        // Texts of rustls about the server's certificate, and of servers about this node's.
        if mentions(&["invalid peer certificate"]) {
            return format!(
                "the certificate of Redis is not accepted: {text}; check that {section}.ca_file holds \
                 the CA that signed it, and that it names the host of {section}.url"
            );
        }
        if mentions(&["fatal alert: CertificateRequired", "fatal alert: UnknownCA"]) {
            return format!(
                "Redis does not accept this node's certificate: {text}; check {section}.cert_file and \
                 {section}.key_file"
            );
        }
        // With TLS 1.3 the alert that refuses a certificate is often lost with the connection.
        let lost = error.is_connection_dropped() && !error.is_connection_refusal();
        if self.is_tls() && lost {
            return format!(
                "the connection was lost: {text}; where Redis asks for a certificate, check \
                 {section}.cert_file and {section}.key_file"
            );
        }
        text
    }
}

/// Returns the node to which an error redirects permanently (MOVED). ASK concerns a single key of a slot
/// that moves, and is left to the cluster client.
pub fn redirection(error: &RedisError) -> Option<(String, u16)> {
    if error.kind() != ErrorKind::Server(ServerErrorKind::Moved) {
        return None;
    }
    let (address, _slot) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// Whether the server denies this user the command, so that a retry is no use.
pub fn is_refusal(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
}

/// Adds the settings that every connection needs.
fn tuned(tcp: TcpSettings) -> TcpSettings {
    let tcp = tcp.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(UNACKNOWLEDGED);
    tcp
}

fn certificates(
    settings: &hostel_config::Redis,
    section: &str,
) -> Result<Option<TlsCertificates>, String> {
    let root_cert = read(section, "ca_file", &settings.ca_file, pem::roots)?;
    let client_cert = read(section, "cert_file", &settings.cert_file, pem::certificates)?;
    let client_key = read(section, "key_file", &settings.key_file, pem::key)?;
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

fn read<T>(
    section: &str,
    key: &str,
    file: &Option<PathBuf>,
    parse: impl FnOnce(&[u8]) -> Result<T, pem::Error>,
) -> Result<Option<Vec<u8>>, String> {
    let Some(file) = file else { return Ok(None) };
    match pem::read(format!("{section}.{key}"), file, parse) {
        Ok((text, _)) => Ok(Some(text)),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_ca_file_without_a_certificate_is_refused_by_name() {
        let mut settings = hostel_config::Redis::at("rediss://127.0.0.1:1", "test").unwrap();
        settings.ca_file = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        let error = Server::new(&settings, "queue", true).err().unwrap();
        assert!(error.starts_with("queue.ca_file: /"), "{error}");
        assert!(error.contains("Cargo.toml holds no certificate"), "{error}");
    }
}
