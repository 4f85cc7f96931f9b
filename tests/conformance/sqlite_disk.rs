//! SQLite on a disk that is filled by its own data or by other files: nothing acknowledged is lost,
//! finishing, cancelling and deleting still work, errors say what to do, and no restart is needed.
//! Mounts a small tmpfs; ignored where that is not permitted.

use super::queue::{finish_one, name, request, task};
use hostel::{
    config::{Config, Sqlite},
    health::{Health, Part},
    keyvalue::{Change, KeyValue, SqliteKeyValue},
    queue::{Cancel, Error, Finished, Leased, Renew, Renewal, SqliteQueue, Submitted, TaskQueue},
    task::{Outcome, Retention, TaskId},
};
use libtest_mimic::{Completion, Failed, Trial};
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const HOUR: Duration = Duration::from_secs(3600);
const RESERVE: u64 = 1 << 20;

struct Mount(tempfile::TempDir);

impl Mount {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().ok()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(dir.path())
            .output();
        mounted.ok()?.status.success().then(|| Self(dir))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

pub fn trials() -> Vec<Trial> {
    vec![
        on_small_disk("queue::sqlite::a_disk_that_tasks_filled_recovers", |dir| {
            Box::pin(tasks_fill_the_disk(dir))
        }),
        on_small_disk(
            "queue::sqlite::a_disk_that_other_files_filled_recovers",
            |dir| Box::pin(other_files_fill_the_disk(dir)),
        ),
        on_small_disk("keyvalue::sqlite::a_full_disk_still_deletes", |dir| {
            Box::pin(values_fill_the_disk(dir))
        }),
    ]
}

type Run = std::pin::Pin<Box<dyn Future<Output = ()>>>;

fn on_small_disk(name: &str, run: fn(PathBuf) -> Run) -> Trial {
    Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
        let Some(mount) = Mount::new() else {
            return Ok(Completion::ignored_with("a tmpfs cannot be mounted here"));
        };
        super::sqlite::on_runtime(run(mount.0.path().to_owned()));
        Ok(Completion::Completed)
    })
}

/// Fills the disk with another file, to its last byte.
fn ballast(dir: &Path) -> PathBuf {
    let path = dir.join("ballast");
    let mut file = File::create(&path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    path
}

async fn open(dir: &Path, health: &Health) -> SqliteQueue {
    let settings = Sqlite {
        path: dir.join("queue.db"),
        max_open_tasks: 100_000,
        max_batch: 64,
        reserve_bytes: RESERVE,
    };
    SqliteQueue::open(&settings, health).await.unwrap()
}

fn is_full(health: &Health, part: Part) -> bool {
    health.faults().contains_key(&(part, "full"))
}

fn reserve(dir: &Path, of: &str) -> u64 {
    let file = dir.join(format!("{of}.reserve"));
    file.metadata().map_or(0, |file| file.len())
}

/// Submits tasks until one is refused, and returns those that were accepted.
async fn fill(queue: &SqliteQueue, most: usize) -> (Vec<TaskId>, Option<Error>) {
    let mut accepted = Vec::new();
    for n in 0..most {
        let id = format!("t{n}");
        match queue.submit(vec![task(&id, "echo", &[7; 20_000])]).await {
            Ok(answers) => assert_eq!(answers, [Submitted::Created]),
            Err(error) => return (accepted, Some(error)),
        }
        accepted.push(name(&id));
    }
    (accepted, None)
}

async fn lease(queue: &SqliteQueue, count: usize) -> Vec<Leased> {
    let leased = queue.lease(&request(&[("echo", count)], count, HOUR)).await;
    let leased = leased.unwrap();
    assert_eq!(leased.len(), count);
    leased
}

/// Shows that everything except submitting works on a full disk.
async fn all_but_submitting_works(queue: &SqliteQueue, waiting: &TaskId) {
    let leased = lease(queue, 10).await;
    let tokens: Vec<_> = leased.iter().map(|leased| leased.token.clone()).collect();
    let renews: Vec<_> = tokens.iter().cloned().map(Renew::from).collect();
    let renewed = queue.renew(&renews, HOUR).await.unwrap();
    assert_eq!(renewed, [Renewal::Held; 10]);
    for token in &tokens {
        let result = vec![7; 10_000].into();
        let outcome = Outcome::Completed { result };
        assert_eq!(finish_one(queue, token, outcome).await, Finished::Applied);
    }
    assert_eq!(queue.cancel(waiting).await.unwrap(), Cancel::Cancelled);
    assert!(queue.get(waiting).await.unwrap().is_some());
}

/// Waits until `holds` returns true, for up to twenty seconds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within 20 s: {what}");
}

