//! The conformance suite of the key-value store on SQLite, and tests of what only SQLite does: private
//! files, and nothing lost to a kill.

use super::sqlite::on_runtime;
use crate::support;
use hostel::{
    config::Config,
    health::Health,
    keyvalue::{
        Change, Error, KeyValue, SqliteKeyValue,
        conformance::{self, limits},
    },
    task::Name,
};
use libtest_mimic::Trial;
use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;

/// The environment variable that makes this program write to the store in a directory until it is
/// killed.
pub const ROLE: &str = "HOSTEL_TEST_KEYVALUE_WRITER";

const KILLS: usize = 8;
const WRITERS: usize = 8;

pub fn trials() -> Vec<Trial> {
    let conformance = conformance::cases().map(|case| {
        trial(case.name(), move |dir| async move {
            let open = || async { Arc::new(open(&dir).await.unwrap()) as Arc<dyn KeyValue> };
            case.run(open).await;
        })
    });
    macro_rules! own {
        ($case:ident) => {
            trial(stringify!($case), |dir| async move { $case(&dir).await })
        };
    }
    let own = [
        own!(a_second_open_is_refused),
        own!(reopening_keeps_everything),
        own!(a_closed_store_is_unavailable),
        own!(files_of_others_are_refused),
        own!(files_are_private),
        own!(a_kill_loses_nothing_acknowledged),
    ];
    conformance.chain(own).collect()
}

/// A case with a directory of its own.
fn trial<F: Future<Output = ()>>(
    name: &str,
    case: impl FnOnce(PathBuf) -> F + Send + 'static,
) -> Trial {
    Trial::test(format!("keyvalue::sqlite::{name}"), move || {
        let dir = tempfile::tempdir().unwrap();
        on_runtime(case(dir.path().to_owned()));
        Ok(())
    })
}

async fn open(dir: &Path) -> Result<SqliteKeyValue, Error> {
    let path = dir.join("made").join("kv.db");
    SqliteKeyValue::open(&path, 0, &limits(), &Health::default()).await
}

fn set(key: String, value: &str) -> Vec<Change> {
    let value = value.into();
    vec![Change::Set { key, value }]
}

fn plugin() -> Name {
    Name::parse("plugin", "plugin-1").unwrap()
}

async fn refused(dir: &Path, words: &str) {
    match open(dir).await {
        Err(Error::Misconfigured(why)) => assert!(why.contains(words), "{why}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it opened"),
    }
}

async fn a_second_open_is_refused(dir: &Path) {
    let first = open(dir).await.unwrap();
    refused(dir, "kv.db is in use by another hostel").await;
    // The first store still works, and after it is closed the file can be opened again.
    let at = first.bucket(&plugin(), "s").unwrap();
    first.apply(&at, set("k".into(), "v")).await.unwrap();
    first.close().await;
    open(dir).await.unwrap().close().await;
}

async fn reopening_keeps_everything(dir: &Path) {
    for round in 1..4 {
        let store = open(dir).await.unwrap();
        let at = store.bucket(&plugin(), "s").unwrap();
        let keys = store.list(&at, None).await.unwrap().keys;
        assert_eq!(keys.len(), if round == 1 { 0 } else { round });
        assert_eq!(
            store.increment(&at, "n".into(), 2).await.unwrap() as usize,
            2 * round
        );
        store.apply(&at, set(round.to_string(), "v")).await.unwrap();
        store.close().await;
        // One file is left, which can be copied as it is.
        let files = std::fs::read_dir(dir.join("made")).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        assert!(!files.iter().any(|file| file == "kv.db-wal"), "{files:?}");
    }
}

async fn a_closed_store_is_unavailable(dir: &Path) {
    let store = open(dir).await.unwrap();
    let at = store.bucket(&plugin(), "s").unwrap();
    store.close().await;
    store.close().await;
    let errors = [
        store.get(&at, vec!["k".into()]).await.err(),
        store.exists(&at, vec!["k".into()]).await.err(),
        store.apply(&at, set("k".into(), "v")).await.err(),
        store.increment(&at, "k".into(), 1).await.err(),
        store.list(&at, None).await.err(),
    ];
    for error in errors {
        let Some(Error::Unavailable {
            outcome_unknown: false,
            reason,
        }) = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(reason, "it has been closed");
    }
}

