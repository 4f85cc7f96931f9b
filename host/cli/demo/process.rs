//! The processes of the demo's cluster: a Redis, an etcd and nodes, on free ports of loopback, each
//! with a log of its own. None outlives its handle, nor, on Linux, a demo that is killed (`tied.rs`). What
//! they are for is `cluster.rs`'s.

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

/// How long a process may take to serve; plugins may have to be compiled.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long one may take to end when asked to.
const END: Duration = Duration::from_secs(20);

/// A child. Dropping it kills it.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`, with all it says in `log`.
    fn start(program: &Path, arguments: &[&OsStr], log: PathBuf) -> anyhow::Result<Self> {
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        // Itself, to become the program once that is sure to end with the demo.
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("tied").arg(std::process::id().to_string());
        // What is set for the demo's user must not win over the files that nodes are given here.
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
            // Ctrl-C is for the demo, which ends nodes before what they need.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { child, log })
    }

    /// An error with the end of its log once it has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(10)..].join("\n");
            bail!("{} ended ({status}):\n{end}", self.log.display());
        }
        Ok(())
    }

    /// Asks again and again until there is an answer.
    async fn until<T>(&mut self, mut ask: impl AsyncFnMut() -> Option<T>) -> anyhow::Result<T> {
        let since = Instant::now();
        loop {
            self.check()?;
            if let Some(answer) = ask().await {
                return Ok(answer);
            }
            let log = self.log.display();
            ensure!(since.elapsed() < PATIENCE, "no start yet; see {log}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGTERM, and the end awaited; SIGKILL when that takes too long.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id.and_then(Pid::from_raw) {
            // It may have ended a moment ago.
            let _ = kill_process(id, Signal::TERM);
        }
        if timeout(END, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

/// The programs of other projects that a cluster shares.
pub struct Programs {
    redis: PathBuf,
    etcd: PathBuf,
}

impl Programs {
    pub fn find() -> anyhow::Result<Self> {
        Ok(Self {
            redis: on_path("redis-server", "redis-server")?,
            etcd: on_path("etcd", "etcd-server")?,
        })
    }

    /// A Redis that writes tasks to disk, and its URL.
    pub async fn redis(&self, dir: &Path) -> anyhow::Result<(Process, String)> {
        let data = dir.join("redis");
        fs::create_dir_all(&data)?;
        with_free_port(async |port| {
            let number = port.to_string();
            let mut arguments = texts(&["--bind", "127.0.0.1", "--port", &number, "--dir"]);
            arguments.push(data.as_os_str());
            arguments.extend(texts(&["--save", "", "--appendonly", "yes"]));
            let mut redis = Process::start(&self.redis, &arguments, dir.join("redis.log"))?;
            let well = async || says(port, "PING\r\n", "+PONG").await;
            redis.until(well).await?;
            Ok((redis, format!("redis://127.0.0.1:{port}")))
        })
        .await
    }

    /// An etcd of one, and its endpoint.
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
            let well = async || says(port, "GET /health HTTP/1.0\r\n\r\n", "\"true\"").await;
            etcd.until(well).await?;
            Ok((etcd, client.clone()))
        })
        .await
    }
}

/// A node with `hostel.toml` in its directory, as this very program, and where it serves.
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

/// Where a node that was just started serves, once it does.
pub async fn address(node: &mut Process, dir: &Path) -> anyhow::Result<String> {
    let ports = dir.join("ports");
    let text = node.until(async || fs::read_to_string(&ports).ok()).await?;
    let bound: serde_json::Value = serde_json::from_str(&text)?;
    let address = bound["grpc"]
        .as_str()
        .context("no address in a ports file")?;
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

/// Another process may take a port between the look for a free one and the start: then once more.
async fn with_free_port<T>(start: impl AsyncFn(u16) -> anyhow::Result<T>) -> anyhow::Result<T> {
    for _ in 0..4 {
        if let Ok(started) = start(free_port()?).await {
            return Ok(started);
        }
    }
    start(free_port()?).await
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Whether the server at `port` answers `question` with `answer`.
async fn says(port: u16, question: &str, answer: &str) -> Option<()> {
    let asked = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(question.as_bytes()).await?;
        let (mut said, mut part) = (Vec::new(), [0; 512]);
        while !String::from_utf8_lossy(&said).contains(answer) {
            match stream.read(&mut part).await? {
                0 => return Ok(None),
                read => said.extend_from_slice(&part[..read]),
            }
        }
        std::io::Result::Ok(Some(()))
    };
    let asked = timeout(Duration::from_millis(500), asked).await;
    asked.ok()?.ok()?
}