async fn takes_tasks(queue: &SqliteQueue, id: &str) -> bool {
    let submission = task(id, "echo", &[7; 20_000]);
    queue.submit(vec![submission]).await.is_ok()
}

async fn tasks_fill_the_disk(dir: PathBuf) {
    let health = Health::default();
    let queue = open(&dir, &health).await;
    let (kept, refused) = fill(&queue, 1000).await;
    assert!(kept.len() > 100, "{}", kept.len());
    let Some(Error::Full { reason }) = refused else {
        panic!("{refused:?}");
    };
    for part in ["full", "queue.reserve_bytes"] {
        assert!(reason.contains(part), "{reason}");
    }
    let reported = &health.faults()[&(Part::Queue, "full")].reason;
    assert!(reported.contains("queue.db"), "{reported}");
    assert_eq!(
        reserve(&dir, "queue.db"),
        RESERVE,
        "submissions used the reserve"
    );
    // A task that was accepted before is still answered.
    let again = task("t0", "echo", &[7; 20_000]);
    let answers = queue.submit(vec![again]).await.unwrap();
    assert_eq!(answers, [Submitted::Existing]);

    all_but_submitting_works(&queue, &kept[50]).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 100)
            .await
            .unwrap(),
        11
    );
    until("room for tasks", async || takes_tasks(&queue, "new").await).await;
    until("the end of the fault", async || {
        !is_full(&health, Part::Queue)
    })
    .await;
    assert_eq!(reserve(&dir, "queue.db"), RESERVE);
    queue.close().await;

    let queue = open(&dir, &health).await;
    for id in kept.iter().skip(10).filter(|id| **id != kept[50]) {
        assert!(queue.get(id).await.unwrap().is_some(), "{id} is lost");
    }
    queue.close().await;
}

async fn other_files_fill_the_disk(dir: PathBuf) {
    let health = Health::default();
    let queue = open(&dir, &health).await;
    let (kept, refused) = fill(&queue, 100).await;
    assert!(refused.is_none(), "{refused:?}");
    let ballast_file = ballast(&dir);
    let refused = queue.submit(vec![task("u", "echo", &[7; 20_000])]).await;
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    assert!(is_full(&health, Part::Queue));
    all_but_submitting_works(&queue, &kept[50]).await;
    std::fs::remove_file(&ballast_file).unwrap();
    until("room for tasks", async || takes_tasks(&queue, "new").await).await;
    let whole = async || reserve(&dir, "queue.db") == RESERVE && !is_full(&health, Part::Queue);
    until("the reserve", whole).await;
    queue.close().await;

    // The queue opens on a full disk, too.
    let ballast_file = ballast(&dir);
    let queue = open(&dir, &health).await;
    assert!(!takes_tasks(&queue, "v").await);
    all_but_submitting_works(&queue, &kept[51]).await;
    std::fs::remove_file(&ballast_file).unwrap();
    until("room for tasks", async || takes_tasks(&queue, "v").await).await;
    queue.close().await;
}

async fn values_fill_the_disk(dir: PathBuf) {
    let health = Health::default();
    let limits = Config::default().keyvalue.limits;
    let store = SqliteKeyValue::open(&dir.join("kv.db"), RESERVE, &limits, &health)
        .await
        .unwrap();
    let bucket = store.bucket(&name("p"), "s").unwrap();
    let set = |n: usize| Change::Set {
        key: format!("k{n}"),
        value: vec![7; 20_000],
    };
    let mut set_so_far = 0;
    while store.apply(&bucket, vec![set(set_so_far)]).await.is_ok() {
        set_so_far += 1;
    }
    assert!(set_so_far > 100, "{set_so_far}");
    assert!(is_full(&health, Part::KeyValue));
    assert_eq!(reserve(&dir, "kv.db"), RESERVE, "values used the reserve");
    // Deleting works even if other files fill the rest.
    let ballast_file = ballast(&dir);
    for n in 0..100 {
        let key = format!("k{n}");
        store
            .apply(&bucket, vec![Change::Delete { key }])
            .await
            .unwrap();
    }
    std::fs::remove_file(&ballast_file).unwrap();
    let sets = async || store.apply(&bucket, vec![set(0)]).await.is_ok();
    until("room for values", sets).await;
    store.close().await;
}
