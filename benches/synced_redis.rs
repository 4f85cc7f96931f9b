//! A Redis that syncs its file every second or always.

use crate::support::servers::{Kind, Server};
use redis::aio::MultiplexedConnection;

/// The settings of `appendfsync` that are measured.
pub const SYNCS: [&str; 2] = ["everysec", "always"];

/// Starts a Redis with this setting, and returns a connection to it.
pub async fn start(sync: &str) -> (Server, MultiplexedConnection) {
    let server = Server::start(Kind::Redis).await;
    let client = redis::Client::open(server.url()).expect("a URL");
    let connection = client.get_multiplexed_async_connection().await;
    let mut connection = connection.expect("a connection");
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("appendfsync").arg(sync);
    set.exec_async(&mut connection).await.expect("a setting");
    (server, connection)
}
