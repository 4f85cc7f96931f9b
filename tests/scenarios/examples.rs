//! The programs in `examples/` run as their comments describe.

use crate::support::{
    DEADLINE, eventually,
    node::binary,
    servers::{Kind, Server},
    trial_needing,
};
use hostel::DistributedClient;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const CLUSTER: &str = "examples::the_cluster_quickstart_serves_with_etcd_and_redis";

/// Names the example in the process that has a network of its own.
const IN_OWN_NETWORK: &str = "HOSTEL_TEST_IN_OWN_NETWORK";

pub fn trials() -> Vec<Trial> {
    let is_prepared = || {
        let has_servers = Kind::Redis.is_installed() && Kind::Etcd.is_installed();
        has_servers && example("quickstart_cluster").is_file() && can_have_own_network()
    };
    let is_possible = env::var_os(IN_OWN_NETWORK).is_some() || is_prepared();
    vec![
        trial_needing(
            "examples::the_quickstart_submits_and_streams",
            example("quickstart").is_file(),
            quickstart,
        ),
        trial_needing(CLUSTER, is_possible, cluster),
    ]
}

/// Returns the program of an example, which `cargo test` builds beside the binary unless it is asked for
/// some targets only.
fn example(name: &str) -> PathBuf {
    binary().with_file_name("examples").join(name)
}

async fn quickstart() {
    let ran = Command::new(example("quickstart"))
        .output()
        .expect("the example runs");
    assert!(ran.status.success(), "{ran:?}");
    let output = String::from_utf8(ran.stdout).expect("text");
    for line in [
        "custom-1 starts",
        "rejected: ",
        "response from node-1",
        "request from client",
        "custom-1 stops",
    ] {
        assert!(output.contains(line), "{line:?} is missing in:\n{output}");
    }
}

/// A command line that runs what follows it in a network namespace with a loopback interface.
fn in_own_network() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let script = "ip link set lo up && exec \"$0\" \"$@\"";
    command.args(["--net", "--kill-child", "sh", "-c", script]);
    command
}

fn can_have_own_network() -> bool {
    let mut command = in_own_network();
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet
        .arg("true")
        .status()
        .is_ok_and(|status| status.success())
}

/// The example uses the default ports of both servers, so it runs in a network of its own.
async fn cluster() {
    if let Some(example) = env::var_os(IN_OWN_NETWORK) {
        return cluster_in_own_network(example.as_ref()).await;
    }
    let ran = in_own_network()
        .arg(env::current_exe().expect("this program"))
        .args([CLUSTER, "--exact"])
        .env(IN_OWN_NETWORK, example("quickstart_cluster"))
        .output()
        .expect("unshare runs");
    let output = String::from_utf8_lossy(&ran.stdout);
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{output}{errors}");
    assert!(output.contains("1 passed"), "{output}{errors}");
}

async fn cluster_in_own_network(example: &Path) {
    let (_redis, etcd) = tokio::join!(
        Server::start_at_default_port(Kind::Redis),
        Server::start_at_default_port(Kind::Etcd),
    );
    let node = Command::new(example)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the example starts");
    eventually("the node lists itself", async || {
        let client = DistributedClient::connect("http://127.0.0.1:50051").await;
        let listed = client.ok()?.list_nodes().await.ok()?.nodes;
        listed.iter().any(|node| node.id == "node-1").then_some(())
    })
    .await;
    let mut admin = etcd_client::Client::connect([etcd.url()], None)
        .await
        .expect("etcd");
    let record = admin.get("/services/nodes/node-1", None).await;
    assert_eq!(record.expect("an answer").count(), 1);

    let pid = Pid::from_child(&node);
    kill_process(pid, Signal::INT).expect("a signal");
    let ended = tokio::task::spawn_blocking(move || node.wait_with_output());
    let ended = tokio::time::timeout(DEADLINE, ended).await;
    if ended.is_err() {
        // Or the runtime of this test would wait for it, too.
        let _ = kill_process(pid, Signal::KILL);
    }
    let ended = ended.expect("the node stops").expect("no panic");
    let ended = ended.expect("an exit status");
    assert!(ended.status.success(), "{ended:?}");
    let output = String::from_utf8(ended.stdout).expect("text");
    assert_eq!(output, "custom-1 starts\ncustom-1 stops\n");
}
