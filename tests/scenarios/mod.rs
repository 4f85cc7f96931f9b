//! Scenarios: the promises of Hostel, tested from outside with nodes as processes and clients over
//! gRPC. One promise a file.

mod actions;
mod admission;
mod bad_input;
mod client_only;
mod cluster;
mod command_line;
mod components;
mod docs;
mod drain;
mod environment;
mod examples;
mod first_task;
mod health;
mod hostile;
mod kill;
mod limits;
mod messages;
mod nodes;
mod options;
mod probes;
mod progress;
mod python;
mod reading;
mod reload;
mod schedules;
mod sdk;
mod security;
mod signals;
mod slow_connection;
mod soak;
mod startup;
mod stored;
mod submit_many;
mod supervision;
mod type_limits;
mod untrusted;

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    [
        actions::trials(),
        admission::trials(),
        bad_input::trials(),
        client_only::trials(),
        cluster::trials(),
        command_line::trials(),
        components::trials(),
        docs::trials(),
        drain::trials(),
        environment::trials(),
        examples::trials(),
        first_task::trials(),
        health::trials(),
        hostile::trials(),
        kill::trials(),
        limits::trials(),
        messages::trials(),
        nodes::trials(),
        options::trials(),
        probes::trials(),
        progress::trials(),
        python::trials(),
        reading::trials(),
        reload::trials(),
        schedules::trials(),
        sdk::trials(),
        security::trials(),
        signals::trials(),
        slow_connection::trials(),
        soak::trials(),
        startup::trials(),
        stored::trials(),
        submit_many::trials(),
        supervision::trials(),
        type_limits::trials(),
        untrusted::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
