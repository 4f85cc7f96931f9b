//! Three nodes that share a queue and are killed in turn: no leader, and each firing once.

use super::{every, get, tasks_of};
use crate::support::{
    self,
    backend::Shared,
    eventually,
    node::{Node, binary},
    plugins::{can_build, showcase},
    random,
};
use libtest_mimic::Trial;
use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, Instant},
};

/// Ten schedules with one firing a second each.
const SCHEDULES: usize = 10;
const EVERY_MS: u64 = 1000;

/// How long they fire, in seconds; a longer time can be asked for.
const SECONDS: u64 = 15;
const SECONDS_VARIABLE: &str = "HOSTEL_TEST_SCHEDULE_SECONDS";

const KILL_EVERY: Duration = Duration::from_secs(5);

pub fn trials() -> Vec<Trial> {
    let possible = Shared::is_installed() && can_build();
    vec![support::trial_needing(
        "schedules::firings_happen_once_while_nodes_are_killed",
        possible,
        firings_happen_once_while_nodes_are_killed,
    )]
}

/// Has the node's own clock show an hour more, where libfaketime is installed.
fn put_an_hour_ahead(node: &mut Node) {
    // The program itself would stay between the test and the node, and keep the node when it is killed.
    let faked = Command::new("faketime")
        .args(["-m", "-f", "+1h", "sh", "-c", "echo $LD_PRELOAD; date +%s"])
        .output();
    let Some(faked) = faked.ok().filter(|faked| faked.status.success()) else {
        println!("schedules: without faketime, all clocks agree");
        return;
    };
    let faked = String::from_utf8_lossy(&faked.stdout);
    let (library, time) = faked.trim().split_once('\n').expect("two lines");
    let time: u64 = time.parse().expect("a number");
    assert!(time > super::now() / 1000 + 3500);
    let script = node.path("an-hour-ahead");
    let text = format!(
        "#!/bin/sh\nexport FAKETIME=+1h FAKETIME_DONT_FAKE_MONOTONIC=1 LD_PRELOAD='{library}'\n\
         exec '{}' \"$@\"\n",
        binary().display()
    );
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("a script");
    node.set_program(script);
}

async fn firings_happen_once_while_nodes_are_killed() {
    let mut rng = random("schedules");
    let seconds = env::var(SECONDS_VARIABLE).ok();
    let seconds = seconds.map_or(SECONDS, |given| given.parse().expect("a number"));
    let shared = Shared::start_with(&["--appendfsync", "always"]).await;
    let mut nodes = Vec::new();
    for id in ["a", "b", "c"] {
        let ttl = Duration::from_secs(2);
        let mut node = shared.prepare_sharing_tasks(id, &[&showcase("echo")], ttl);
        if id == "c" {
            put_an_hour_ahead(&mut node);
        }
        nodes.push(node.started().await);
    }
    let names: Vec<String> = (0..SCHEDULES).map(|number| format!("s{number}")).collect();
    for name in &names {
        super::create(&nodes[0], every(name, EVERY_MS)).await;
    }
    let begun = Instant::now();
    let mut victim = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(KILL_EVERY.mul_f64(rng.f64() * 0.4 + 0.8)).await;
        nodes[victim].kill();
        tokio::time::sleep(Duration::from_millis(rng.u64(..1000))).await;
        nodes[victim].restart().await;
        victim = (victim + 1) % nodes.len();
    }
    let mut latest = 0;
    for name in &names {
        let node = &nodes[0];
        eventually("the schedule is paused", async || {
            node.client().pause_schedule(name).await.ok()
        })
        .await;
        let tasks = eventually("all tasks have ended", async || {
            let tasks = tasks_of(&mut node.client(), name).await;
            let ended = tasks.values().all(|task| task.status == "completed");
            ended.then_some(tasks)
        })
        .await;
        let schedule = get(node, name).await;
        assert_eq!(tasks.len() as u64, schedule.fired, "{name}");
        assert!(schedule.fired >= seconds, "{name}: {}", schedule.fired);
        assert_eq!(tasks.keys().last(), Some(&schedule.last_fired_ms));
        let times: Vec<u64> = tasks.keys().copied().collect();
        let gap = times.windows(2).find(|pair| pair[1] - pair[0] != EVERY_MS);
        assert_eq!(gap, None, "{name}");
        for (time, task) in &tasks {
            assert_eq!(task.finishes, 1, "{task:?}");
            assert!(task.submitted_at_ms >= *time, "{task:?}");
            latest = latest.max(task.submitted_at_ms - time);
        }
    }
    println!(
        "schedules: {SCHEDULES} schedules over {seconds} s with a kill about every {KILL_EVERY:?}: each \
         firing once, the latest {latest} ms after its time"
    );
}
