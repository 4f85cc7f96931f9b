//! What Hostel promises, watched from outside: a node as a process, clients over gRPC, a ledger of
//! its own for each scenario. One promise a file.

mod access;
mod admission;
mod bad_input;
mod cluster;
mod command_line;
mod components;
mod drain;
mod exports;
mod faults;
mod first_task;
mod health;
mod hostile;
mod kill;
mod limits;
mod messages;
mod nodes;
mod probes;
mod python;
mod refused;
mod reload;
mod sdk_errors;
mod shared_queue;
mod signals;
mod soak;
mod starting;
mod stored;
mod supervision;
mod surroundings;
mod thin_line;
mod untrusted;

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    [
        access::trials(),
        admission::trials(),
        bad_input::trials(),
        cluster::trials(),
        command_line::trials(),
        components::trials(),
        drain::trials(),
        exports::trials(),
        faults::trials(),
        first_task::trials(),
        health::trials(),
        hostile::trials(),
        kill::trials(),
        limits::trials(),
        messages::trials(),
        nodes::trials(),
        probes::trials(),
        python::trials(),
        refused::trials(),
        reload::trials(),
        sdk_errors::trials(),
        shared_queue::trials(),
        signals::trials(),
        starting::trials(),
        soak::trials(),
        stored::trials(),
        supervision::trials(),
        surroundings::trials(),
        untrusted::trials(),
        thin_line::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
