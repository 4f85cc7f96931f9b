//! Connections and their calls, from the socket to the services: accepting, TLS, HTTP/2, deadlines, and
//! the bytes in flight. Knows no service.

mod calls;
mod connection;
mod connection_limit;
pub mod deadlines;
pub mod in_flight;
mod listener;
pub mod serve;
pub mod share;
