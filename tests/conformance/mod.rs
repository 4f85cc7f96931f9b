//! What every engine behind a trait has to do: functions over `&dyn Trait`, run against each.

mod broker;
mod discovery;
mod local;
mod queue;
mod sqlite;
mod sqlite_disk;

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = sqlite::trials();
    trials.extend(local::trials());
    trials
}
