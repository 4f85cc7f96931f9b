//! SQLite on a disk that fills up and is freed again: nothing acknowledged is lost, errors say what
//! to do, and nobody has to restart anything. Needs to mount a small tmpfs; ignored where it may not.

use super::queue::{finish_one, name, task, want};
use hostel::{
    config,
    health::Health,
    queue::{Error, Finish, Finished, SqliteQueue, Submitted, TaskQueue},
    task::{Outcome, StateKind, TaskId},
};
use libtest_mimic::{Completion, Failed};
use std::{path::Path, process::Command, time::Duration};

struct Mount(tempfile::TempDir);

impl Mount {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().ok()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
            .arg(dir.path())
            .output();
        mounted.ok()?.status.success().then(|| Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

pub fn a_full_disk_loses_nothing_and_heals() -> Result<Completion, Failed> {
    let Some(mount) = Mount::new() else {
        return Ok(Completion::ignored_with("a tmpfs cannot be mounted here"));
    };
    super::sqlite::on_runtime(fill_and_free(mount.path()));
    Ok(Completion::Completed)
}

async fn fill_and_free(dir: &Path) {
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let settings = config::Sqlite {
        path: dir.join("queue.db"),
        max_open_tasks: 100_000,
        max_batch: 64,
        reserve_bytes: 1 << 20,
    };
    let queue = SqliteQueue::open(&settings, &Health::default())
        .await
        .unwrap();
    let mut kept: Vec<TaskId> = Vec::new();
    let mut refused = None;
    for n in 0..5000 {
        let id = format!("t{n}");
        match queue.submit(vec![task(&id, "echo", &[7; 2000])]).await {
            Ok(answers) => {
                assert_eq!(answers, [Submitted::Created]);
                kept.push(name(&id));
            }
            Err(error) => {
                refused = Some((id, error));
                break;
            }
        }
    }
    let (first_refused, error) = refused.expect("the disk is small");
    assert!(kept.len() > 50);
    let Error::Unavailable {
        reason,
        outcome_unknown: false,
    } = &error
    else {
        panic!("{error:?}");
    };
    assert!(
        reason.contains("full") && reason.contains("queue.db"),
        "{reason}"
    );
    // It still answers questions, and refuses the rest with the same words.
    assert!(queue.get(&kept[0]).await.unwrap().is_some());
    assert!(queue.get(&name(&first_refused)).await.unwrap().is_none());
    let counts = queue.counts().await.unwrap();
    assert_eq!(
        counts[&(name("echo"), StateKind::Pending)],
        kept.len() as u64
    );
    for n in 0..20 {
        let submission = task(&format!("u{n}"), "echo", &[7; 100_000]);
        assert!(queue.submit(vec![submission]).await.is_err());
    }

    std::fs::remove_file(&ballast).unwrap();
    let mut leased = Vec::new();
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let hour = Duration::from_secs(3600);
        if let Ok(some) = queue.lease(&want(&[("echo", 10)], 10, hour)).await {
            leased = some;
            break;
        }
    }
    assert_eq!(leased.len(), 10, "it did not recover");
    let finishes = leased.iter().map(|leased| Finish {
        token: leased.token.clone(),
        outcome: Outcome::Completed {
            result: leased.payload.slice(..100),
        },
        ran: None,
    });
    let finished = queue.finish(finishes.collect()).await.unwrap();
    assert_eq!(finished, [Finished::Applied; 10]);
    let stale = finish_one(&queue, &leased[0].token, Outcome::Cancelled).await;
    assert_eq!(stale, Finished::Stale);
    let again = task(&first_refused, "echo", &[7; 2000]);
    assert_eq!(
        queue.submit(vec![again]).await.unwrap(),
        [Submitted::Created]
    );
    queue.close().await;

    let queue = SqliteQueue::open(&settings, &Health::default())
        .await
        .unwrap();
    for id in &kept {
        assert!(queue.get(id).await.unwrap().is_some(), "{id} is lost");
    }
    queue.close().await;
}
