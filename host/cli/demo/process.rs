//! The processes of the demo's cluster: a Redis, an etcd and nodes on free loopback ports, each with a log
//! of its own. None outlives its handle nor, on Linux, a demo that is killed
//! (`hostel die-with-parent`).

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsStr,
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// How long a process may take to serve, including the compilation of plugins.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a process may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A child process. It is killed when this is dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output in `log`.
    fn start(program: &Path, arguments: &[&OsStr], log: PathBuf) -> anyhow::Result<Self> {
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        // This program first sets its death signal and then becomes `program`.
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("die-with-parent")
            .arg(std::process::id().to_string());
        // The user's variables must not override the configuration files of the nodes.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("HOSTEL__") {
                command.env_remove(variable);
            }
        }
        let child = command
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            // Ctrl-C is for the demo alone, which stops the nodes before their servers.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { child, log })
    }

    /// Returns an error with the end of the log if the process has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(10)..].join("\n");
            bail!("{} ended ({status}):\n{end}", self.log.display());
        }
        Ok(())
    }

    /// Calls `poll` until it returns a value.
    async fn until<T>(&mut self, mut poll: impl AsyncFnMut() -> Option<T>) -> anyhow::Result<T> {
        let since = Instant::now();
        loop {
            self.check()?;
            if let Some(value) = poll().await {
                return Ok(value);
            }
            let log = self.log.display();
            ensure!(
                since.elapsed() < START_TIMEOUT,
                "the process does not serve; see {log}"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends SIGTERM and waits for the end; sends SIGKILL if that takes too long.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id.and_then(Pid::from_raw) {
            // The process may have ended already.
            let _ = kill_process(id, Signal::TERM);
        }
        if timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

/// The server programs that a cluster needs.
pub struct Programs {
    redis: PathBuf,
    etcd: PathBuf,
}

impl Programs {
    /// Finds the programs on PATH.
    pub fn find() -> anyhow::Result<Self> {
        Ok(Self {
            redis: on_path("redis-server", "redis-server")?,
            etcd: on_path("etcd", "etcd-server")?,
        })
    }

    /// Starts a Redis that writes tasks to disk, and returns its URL.
    pub async fn redis(&self, dir: &Path) -> anyhow::Result<(Process, String)> {
        let data = dir.join("redis");
        fs::create_dir_all(&data)?;
        with_free_port(async |port| {
            let number = port.to_string();
            let mut arguments = texts(&["--bind", "127.0.0.1", "--port", &number, "--dir"]);
            arguments.push(data.as_os_str());
            arguments.extend(texts(&["--save", "", "--appendonly", "yes"]));
            let mut redis = Process::start(&self.redis, &arguments, dir.join("redis.log"))?;
            let ready = async || responds(port, "PING\r\n", "+PONG").await;
            redis.until(ready).await?;
            Ok((redis, format!("redis://127.0.0.1:{port}")))
        })
        .await
    }

    /// Starts a single etcd, and returns its endpoint.
    pub async fn etcd(&self, dir: &Path) -> anyhow::Result<(Process, String)> {
        let data = dir.join("etcd");
        with_free_port(async |port| {
            let client = format!("http://127.0.0.1:{port}");
            let peer = format!("http://127.0.0.1:{}", free_port()?);
            let cluster = format!("demo={peer}");
            let mut arguments = texts(&["--name", "demo", "--data-dir"]);
            arguments.push(data.as_os_str());
            arguments.extend(texts(&["--listen-client-urls", &client]));
            arguments.extend(texts(&["--advertise-client-urls", &client]));
            arguments.extend(texts(&["--listen-peer-urls", &peer]));
            arguments.extend(texts(&["--initial-advertise-peer-urls", &peer]));
            arguments.extend(texts(&["--initial-cluster", &cluster]));
            let mut etcd = Process::start(&self.etcd, &arguments, dir.join("etcd.log"))?;
            let ready = async || responds(port, "GET /health HTTP/1.0\r\n\r\n", "\"true\"").await;
            etcd.until(ready).await?;
            Ok((etcd, client.clone()))
        })
        .await
    }
}

/// Starts a node as this program, with the `hostel.toml` in `dir`.
pub fn node(dir: &Path) -> anyhow::Result<Process> {
    let (program, config) = (std::env::current_exe()?, dir.join("hostel.toml"));
    let (serve, with, at) = ("serve".as_ref(), "--config".as_ref(), "--ports-file");
    let ports = dir.join("ports");
    let arguments = [
        serve,
        with,
        config.as_os_str(),
        at.as_ref(),
        ports.as_os_str(),
    ];
    Process::start(&program, &arguments, dir.join("log"))
}

/// Waits until a node serves, and returns its address.
pub async fn address(node: &mut Process, dir: &Path) -> anyhow::Result<String> {
    let ports = dir.join("ports");
    let text = node.until(async || fs::read_to_string(&ports).ok()).await?;
    let bound: serde_json::Value = serde_json::from_str(&text)?;
    let address = bound["grpc"]
        .as_str()
        .context("the ports file has no address")?;
    Ok(address.to_owned())
}

fn texts<'a>(texts: &[&'a str]) -> Vec<&'a OsStr> {
    texts.iter().map(|&text| OsStr::new(text)).collect()
}

fn on_path(program: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(program));
    places.find(|file| file.is_file()).with_context(|| {
        format!(
            "a cluster needs Redis and etcd, and {program} is not on PATH: install it \
             (on Debian the package {package}: apt-get install redis-server etcd-server)"
        )
    })
}

/// Calls `start` with a free port, and with another one if a different process has taken it.
async fn with_free_port<T>(start: impl AsyncFn(u16) -> anyhow::Result<T>) -> anyhow::Result<T> {
    for _ in 0..4 {
        if let Ok(started) = start(free_port()?).await {
            return Ok(started);
        }
    }
    start(free_port()?).await
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

/// Checks whether the server at `port` answers `request` with `answer`.
async fn responds(port: u16, request: &str, answer: &str) -> Option<()> {
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(request.as_bytes()).await?;
        let (mut response, mut part) = (Vec::new(), [0; 512]);
        while !String::from_utf8_lossy(&response).contains(answer) {
            match stream.read(&mut part).await? {
                0 => return Ok(None),
                read => response.extend_from_slice(&part[..read]),
            }
        }
        std::io::Result::Ok(Some(()))
    };
    let answered = timeout(Duration::from_millis(500), exchange).await;
    answered.ok()?.ok()?
}