async fn files_of_others_are_refused(dir: &Path) {
    let path = dir.join("made").join("kv.db");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "this was never a database. ".repeat(100)).unwrap();
    refused(dir, "is not a SQLite database; set [keyvalue] path").await;

    std::fs::remove_file(&path).unwrap();
    let change = |sql: &str| {
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch(sql).unwrap();
    };
    change("CREATE TABLE recipes (name TEXT)");
    refused(dir, "is a database of another program").await;

    std::fs::remove_file(&path).unwrap();
    open(dir).await.unwrap().close().await;
    change("PRAGMA user_version = 7");
    refused(
        dir,
        "written by a newer hostel (schema 7; this one knows 2)",
    )
    .await;
}

async fn files_are_private(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let store = open(dir).await.unwrap();
    let at = store.bucket(&plugin(), "s").unwrap();
    store.apply(&at, set("k".into(), "v")).await.unwrap();
    let made = dir.join("made");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&made), 0o700);
    for file in std::fs::read_dir(&made).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    store.close().await;
}

async fn a_kill_loses_nothing_acknowledged(dir: &Path) {
    let mut rng = support::random("keyvalue-kill");
    let mut acknowledged = Vec::new();
    for kills in 1..=KILLS {
        let delay = Duration::from_micros(rng.u64(1_000..100_000));
        let killed = tokio::task::spawn_blocking({
            let dir = dir.to_owned();
            move || write_and_kill(&dir, delay)
        });
        acknowledged.extend(killed.await.unwrap());
        let store = open_at(dir).await;
        let at = store.bucket(&plugin(), "s").unwrap();
        for key in &acknowledged {
            let found = store.exists(&at, vec![key.clone(), twin(key)]).await;
            assert_eq!(found.unwrap(), [true; 2], "{key} after {kills} kills");
        }
        // A batch that was not acknowledged was applied completely or not at all.
        let mut cursor = Some(0);
        while cursor.is_some() {
            let page = store.list(&at, cursor).await.unwrap();
            let keys = page.keys.iter().filter(|key| !key.ends_with(TWIN));
            let twins: Vec<String> = keys.map(|key| twin(key)).collect();
            let there = store.exists(&at, twins).await.unwrap();
            assert!(there.into_iter().all(|there| there));
            cursor = page.next;
        }
        store.close().await;
    }
    println!(
        "{} writes acknowledged over {KILLS} kills",
        acknowledged.len()
    );
    assert!(
        acknowledged.len() > KILLS,
        "too few writes to prove anything"
    );
}

const TWIN: &str = "'";

fn twin(key: &str) -> String {
    format!("{key}{TWIN}")
}

async fn open_at(dir: &Path) -> SqliteKeyValue {
    let limits = Config::default().keyvalue.limits;
    SqliteKeyValue::open(&dir.join("kv.db"), 0, &limits, &Health::default())
        .await
        .unwrap()
}

/// Starts a writer, kills it `delay` after its first write, and returns the keys of the writes that it
/// reported as acknowledged.
fn write_and_kill(dir: &Path, delay: Duration) -> Vec<String> {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .env(ROLE, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let first = lines.next().expect("a first write").unwrap();
    std::thread::sleep(delay);
    writer.kill().unwrap();
    writer.wait().unwrap();
    let mut keys = vec![first];
    // Each line is written at once, so no line is incomplete.
    keys.extend(lines.map(Result::unwrap));
    keys
}

/// Writes pairs of keys from several tasks, and prints those that are acknowledged, until it is killed.
pub fn play(dir: &Path) -> ExitCode {
    on_runtime(async {
        let store = Arc::new(open_at(dir).await);
        let at = store.bucket(&plugin(), "s").unwrap();
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (store, at) = (store.clone(), at.clone());
            writers.spawn(async move {
                for number in 0.. {
                    let key = format!("{}-{writer}-{number}", std::process::id());
                    let mut changes = set(key.clone(), "value");
                    changes.extend(set(twin(&key), "value"));
                    store.apply(&at, changes).await.unwrap();
                    let line = format!("{key}\n");
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            });
        }
        writers.join_all().await;
    });
    ExitCode::FAILURE
}
