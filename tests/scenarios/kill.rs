//! kill -9, again and again, under load and during start: whatever was acknowledged ends, exactly
//! once, and what has ended never changes.

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
        "kill::what_was_acknowledged_ends_once",
        what_was_acknowledged_ends_once,
    )
    .into()
}

async fn what_was_acknowledged_ends_once(on: Backend) {
    let mut rng = random("kill");
    let mut node = on.prepare(&[&showcase("echo")], SETTINGS).await;
    // Nobody else is there to see that a holder has died: its lease has to end.
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
        node.serves().await;
        load.serve_at(vec![node.address().into()]);
        load.ledger.audit(node.address(), &mut rng).await;
        load.goes_on(rng.u64(..300)).await;
        tokio::time::sleep(Duration::from_micros(rng.u64(..30_000))).await;
        load.serve_at(Vec::new());
        // Now and then what it stands on is killed as well, just before.
        if kill % 3 == 0
            && let Some(shared) = &mut node.shared
        {
            shared.restart().await;
        }
        node.kill();
    }
    node.restart().await;
    load.serve_at(vec![node.address().into()]);
    let ledger = load.ledger.clone();
    let (tasks, lost) = load.settle(node.address()).await;
    println!(
        "kill: {tasks} tasks acknowledged over {KILLS} kills ({in_start} during start), \
         {} calls broken, {lost} attempts lost and made good",
        ledger.broken_calls.load(Relaxed)
    );
    assert!(lost > 0, "no kill hit a running task: this proves nothing");
}
