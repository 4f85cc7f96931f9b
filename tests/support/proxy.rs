//! A TCP proxy between a node and a server. A test can cut it: open connections break and new ones get
//! no answer, as behind a firewall. Its bandwidth can be limited, for all connections together and
//! each direction.

use parking_lot::Mutex;
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
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
    connections: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Proxy {
    /// Starts a proxy to `server`, which is `host:port`.
    pub async fn to(server: &str) -> Self {
        Self::with_bandwidth(server, usize::MAX).await
    }

    /// Starts a proxy with a bandwidth of `rate` bytes a second in each direction.
    pub async fn with_bandwidth(server: &str, rate: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let cut = Arc::new(watch::Sender::new(false));
        let connections = Arc::<AtomicUsize>::default();
        let acceptor = Acceptor {
            server: server.to_owned(),
            cut: cut.clone(),
            connections: connections.clone(),
            rate,
        };
        let task = tokio::spawn(acceptor.run(listener));
        Self {
            address,
            cut,
            connections,
            task: task.abort_handle(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn restore(&self) {
        self.cut.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One direction of the proxy.
struct Direction {
    rate: usize,
    free_at: Mutex<Instant>,
}

impl Direction {
    fn new(rate: usize) -> Arc<Self> {
        let free_at = Mutex::new(Instant::now());
        Arc::new(Self { rate, free_at })
    }

    async fn carry(&self, bytes: usize) {
        let arrived = {
            let mut free_at = self.free_at.lock();
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
    direction: &Direction,
) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match from.read(&mut buffer).await? {
            0 => return to.shutdown().await,
            bytes => {
                direction.carry(bytes).await;
                to.write_all(&buffer[..bytes]).await?;
            }
        }
    }
}

/// The task that accepts connections.
struct Acceptor {
    server: String,
    cut: Arc<watch::Sender<bool>>,
    connections: Arc<AtomicUsize>,
    rate: usize,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) {
        let directions = [Direction::new(self.rate), Direction::new(self.rate)];
        let mut open = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            self.connections.fetch_add(1, Relaxed);
            let (server, is_cut) = (self.server.clone(), self.cut.subscribe());
            open.spawn(connect(client, server, is_cut, directions.clone()));
        }
    }
}

async fn connect(
    mut client: TcpStream,
    server: String,
    mut is_cut: watch::Receiver<bool>,
    [there, back]: [Arc<Direction>; 2],
) {
    // A connection during the cut waits without an answer.
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
}
