//! Which address a node gives out as its own. Where it listens is decided elsewhere.

use super::Error;
use hostel_config::{Config, Discovery};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};
use tokio::net::{UdpSocket, lookup_host};

/// On no machine of the world (RFC 5737, RFC 3849): the way there is the way to everywhere else.
const ELSEWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        9,
    ),
];

/// What stands in the record of a node that listens at `bound`. A node that listens everywhere has to
/// say where that is, if others are to hear of it: what its operator says, or else the address from
/// which it reaches etcd, or the rest of the world when etcd is on this machine.
pub async fn announced(config: &Config, bound: SocketAddr) -> Result<String, Error> {
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
        // One that cannot be looked up now is passed over; who connects to it says so.
        if let Some(host) = host_and_port(endpoint)
            && let Ok(found) = lookup_host(host).await
        {
            targets.extend(found);
        }
    }
    targets.extend(ELSEWHERE);
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
                "listens on {bound}; others are told this address (node.advertise says another)"
            );
            return Ok(address.to_string());
        }
    }
    Err(Error::Misconfigured(format!(
        "the node listens on {bound}, and no address of this machine was found under which other \
         nodes reach it; say one (node.advertise)"
    )))
}

/// Asks the kernel for the way, which sends nothing.
async fn own_address_towards(target: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket.local_addr()?.ip())
}

/// Of `http://host:port/`.
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
    async fn what_is_said_is_announced_with_the_port_that_is_bound() {
        let everywhere: SocketAddr = "0.0.0.0:7".parse().unwrap();
        let said = config(&format!("[node]\nadvertise = \"node-1\"\n{ETCD}"));
        assert_eq!(announced(&said, everywhere).await.unwrap(), "node-1:7");
        let here: SocketAddr = "127.0.0.1:7".parse().unwrap();
        let unsaid = config(ETCD);
        assert_eq!(announced(&unsaid, here).await.unwrap(), "127.0.0.1:7");
        // A node by itself is asked by nobody.
        let alone = config("");
        assert_eq!(announced(&alone, everywhere).await.unwrap(), "0.0.0.0:7");
    }

    #[tokio::test]
    async fn who_listens_everywhere_announces_an_address_of_this_machine_or_refuses() {
        for bound in ["0.0.0.0:7", "[::]:7"] {
            match announced(&config(ETCD), bound.parse().unwrap()).await {
                Ok(address) => {
                    let address: SocketAddr = address.parse().unwrap();
                    assert_eq!(address.port(), 7);
                    // One can bind an address of one's own alone.
                    UdpSocket::bind((address.ip(), 0)).await.unwrap();
                    assert!(!address.ip().is_loopback() && !address.ip().is_unspecified());
                }
                // A machine without a network.
                Err(error) => assert!(error.to_string().contains("node.advertise"), "{error}"),
            }
        }
    }

    #[test]
    fn endpoints_are_taken_apart() {
        assert_eq!(host_and_port("http://etcd-1:2379/"), Some("etcd-1:2379"));
        assert_eq!(host_and_port("https://[::1]:2379"), Some("[::1]:2379"));
        assert_eq!(host_and_port("etcd-1:2379"), None);
    }
}
