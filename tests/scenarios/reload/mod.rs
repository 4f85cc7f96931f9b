//! Reload under load: a plugin is replaced two hundred times, in all usual ways, while tasks run.
//! `ledger.rs` keeps what happened, outside of the node.

mod ledger;

use crate::support::{
    backend::{Backend, on_both},
    eventually,
    node::Node,
    now_ms,
    plugins::{TRAP, guest, signing_echo},
    random, task,
};
use hostel::{
    DistributedClient,
    plugin::TestGuest,
    proto::hostel::v1::{ListPluginsResponse, Plugin},
};
use ledger::{Ledger, Swap};
use libtest_mimic::Trial;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Code;

const LOADERS: u64 = 4;
/// The number of tasks that have to run on a version before the next replacement.
const TASKS_BETWEEN: usize = 20;

/// Disables rescans, so that a missed file event makes the test fail.
const NO_RESCAN: &str = "[plugins]\nrescan_ms = 3600000\n";

pub fn trials() -> Vec<Trial> {
    [
        on_both(
            "reload::reloads_under_load_lose_no_task",
            reloads_under_load_lose_no_task,
        ),
        on_both(
            "reload::a_task_waits_for_its_plugin",
            a_task_waits_for_its_plugin,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn reloads_under_load_lose_no_task(on: Backend) {
    let mut rng = random("reload");
    let versions = ["1.0.0", "2.0.0"].map(Version::build);
    let node = on.prepare(&[], NO_RESCAN).await;
    node.add_wasm("echo.wasm", &versions[0].wasm);
    let node = node.started().await;
    if on == Backend::Embedded {
        fill_caches(&node).await;
    }
    let swaps = on.times(200, 100);
    let ledger = Arc::<Ledger>::default();
    ledger.swaps.lock().push(Swap {
        begun: 0,
        complete: now_ms(),
        version: versions[0].name,
    });
    let stop = CancellationToken::new();
    let mut loaders = JoinSet::new();
    for number in 0..LOADERS {
        let load = ledger.clone().load(node.client(), number, stop.clone());
        loaders.spawn(load);
    }

    let operator = Operator {
        file: node.plugins_dir().join("echo.wasm"),
        beside: node.path("beside"),
        node: &node,
    };
    let mut resident = Vec::new();
    for swap in 1..=swaps {
        let version = &versions[swap % 2];
        let way = WAYS[swap % WAYS.len()];
        let begun = now_ms();
        operator.replace(way, version, &mut rng).await;
        let complete = operator.serves(version, way).await;
        ledger.swaps.lock().push(Swap {
            begun,
            complete,
            version: version.name,
        });
        ledger.some_more(complete, &mut loaders).await;
        // Not while the file is a link, since the write would change the version itself.
        if way == Way::InPlace && swap % 3 == 0 {
            operator.spoil(swap / 3, version).await;
            ledger.some_more(now_ms(), &mut loaders).await;
        }
        if swap == 20 || swap == swaps {
            resident.push(settled_kib(&node).await);
        }
    }
    stop.cancel();
    while let Some(ended) = loaders.join_next().await {
        ended.expect("no loader fails");
    }
    let tasks = ledger.check();
    let rejected = ledger.rejected.lock().len();
    println!(
        "reload: {tasks} tasks over {swaps} swaps; {rejected} submissions rejected while the plugin \
         was removed; resident after 20 swaps {} KiB, after {swaps} {} KiB",
        resident[0], resident[1]
    );
    assert!(
        resident[1] * 10 <= resident[0] * 11,
        "memory grows with reloads: {resident:?} KiB"
    );
}

/// Fills the page cache of the database up to its limit, so that later growth comes from the reloads.
async fn fill_caches(node: &Node) {
    let large = vec![7; 256 << 10];
    let fill = |mut client: DistributedClient| {
        let large = large.clone();
        async move {
            for _ in 0..120 {
                let done = client.submit_and_wait(task("echo", large.clone())).await;
                assert_eq!(done.expect("it runs").status, "completed");
            }
        }
    };
    let mut filling = JoinSet::new();
    for _ in 0..LOADERS {
        filling.spawn(fill(node.client()));
    }
    while let Some(filled) = filling.join_next().await {
        filled.expect("no client fails");
    }
}

/// Returns the minimum of several measurements, since the load varies.
async fn settled_kib(node: &Node) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..40 {
        least = least.min(node.resident_kib());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    least
}

/// One build of the plugin.
struct Version {
    name: &'static str,
    file: PathBuf,
    wasm: Vec<u8>,
    sha256: String,
}

impl Version {
    fn build(name: &'static str) -> Self {
        let file = signing_echo(name);
        let wasm = fs::read(&file).expect("the plugin");
        let digest = Sha256::digest(&wasm);
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            name,
            file,
            wasm,
            sha256,
        }
    }
}

/// A way to replace a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Rename,
    Copy,
    DeleteAndBack,
    InPlace,
    Symlink,
}

/// The order of the ways. The one after a link must replace the link and not its target.
const WAYS: [Way; 5] = [
    Way::Rename,
    Way::Copy,
    Way::DeleteAndBack,
    Way::InPlace,
    Way::Symlink,
];

/// Replaces the file in the plugins directory.
struct Operator<'n> {
    file: PathBuf,
    beside: PathBuf,
    node: &'n Node,
}

