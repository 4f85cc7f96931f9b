//! The delays of a loader, and when it takes a file as finished.

use super::*;
use crate::{sandbox::capabilities::Capabilities, testing};
use hostel_runtime::health::Health;

#[test]
fn retries_back_off_up_to_a_limit() {
    let delays = std::iter::successors(Some(RETRY), |last| Some(retry_after(Some(*last))));
    let seconds: Vec<u64> = delays.map(|delay| delay.as_secs()).take(8).collect();
    assert_eq!(seconds, [10, 20, 40, 80, 160, 320, 600, 600]);
    assert_eq!(retry_after(None), RETRY);
}

#[tokio::test]
async fn a_file_from_the_future_is_refused_after_few_reads() {
    let dir = tempfile::tempdir().unwrap();
    let config = testing::config(dir.path());
    let plugins = &config.plugins;
    std::fs::create_dir_all(&plugins.dir).unwrap();
    std::fs::write(plugins.dir.join("bad.wasm"), "rubbish").unwrap();
    let builder = Builder::new(&config, Capabilities::default(), &Health::default()).unwrap();
    let mut loader = Loader::new(
        plugins.dir.clone(),
        plugins.rescan,
        Arc::new(builder),
        Arc::default(),
        watch::Sender::new(0),
    );
    loader.clock = || SystemTime::now() - Duration::from_secs(600);
    // The file comes after the start.
    loader.scanned = true;
    loader.scan().await;
    let (begin, mut jobs, mut refused_after) = (Instant::now(), 0, None);
    while begin.elapsed() < Duration::from_secs(4) {
        let scan_at = loader.scan_at;
        let pause = Instant::now() + Duration::from_millis(100);
        tokio::select! {
            Some(done) = loader.jobs.join_next_with_id() => {
                jobs += 1;
                loader.done(done);
            }
            () = tokio::time::sleep_until(scan_at.unwrap_or(pause)) => {
                loader.scan_at = None;
                loader.scan().await;
            }
        }
        if refused_after.is_none() && !loader.catalog.view().rejected.is_empty() {
            refused_after = Some(begin.elapsed());
        }
    }
    let refused_after = refused_after.expect("it is refused");
    assert!(refused_after < Duration::from_secs(1), "{refused_after:?}");
    // Two that are refused, of a read and a load each, and the read that finds nothing new.
    assert!(jobs <= 6, "{jobs} jobs");
}
