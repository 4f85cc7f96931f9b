//! The time of the disk for a durable write of 4 KiB, which every acknowledged submission waits for.

use crate::{ROUNDS, median, report::Row, rounds};
use std::{
    io::Write,
    time::{Duration, Instant},
};

pub fn rows() -> Vec<Row> {
    let p50 = median(rounds(|_| p50_ms(300)));
    let what = format!("append 4 KiB and fdatasync, p50 of 300, {ROUNDS} rounds");
    vec![Row::new(what, "ms", p50)]
}

/// Returns the median time of `count` appends to a new file, each followed by a sync.
pub fn p50_ms(count: usize) -> f64 {
    let mut file = tempfile::tempfile().expect("a file in the data directory");
    let block = [0x5a; 4096];
    let took: Vec<Duration> = (0..count)
        .map(|_| {
            let begin = Instant::now();
            file.write_all(&block).expect("a write");
            file.sync_data().expect("a sync");
            begin.elapsed()
        })
        .collect();
    median(took.iter().map(|t| t.as_secs_f64() * 1000.0).collect())
}
