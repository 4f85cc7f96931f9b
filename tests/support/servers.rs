//! A Redis or an etcd for one test, on a free port and with its own data directory. Tests kill, pause
//! and restart it.

use super::DEADLINE;
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
    /// Additional arguments.
    arguments: Vec<String>,
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

    fn default_port(self) -> u16 {
        match self {
            Self::Redis => 6379,
            Self::Etcd => 2379,
        }
    }

    /// Returns `true` if the server is installed.
    pub fn is_installed(self) -> bool {
        let mut command = Command::new(self.program());
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.arg("--version").status().is_ok()
    }
}

impl Server {
    /// Starts a server and waits until it answers.
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, |_, _| Vec::new()).await
    }

    /// Starts a server at its default port, for a process with a network namespace of its own.
    pub async fn start_at_default_port(kind: Kind) -> Self {
        let mut server = Self {
            kind,
            port: kind.default_port(),
            dir: tempfile::tempdir().expect("a temporary directory"),
            arguments: Vec::new(),
            process: None,
        };
        server.spawn();
        assert!(server.becomes_ready().await, "no start:\n{}", server.log());
        server
    }

    /// Starts a server with additional arguments, which `arguments` derives from the directory and the port.
    pub async fn start_with(kind: Kind, arguments: impl Fn(&Path, u16) -> Vec<String>) -> Self {
        // Another process may take the port before the server starts.
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let port = free_port();
            let mut server = Self {
                kind,
                port,
                arguments: arguments(dir.path(), port),
                dir,
                process: None,
            };
            server.spawn();
            if server.becomes_ready().await {
                return server;
            }
        }
        panic!("{} does not start", kind.program());
    }

    /// Restarts the server on the same port with its data.
    pub async fn restart(&mut self) {
        self.restart_without_waiting();
        assert!(self.becomes_ready().await, "no restart:\n{}", self.log());
    }

    /// Restarts the server without waiting until it answers.
    pub fn restart_without_waiting(&mut self) {
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
                    // The election timeout is short because the minimum TTL of a lease depends on it.
                    .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
                    .args(["--logger", "zap", "--log-level", "warn"])
            }
        };
        let process = command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("the server starts");
        self.process = Some(process);
    }

    /// Waits until the server answers. Returns `false` if the process has ended instead.
    async fn becomes_ready(&mut self) -> bool {
        let since = Instant::now();
        while !self.is_ready() {
            let process = self.process.as_mut().expect("a process");
            if process.try_wait().expect("a status").is_some() {
                return false;
            }
            assert!(since.elapsed() < DEADLINE, "no start:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    fn is_ready(&self) -> bool {
        let (question, answer) = match self.kind {
            Kind::Redis => ("PING\r\n", "+PONG"),
            Kind::Etcd => ("GET /health HTTP/1.0\r\n\r\n", "\"true\""),
        };
        let responds = || -> std::io::Result<bool> {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_millis(500)))?;
            stream.write_all(question.as_bytes())?;
            let mut response = String::new();
            let mut part = [0; 512];
            while !response.contains(answer) {
                match stream.read(&mut part)? {
                    0 => return Ok(false),
                    read => response.push_str(&String::from_utf8_lossy(&part[..read])),
                }
            }
            Ok(true)
        };
        responds().unwrap_or(false)
    }

    pub fn url(&self) -> String {
        match self.kind {
            Kind::Redis => format!("redis://127.0.0.1:{}", self.port),
            Kind::Etcd => format!("http://127.0.0.1:{}", self.port),
        }
    }

    /// Returns the directory with the server's data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends a command to a Redis.
    pub async fn command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await
    }

    /// Kills the process with SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Deletes the data of an etcd, as after a disk failure.
    pub fn delete_data(&self) {
        let _ = fs::remove_dir_all(self.dir.path().join("data"));
    }

    /// Stops the process with SIGSTOP: its sockets stay open without answers.
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
