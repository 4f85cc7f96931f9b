//! A Redis or an etcd of a test's own: on a port that was free, with a data directory of its own;
//! killed, paused and started again at the same place.

use super::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A server process. Dropping it kills it and removes its files.
pub struct Server {
    kind: Kind,
    port: u16,
    dir: TempDir,
    /// Further arguments.
    more: Vec<String>,
    process: Option<Child>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Redis,
    Etcd,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Etcd => "etcd",
        }
    }

    /// Whether it is installed.
    pub fn is_here(self) -> bool {
        let mut command = Command::new(self.program());
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.arg("--version").status().is_ok()
    }
}

impl Server {
    /// Started and answering.
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, |_, _| Vec::new()).await
    }

    /// With further arguments, which may name files in the directory and the port that they are given,
    /// and further ports.
    pub async fn start_with(kind: Kind, more: impl Fn(&Path, u16) -> Vec<String>) -> Self {
        // Another process may take a port between the look for a free one and the start.
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let port = free_port();
            let mut server = Self {
                kind,
                port,
                more: more(dir.path(), port),
                dir,
                process: None,
            };
            server.spawn();
            if server.answers().await {
                return server;
            }
        }
        panic!("{} does not start", kind.program());
    }

    /// Started again where it was, with what it has on disk.
    pub async fn restart(&mut self) {
        self.begin_again();
        assert!(self.answers().await, "no restart:\n{}", self.log());
    }

    /// The same, without waiting until it answers.
    pub fn begin_again(&mut self) {
        self.kill();
        self.spawn();
    }

    fn spawn(&mut self) {
        let log = File::create(self.dir.path().join("log")).expect("the log");
        let mut command = Command::new(self.kind.program());
        let port = self.port.to_string();
        match self.kind {
            Kind::Redis => command
                .args(["--bind", "127.0.0.1", "--port", &port, "--dir"])
                .arg(self.dir.path())
                .args(["--save", "", "--appendonly", "yes"]),
            Kind::Etcd => {
                let client = self.url();
                let peer = format!("http://127.0.0.1:{}", free_port());
                command
                    .args(["--name", "test", "--data-dir"])
                    .arg(self.dir.path().join("data"))
                    .args(["--listen-client-urls", &client])
                    .args(["--advertise-client-urls", &client])
                    .args(["--listen-peer-urls", &peer])
                    .args(["--initial-advertise-peer-urls", &peer])
                    .args(["--initial-cluster", &format!("test={peer}")])
                    // Short elections, since a lease is never shorter than one and a half.
                    .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
                    .args(["--logger", "zap", "--log-level", "warn"])
            }
        };
        let process = command
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("the server starts");
        self.process = Some(process);
    }

    /// Waits until it serves; `false` when it has ended instead.
    async fn answers(&mut self) -> bool {
        let since = Instant::now();
        while !self.is_well() {
            let process = self.process.as_mut().expect("a process");
            if process.try_wait().expect("a status").is_some() {
                return false;
            }
            assert!(since.elapsed() < PATIENCE, "no start:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    fn is_well(&self) -> bool {
        let (question, answer) = match self.kind {
            Kind::Redis => ("PING\r\n", "+PONG"),
            Kind::Etcd => ("GET /health HTTP/1.0\r\n\r\n", "\"true\""),
        };
        let asked = || -> std::io::Result<bool> {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_millis(500)))?;
            stream.write_all(question.as_bytes())?;
            let mut said = String::new();
            let mut part = [0; 512];
            while !said.contains(answer) {
                match stream.read(&mut part)? {
                    0 => return Ok(false),
                    read => said.push_str(&String::from_utf8_lossy(&part[..read])),
                }
            }
            Ok(true)
        };
        asked().unwrap_or(false)
    }

    pub fn url(&self) -> String {
        match self.kind {
            Kind::Redis => format!("redis://127.0.0.1:{}", self.port),
            Kind::Etcd => format!("http://127.0.0.1:{}", self.port),
        }
    }

    /// Where it keeps what it has on disk.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Says something to a Redis.
    pub async fn say(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await
    }

    /// kill -9, and waits until the process is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// What it has on disk is gone, as after an accident.
    pub fn forget(&self) {
        let _ = fs::remove_dir_all(self.dir.path().join("data"));
    }

    /// Stops it where it is: its sockets stay open and nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("a process");
        kill_process(Pid::from_child(process), signal).expect("a signal");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}
