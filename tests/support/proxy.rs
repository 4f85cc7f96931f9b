//! A way between a node and a server that a test can cut: connections break, and new ones get no
//! answer, as behind a firewall. It may be thin: then it carries so many bytes a second each way, of all
//! connections together.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

pub struct Proxy {
    address: SocketAddr,
    cut: Arc<watch::Sender<bool>>,
    task: AbortHandle,
}

impl Proxy {
    /// To `server`, which is `host:port`.
    pub async fn to(server: &str) -> Self {
        Self::thin(server, usize::MAX).await
    }

    /// The same with a line that carries so many bytes a second.
    pub async fn thin(server: &str, rate: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let cut = Arc::new(watch::Sender::new(false));
        let task = tokio::spawn(serve(listener, server.to_owned(), cut.clone(), rate));
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

/// One direction of the line.
struct Way {
    rate: usize,
    free_at: Mutex<Instant>,
}

impl Way {
    fn new(rate: usize) -> Arc<Self> {
        let free_at = Mutex::new(Instant::now());
        Arc::new(Self { rate, free_at })
    }

    async fn carry(&self, bytes: usize) {
        let arrived = {
            let mut free_at = self.free_at.lock().expect("no panic");
            let time = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
            *free_at = (*free_at).max(Instant::now()) + time;
            *free_at
        };
        sleep_until(arrived).await;
    }
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    way: &Way,
) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match from.read(&mut buffer).await? {
            0 => return to.shutdown().await,
            bytes => {
                way.carry(bytes).await;
                to.write_all(&buffer[..bytes]).await?;
            }
        }
    }
}

async fn serve(listener: TcpListener, server: String, cut: Arc<watch::Sender<bool>>, rate: usize) {
    let ways = [Way::new(rate), Way::new(rate)];
    let mut open = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (server, mut is_cut) = (server.clone(), cut.subscribe());
        let [there, back] = ways.clone();
        open.spawn(async move {
            let mut client = client;
            // Who comes while it is cut waits, and is not told anything.
            let _ = is_cut.wait_for(|cut| !cut).await;
            let Ok(mut server) = TcpStream::connect(&server).await else {
                return;
            };
            tokio::select! {
                _ = async {
                    let (from_client, to_client) = client.split();
                    let (from_server, to_server) = server.split();
                    tokio::try_join!(
                        copy(from_client, to_server, &there),
                        copy(from_server, to_client, &back),
                    )
                } => {}
                _ = is_cut.wait_for(|cut| *cut) => {}
            }
        });
    }
}
