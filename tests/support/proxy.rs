//! A way between a node and a server that a test can cut: connections break, and new ones get no
//! answer, as behind a firewall.

use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

pub struct Proxy {
    address: SocketAddr,
    cut: Arc<watch::Sender<bool>>,
    task: AbortHandle,
}

impl Proxy {
    /// To `server`, which is `host:port`.
    pub async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let cut = Arc::new(watch::Sender::new(false));
        let task = tokio::spawn(serve(listener, server.to_owned(), cut.clone()));
        Self {
            address,
            cut,
            task: task.abort_handle(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, server: String, cut: Arc<watch::Sender<bool>>) {
    let mut open = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (server, mut is_cut) = (server.clone(), cut.subscribe());
        open.spawn(async move {
            let mut client = client;
            // Who comes while it is cut waits, and is not told anything.
            let _ = is_cut.wait_for(|cut| !cut).await;
            let Ok(mut server) = TcpStream::connect(&server).await else {
                return;
            };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                _ = is_cut.wait_for(|cut| *cut) => {}
            }
        });
    }
}
