//! A `hostel serve` process with its own directory, which tests start, kill, stop and restart.

use super::{DEADLINE, backend::Shared};
use hostel::DistributedClient;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::OnceLock,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A node process and its files. Dropping it kills the process and removes the files.
pub struct Node {
    dir: TempDir,
    config: String,
    process: Option<Child>,
    address: String,
    /// The size of the file system that is mounted as the data directory, if any.
    disk: Option<&'static str>,
    /// The value of `RUST_LOG`, if not the default.
    filter: Option<&'static str>,
    /// The program to run, if not the binary under test.
    program: Option<PathBuf>,
    /// The limit of its address space in bytes, if any.
    address_space: Option<u64>,
    /// The servers that belong to the node. Dropped after the process.
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

static BINARY: OnceLock<&'static Path> = OnceLock::new();

/// Sets the binary under test, once.
pub fn set_binary(path: &'static Path) {
    BINARY.set(path).expect("one binary");
}

/// Returns the binary under test.
pub fn binary() -> &'static Path {
    BINARY.get().expect("a binary")
}

/// Returns a command that runs the binary under test.
pub fn hostel() -> Command {
    let mut command = Command::new(binary());
    command.env("NO_COLOR", "1");
    // The user of this machine may have set these for other nodes.
    for name in CONNECTION {
        command.env_remove(name);
    }
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

/// Returns `true` if `Node::with_small_disk` works here.
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

/// Returns the child processes of a process. Linux lists them by the thread that started them.
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

/// Returns a shell command with its own mount namespace.
fn in_own_mounts(script: &str) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", script]);
    command
}

/// Returns a command that runs the same program in this much address space.
fn limited(command: &Command, bytes: u64) -> Command {
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -v \"$0\" && exec \"$@\""])
        .arg((bytes >> 10).to_string())
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

impl Node {
    /// Starts a node with these plugins and additional settings: sections in TOML, without `[node]`.
    pub async fn start(plugins: &[&Path], settings: &str) -> Self {
        let node = Self::prepare(plugins, settings);
        node.started().await
    }

