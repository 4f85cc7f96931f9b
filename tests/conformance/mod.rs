//! What every engine behind a trait has to do: functions over `&dyn Trait`, run against each.

mod queue;
mod sqlite;
mod sqlite_disk;

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    sqlite::trials()
}
