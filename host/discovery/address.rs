//! The address under which a node registers, by which other nodes reach it.

use super::error::Error;
use hostel_config::{Config, Discovery};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};
use tokio::net::{UdpSocket, lookup_host};

/// Addresses that no machine has (RFC 5737, RFC 3849): the route to them is the default route.
const DOCUMENTATION: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        9,
    ),
];

/// Returns the address that a node registers which listens at `bound`.
///
/// A node of a cluster that listens on all addresses has to register a particular one: `node.advertise`,
/// or else the address from which it reaches etcd, or the default route if etcd is on this machine.
pub async fn advertised_address(config: &Config, bound: SocketAddr) -> Result<String, Error> {
    if let Some(advertise) = &config.node.advertise {
        return Ok(advertise.with_port(bound.port()));
    }
    let Discovery::Etcd(etcd) = &config.discovery else {
        return Ok(bound.to_string());
    };
    if !bound.ip().to_canonical().is_unspecified() {
        return Ok(bound.to_string());
    }
    let mut targets = Vec::new();
    for endpoint in &etcd.endpoints {
        // A failed lookup is skipped here; connecting to etcd reports it.
        if let Some(host) = host_and_port(endpoint)
            && let Ok(found) = lookup_host(host).await
        {
            targets.extend(found);
        }
    }
    targets.extend(DOCUMENTATION);
    for target in targets {
        if target.is_ipv6() && bound.is_ipv4() {
            continue;
        }
        if let Ok(own) = own_address_towards(target).await
            && !own.is_loopback()
            && !own.is_unspecified()
        {
            let address = SocketAddr::new(own, bound.port());
            tracing::info!(
                %address,
                "listens on {bound} and registers this address; node.advertise sets another one"
            );
            return Ok(address.to_string());
        }
    }
    Err(Error::Misconfigured(format!(
        "the node listens on {bound}, and no address of this machine was found under which other \
         nodes reach it; set node.advertise"
    )))
}

/// Returns the local address of the route to `target`. Asks the kernel only, and sends nothing.
async fn own_address_towards(target: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket.local_addr()?.ip())
}

/// Returns the host and port of `http://host:port/`.
fn host_and_port(endpoint: &str) -> Option<&str> {
    let (_, rest) = endpoint.split_once("://")?;
    rest.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, std::iter::empty()).unwrap()
    }

    const ETCD: &str = "[discovery]\nkind = \"etcd\"\nendpoints = [\"http://127.0.0.1:2379\"]\n";

    #[tokio::test]
    async fn the_configured_address_is_registered_with_the_bound_port() {
        let everywhere: SocketAddr = "0.0.0.0:7".parse().unwrap();
        let configured = config(&format!("[node]\nadvertise = \"node-1\"\n{ETCD}"));
        assert_eq!(
            advertised_address(&configured, everywhere).await.unwrap(),
            "node-1:7"
        );
        let here: SocketAddr = "127.0.0.1:7".parse().unwrap();
        let unconfigured = config(ETCD);
        assert_eq!(
            advertised_address(&unconfigured, here).await.unwrap(),
            "127.0.0.1:7"
        );
        // No other node connects to a node by itself.
        let alone = config("");
        assert_eq!(
            advertised_address(&alone, everywhere).await.unwrap(),
            "0.0.0.0:7"
        );
    }

    #[tokio::test]
    async fn a_node_on_all_addresses_registers_one_of_this_machine_or_refuses() {
        for bound in ["0.0.0.0:7", "[::]:7"] {
            match advertised_address(&config(ETCD), bound.parse().unwrap()).await {
                Ok(address) => {
                    let address: SocketAddr = address.parse().unwrap();
                    assert_eq!(address.port(), 7);
                    // Only an address of this machine can be bound.
                    UdpSocket::bind((address.ip(), 0)).await.unwrap();
                    assert!(!address.ip().is_loopback() && !address.ip().is_unspecified());
                }
                // A machine without a network.
                Err(error) => assert!(error.to_string().contains("node.advertise"), "{error}"),
            }
        }
    }

    #[test]
    fn endpoints_are_split_into_host_and_port() {
        assert_eq!(host_and_port("http://etcd-1:2379/"), Some("etcd-1:2379"));
        assert_eq!(host_and_port("https://[::1]:2379"), Some("[::1]:2379"));
        assert_eq!(host_and_port("etcd-1:2379"), None);
    }
}