impl Operator<'_> {
    async fn replace(&self, way: Way, version: &Version, rng: &mut fastrand::Rng) {
        match way {
            Way::Rename => self.rename_into_place(&version.wasm),
            Way::Copy => {
                fs::copy(&version.file, &self.file).expect("a copy");
            }
            Way::DeleteAndBack => {
                fs::remove_file(&self.file).expect("a file");
                eventually("the node unloads it", async || {
                    self.serving().await.is_none().then_some(())
                })
                .await;
                self.rename_into_place(&version.wasm);
            }
            Way::InPlace => self.write_in_place(&version.wasm, rng).await,
            Way::Symlink => {
                symlink(&version.file, &self.beside).expect("a link");
                fs::rename(&self.beside, &self.file).expect("in place");
            }
        }
    }

    fn rename_into_place(&self, bytes: &[u8]) {
        fs::write(&self.beside, bytes).expect("a file");
        fs::rename(&self.beside, &self.file).expect("in place");
    }

    /// Writes in chunks, with pauses in which the node may read a partial file.
    async fn write_in_place(&self, bytes: &[u8], rng: &mut fastrand::Rng) {
        let mut file = File::create(&self.file).expect("a file");
        for piece in bytes.chunks(bytes.len() / 3) {
            file.write_all(piece).expect("a piece");
            tokio::time::sleep(Duration::from_millis(rng.u64(..100))).await;
        }
    }

    /// Writes a file that cannot be loaded, and checks that the serving version stays and the node
    /// reports the error.
    async fn spoil(&self, kind: usize, serving: &Version) {
        let half = &serving.wasm[..serving.wasm.len() / 2];
        let traps = TestGuest {
            name: "echo",
            version: "9.9.9",
            task_types: &["echo"],
            describe: TRAP,
            ..TestGuest::default()
        };
        let (bytes, expected) = match kind % 3 {
            0 => (b"rubbish".to_vec(), ""),
            1 => (half.to_vec(), ""),
            _ => (guest(&traps), "describe"),
        };
        match kind % 2 {
            0 => self.rename_into_place(&bytes),
            _ => fs::write(&self.file, &bytes).expect("in place"),
        }
        let error = eventually("the file is rejected", async || {
            let list = self.list().await;
            let serves = list.plugins.iter().find(|plugin| plugin.name == "echo");
            let serves = serves.expect("the valid version serves");
            assert_eq!(serves.sha256, serving.sha256);
            let mut rejected = list.rejected.into_iter();
            let ours = rejected.find(|rejected| rejected.file == "echo.wasm");
            ours.map(|rejected| rejected.error)
        })
        .await;
        assert!(!error.is_empty() && error.contains(expected), "{error}");
    }

    /// Waits until the version serves and returns the time of the observation.
    async fn serves(&self, version: &Version, way: Way) -> u64 {
        let what = format!("{} serves after {way:?}", version.name);
        eventually(&what, async || {
            let now = self.serving().await?;
            (now.sha256 == version.sha256).then(|| assert_eq!(now.version, version.name))
        })
        .await;
        now_ms()
    }

    async fn serving(&self) -> Option<Plugin> {
        let list = self.list().await;
        list.plugins
            .into_iter()
            .find(|plugin| plugin.name == "echo")
    }

    async fn list(&self) -> ListPluginsResponse {
        let listed = self.node.client().list_plugins().await;
        listed.unwrap_or_else(|status| panic!("{status}:\n{}", self.node.log()))
    }
}

async fn a_task_waits_for_its_plugin(on: Backend) {
    let settings = format!(
        "{NO_RESCAN}[plugin.late.task.late]\nmax_attempts = 1000\n\
         backoff_initial_ms = 3000\nbackoff_max_ms = 3000\n"
    );
    let node = on.prepare(&[], &settings).await;
    let sample = |version, handle| {
        guest(&TestGuest {
            name: "late",
            version,
            task_types: &["late"],
            handle,
            ..TestGuest::default()
        })
    };
    node.add_wasm("late.wasm", &sample("1", TRAP));
    let node = node.started().await;
    let mut client = node.client();
    let id = client.submit_task(task("late", "over")).await.unwrap();
    eventually("the first attempt fails", async || {
        let status = node.client().get_task_status(&id).await.unwrap();
        assert!(status.status == "pending" || status.status == "running");
        (!status.error.is_empty()).then_some(())
    })
    .await;

    fs::remove_file(node.plugins_dir().join("late.wasm")).unwrap();
    let waits = eventually("the status states what the task waits for", async || {
        let status = node.client().get_task_status(&id).await.unwrap();
        status.waiting_for.contains("plugin").then_some(status)
    })
    .await;
    assert_eq!(waits.status, "pending");
    assert!(waits.waiting_for.contains("late"), "{waits:?}");
    let refused = client.submit_task(task("late", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);

    let echoes = TestGuest::default().handle;
    node.add_wasm("late.wasm", &sample("2", echoes));
    let ended = client.wait_for_task(&id).await.unwrap();
    assert_eq!((ended.status.as_str(), ended.finishes), ("completed", 1));
    assert_eq!(ended.result, "over".as_bytes());
    assert_eq!(ended.plugin_version, "2");
}