    /// Prepares a node in the same way without starting it.
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
            address_space: None,
            shared: None,
        };
        for plugin in plugins {
            node.add_plugin(plugin);
        }
        node
    }

    /// Mounts a file system of this size (`8m`) as the data directory. The mount is only visible to the
    /// process and disappears with it; the directory is empty at each start.
    pub fn with_small_disk(mut self, size: &'static str) -> Self {
        fs::create_dir(self.path("data")).expect("the data directory");
        self.disk = Some(size);
        self
    }

    /// Sets the node's id. The default is `test`.
    pub fn named(mut self, id: &str) -> Self {
        self.config = self.config.replace("\"test\"", &format!("{id:?}"));
        self
    }

    /// Ties servers to the lifetime of the node.
    pub fn with_servers(mut self, shared: Shared) -> Self {
        self.shared = Some(shared);
        self
    }

    /// Adds a line to the section `[node]`.
    pub fn set(&mut self, line: &str) {
        self.set_in("node", line);
    }

    /// Adds a line to a section, which is created if it is missing.
    pub fn set_in(&mut self, section: &str, line: &str) {
        let head = format!("[{section}]\n");
        if !self.config.contains(&head) {
            self.add_settings(&format!("\n{head}"));
        }
        self.config = self.config.replacen(&head, &format!("{head}{line}\n"), 1);
    }

    /// Adds sections to the settings.
    pub fn add_settings(&mut self, sections: &str) {
        self.config.push_str(sections);
    }

    /// Replaces a value everywhere in the settings.
    pub fn replace_setting(&mut self, value: &str, other: &str) {
        self.config = self.config.replace(value, other);
    }

    /// Sets `RUST_LOG`.
    pub fn set_log_filter(&mut self, filter: &'static str) {
        self.filter = Some(filter);
    }

    /// Sets the program to run, for example an earlier release.
    pub fn set_program(&mut self, program: PathBuf) {
        self.program = Some(program);
    }

    /// Limits the address space of the process.
    pub fn limit_address_space(&mut self, bytes: u64) {
        self.address_space = Some(bytes);
    }

    /// Sets the address to listen on. The default is a free port of the loopback interface.
    pub fn set_listen(&mut self, address: &str) {
        self.config = self.config.replace("127.0.0.1:0", address);
    }

    /// Returns the path of the data directory as the process sees it.
    pub fn data_dir(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid()));
        let inside = self.path("data");
        root.join(inside.strip_prefix("/").expect("an absolute path"))
    }

    /// Starts a prepared node.
    pub async fn started(mut self) -> Self {
        self.restart().await;
        self
    }

    /// Starts the process and waits until it serves.
    pub async fn restart(&mut self) {
        self.spawn();
        self.wait_until_serving().await;
    }

    /// Waits until the process serves.
    pub async fn wait_until_serving(&mut self) {
        let ports = self.path("ports.json");
        let since = Instant::now();
        while !ports.exists() {
            if let Some(status) = self.exit_status() {
                panic!("the node ended with {status}:\n{}", self.log());
            }
            assert!(since.elapsed() < DEADLINE, "no start:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ports = fs::read_to_string(ports).expect("the ports file");
        let ports: serde_json::Value = serde_json::from_str(&ports).expect("JSON");
        self.address = ports["grpc"].as_str().expect("an address").into();
    }

    /// Writes the configuration, for a process that the test starts itself.
    pub fn write_config(&self) {
        fs::write(self.path("hostel.toml"), &self.config).expect("the configuration");
    }

    /// Starts the process without waiting.
    pub fn spawn(&mut self) {
        let _ = fs::remove_file(self.path("ports.json"));
        self.write_config();
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
        if let Some(bytes) = self.address_space {
            command = limited(&command, bytes);
        }
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

    /// Adds a plugin by rename, so that the node never reads a partial file.
    pub fn add_plugin(&self, file: &Path) {
        let name = file.file_name().expect("a file name");
        let bytes = fs::read(file).expect("the plugin");
        self.add_wasm(&name.to_string_lossy(), &bytes);
    }

    /// Adds a plugin from memory in the same way.
    pub fn add_wasm(&self, name: &str, bytes: &[u8]) {
        let beside = self.path("incoming");
        fs::write(&beside, bytes).expect("the plugin");
        fs::rename(beside, self.plugins_dir().join(name)).expect("the plugin");
    }

    /// Returns the address as `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns a client that does not retry, so that the test observes every error.
    pub fn client(&self) -> DistributedClient {
        DistributedClient::connect_lazy(&self.address)
            .expect("an address")
            .with_retry_timeout(Duration::ZERO)
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a process").id()
    }

    /// Kills the process with SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Sends SIGTERM and waits for the end of the process.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.request_stop();
        self.wait_for_exit().await
    }

    /// Sends SIGTERM without waiting.
    pub fn request_stop(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("a process");
        kill_process(Pid::from_child(process), signal).expect("a signal");
    }

    /// Edits the configuration file of a running process.
    pub fn edit_config(&mut self, change: impl FnOnce(&mut String)) {
        change(&mut self.config);
        fs::write(self.path("hostel.toml"), &self.config).expect("the configuration");
    }

    /// Waits for the end of the process.
    pub async fn wait_for_exit(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.exit_status() {
                self.process = None;
                return status;
            }
            assert!(since.elapsed() < DEADLINE, "no end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns the exit status if the process has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        let process = self.process.as_mut().expect("a process");
        process.try_wait().expect("a status")
    }

    /// Returns the running child processes of the node.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.pid())
    }

    /// Returns the resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// Returns the peak resident memory in KiB since the start of the process.
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

    /// Returns the node's log.
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
