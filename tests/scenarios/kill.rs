//! A node that is killed repeatedly, under load and during its start: acknowledged tasks end exactly
//! once, and ended tasks never change.

use crate::support::{
    backend::{Backend, on_both},
    ledger::{Load, SETTINGS},
    plugins::showcase,
    random,
};
use libtest_mimic::Trial;
use std::{sync::atomic::Ordering::Relaxed, time::Duration};

const KILLS: usize = 50;

pub fn trials() -> Vec<Trial> {
    on_both(
        "kill::acknowledged_tasks_end_exactly_once",
        acknowledged_tasks_end_exactly_once,
    )
    .into()
}

async fn acknowledged_tasks_end_exactly_once(on: Backend) {
    let mut rng = random("kill");
    let mut node = on.prepare(&[&showcase("echo")], SETTINGS).await;
    // With a shared queue, the leases of a killed node have to expire.
    node.set_in("queue", "lease_ttl_ms = 2000");
    let mut load = Load::start(&mut rng);
    let mut in_start = 0;
    for kill in 0..KILLS {
        node.spawn();
        if rng.u8(..4) == 0 {
            in_start += 1;
            tokio::time::sleep(Duration::from_millis(rng.u64(..200))).await;
            node.kill();
            continue;
        }
        node.wait_until_serving().await;
        load.set_addresses(vec![node.address().into()]);
        load.ledger.audit(node.address(), &mut rng).await;
        load.wait_for_more(rng.u64(..300)).await;
        tokio::time::sleep(Duration::from_micros(rng.u64(..30_000))).await;
        load.set_addresses(Vec::new());
        // At times the servers are killed as well, just before the node.
        if kill % 3 == 0
            && let Some(shared) = &mut node.shared
        {
            shared.restart().await;
        }
        node.kill();
    }
    node.restart().await;
    load.set_addresses(vec![node.address().into()]);
    let ledger = load.ledger.clone();
    let (tasks, lost) = load.settle(node.address()).await;
    println!(
        "kill: {tasks} tasks acknowledged over {KILLS} kills ({in_start} during start), \
         {} calls broken, {lost} attempts lost and made good",
        ledger.broken_calls.load(Relaxed)
    );
    assert!(
        lost > 0,
        "no kill hit a running task, so the test shows nothing"
    );
}
