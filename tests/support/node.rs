//! A `hostel serve` process with a directory of its own: started, killed, stopped and started again
//! on the same data.

use super::{PATIENCE, backend::Shared};
use hostel::DistributedClient;
use rustix::process::{Pid, Signal, kill_process};
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
    /// What the data directory is: a file system of this size, the process's own.
    disk: Option<&'static str>,
    /// What it logs, where that is not the usual.
    filter: Option<&'static str>,
    /// The program that it runs, where that is not the binary under test.
    program: Option<PathBuf>,
    /// What it stands on besides its files. Goes after the process.
    pub shared: Option<Shared>,
}

const CONNECTION: [&str; 7] = [
    "HOSTEL_SERVER",
    "HOSTEL_TOKEN",
    "HOSTEL_TOKEN_FILE",
    "HOSTEL_CA_FILE",
    "HOSTEL_CERT_FILE",
    "HOSTEL_KEY_FILE",
    "HOSTEL_CLIENT",
];

/// The binary under test.
pub fn hostel() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostel"));
    command.env("NO_COLOR", "1");
    // What the user at this machine has for nodes of their own.
    for name in CONNECTION {
        command.env_remove(name);
    }
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

/// Whether `Node::on_small_disk` works here.
pub fn can_mount() -> bool {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mounted = in_own_mounts("mount -t tmpfs tmpfs \"$0\"")
        .arg(dir.path())
        .output();
    mounted.is_ok_and(|out| out.status.success())
}

fn hostel_on_disk(size: &str, dir: &Path) -> Command {
    let mount = format!("mount -t tmpfs -o size={size},mode=700 tmpfs \"$0\" && exec \"$@\"");
    let mut command = in_own_mounts(&mount);
    command
        .arg(dir)
        .arg(hostel().get_program())
        .env("NO_COLOR", "1");
    command
}

/// The child processes of a process: each belongs to the thread that started it.
pub fn children_of(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    let mut children = Vec::new();
    for list in lists.flatten() {
        children.extend(
            list.split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
    }
    children
}

/// A shell that may mount and whose mounts end with it.
fn in_own_mounts(script: &str) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", script]);
    command
}

impl Node {
    /// A node over `plugins`, copied into its plugins directory, with further settings as TOML
    /// (whole sections; `[node]` belongs to this function).
    pub async fn start(plugins: &[&Path], settings: &str) -> Self {
        let node = Self::prepare(plugins, settings);
        node.started().await
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
            disk: None,
            filter: None,
            program: None,
            shared: None,
        };
        for plugin in plugins {
            node.add_plugin(plugin);
        }
        node
    }

    /// With a data directory that is a file system of its own, of this size (`8m`). Nobody outside
    /// the process sees it mounted, so nothing is left behind; it is empty at each start.
    pub fn on_small_disk(mut self, size: &'static str) -> Self {
        fs::create_dir(self.path("data")).expect("the data directory");
        self.disk = Some(size);
        self
    }

    /// Another id than the one that all nodes of tests have.
    pub fn named(mut self, id: &str) -> Self {
        self.config = self.config.replace("\"test\"", &format!("{id:?}"));
        self
    }

    /// With servers that live as long as it does.
    pub fn keeping(mut self, shared: Shared) -> Self {
        self.shared = Some(shared);
        self
    }

    /// One more setting of `[node]`, as its line.
    pub fn set(&mut self, line: &str) {
        self.set_in("node", line);
    }

    /// One more setting of that section, which may be there already.
    pub fn set_in(&mut self, section: &str, line: &str) {
        let head = format!("[{section}]\n");
        if !self.config.contains(&head) {
            self.add_settings(&format!("\n{head}"));
        }
        self.config = self.config.replacen(&head, &format!("{head}{line}\n"), 1);
    }

    /// Further settings, as whole sections.
    pub fn add_settings(&mut self, sections: &str) {
        self.config.push_str(sections);
    }

    /// Another value wherever this one stands in the settings.
    pub fn replace_setting(&mut self, value: &str, other: &str) {
        self.config = self.config.replace(value, other);
    }

    /// What the node logs, as `RUST_LOG` has it.
    pub fn logging(&mut self, filter: &'static str) {
        self.filter = Some(filter);
    }

    /// Another program than the binary under test, such as an earlier release.
    pub fn run_by(&mut self, program: PathBuf) {
        self.program = Some(program);
    }

    /// Another address than a free port of loopback.
    pub fn listen(&mut self, address: &str) {
        self.config = self.config.replace("127.0.0.1:0", address);
    }

    /// The data directory as the process sees it.
    pub fn data_dir(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid()));
        let inside = self.path("data");
        root.join(inside.strip_prefix("/").expect("an absolute path"))
    }

    /// A prepared node, started.
    pub async fn started(mut self) -> Self {
        self.restart().await;
        self
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
        let mut command = match (self.disk, &self.program) {
            (Some(size), _) => hostel_on_disk(size, &self.path("data")),
            (None, Some(program)) => Command::new(program),
            (None, None) => hostel(),
        };
        command.envs(self.filter.map(|filter| ("RUST_LOG", filter)));
        let process = command
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
        let bytes = fs::read(file).expect("the plugin");
        self.add_wasm(&name.to_string_lossy(), &bytes);
    }

    /// The same from memory.
    pub fn add_wasm(&self, name: &str, bytes: &[u8]) {
        let beside = self.path("incoming");
        fs::write(&beside, bytes).expect("the plugin");
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
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("a process");
        kill_process(Pid::from_child(process), signal).expect("a signal");
    }

    /// Other settings, for a process that reads them again.
    pub fn rewrite_config(&mut self, change: impl FnOnce(&mut String)) {
        change(&mut self.config);
        fs::write(self.path("hostel.toml"), &self.config).expect("the configuration");
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

    /// The processes that it has started and that have not been reaped.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.pid())
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// The most that resident memory has been since the process started.
    pub fn peak_resident_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a live process");
        let line = status.lines().find(|line| line.starts_with(field));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.and_then(|number| number.parse().ok()).expect(field)
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
