//! What Hostel promises, watched from outside: a node as a process, clients over gRPC, a ledger of
//! its own for each scenario. One promise a file.

mod drain;
mod first_task;
mod kill;
mod messages;
mod python;
mod reload;

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    [
        first_task::trials(),
        kill::trials(),
        reload::trials(),
        drain::trials(),
        messages::trials(),
        python::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
