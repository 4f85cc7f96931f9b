//! A `hostel serve` process with a directory of its own: started, killed, stopped and started again
//! on the same data.

use super::PATIENCE;
use hostel::DistributedClient;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A node and everything it keeps. Dropping it kills it and, unless the test is failing, removes
/// its files.
pub struct Node {
    dir: TempDir,
    config: String,
    process: Option<Child>,
    address: String,
}

/// The binary under test.
pub fn hostel() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostel"));
    command.env("NO_COLOR", "1").env_remove("HOSTEL_SERVER");
    command
}

impl Node {
    /// A node over `plugins`, copied into its plugins directory, with further settings as TOML
    /// (whole sections; `[node]` belongs to this function).
    pub async fn start(plugins: &[&Path], settings: &str) -> Self {
        let mut node = Self::prepare(plugins, settings);
        node.restart().await;
        node
    }

    /// The same without starting it.
    pub fn prepare(plugins: &[&Path], settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("plugins")).expect("the plugins directory");
        let config = format!(
            "[node]\nid = \"test\"\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\ndrain_ms = 10000\n{settings}"
        );
        let node = Self {
            dir,
            config,
            process: None,
            address: String::new(),
        };
        for plugin in plugins {
            node.add_plugin(plugin);
        }
        node
    }

    /// Starts the process and waits until it serves.
    pub async fn restart(&mut self) {
        self.spawn();
        self.serves().await;
    }

    /// Waits until a process that was spawned serves.
    pub async fn serves(&mut self) {
        let ports = self.path("ports.json");
        let since = Instant::now();
        while !ports.exists() {
            if let Some(status) = self.exit_status() {
                panic!("the node ended with {status}:\n{}", self.log());
            }
            assert!(since.elapsed() < PATIENCE, "no start:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ports = fs::read_to_string(ports).expect("the ports file");
        let ports: serde_json::Value = serde_json::from_str(&ports).expect("JSON");
        self.address = ports["grpc"].as_str().expect("an address").into();
    }

    /// Starts the process and does not wait.
    pub fn spawn(&mut self) {
        let _ = fs::remove_file(self.path("ports.json"));
        fs::write(self.path("hostel.toml"), &self.config).expect("the configuration");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .expect("the log");
        let process = hostel()
            .current_dir(self.dir.path())
            .args([
                "serve",
                "--config",
                "hostel.toml",
                "--ports-file",
                "ports.json",
            ])
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("the node starts");
        self.process = Some(process);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn plugins_dir(&self) -> PathBuf {
        self.path("plugins")
    }

    /// Renamed into place, so that the node never sees half of it.
    pub fn add_plugin(&self, file: &Path) {
        let name = file.file_name().expect("a file name");
        let beside = self.path("incoming");
        fs::copy(file, &beside).expect("the plugin");
        fs::rename(beside, self.plugins_dir().join(name)).expect("the plugin");
    }

    /// As `add_plugin`, from memory.
    pub fn write_plugin(&self, name: &str, wasm: &[u8]) {
        let beside = self.path("incoming");
        fs::write(&beside, wasm).expect("the plugin");
        fs::rename(beside, self.plugins_dir().join(name)).expect("the plugin");
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A client that does not try again by itself: the test sees what happens.
    pub fn client(&self) -> DistributedClient {
        DistributedClient::connect_lazy(&self.address)
            .expect("an address")
            .with_patience(Duration::ZERO)
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a process").id()
    }

    /// kill -9, and waits until the process is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.ended().await
    }

    /// SIGTERM, without waiting.
    pub fn ask_to_stop(&self) {
        let process = self.process.as_ref().expect("a process");
        let pid = rustix::process::Pid::from_child(process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.exit_status() {
                self.process = None;
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "no end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The exit status, if the process has ended by itself.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        let process = self.process.as_mut().expect("a process");
        process.try_wait().expect("a status")
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a live process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number
            .and_then(|number| number.parse().ok())
            .expect("VmRSS")
    }

    /// Everything the node has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Runs `hostel` against this node.
    pub fn cli(&self, arguments: &[&str]) -> std::process::Output {
        hostel()
            .current_dir(self.dir.path())
            .env("HOSTEL_SERVER", &self.address)
            .args(arguments)
            .output()
            .expect("hostel runs")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("the node's last lines:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}
