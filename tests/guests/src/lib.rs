//! A hostile plugin with a task type for each way of misbehaving in `handle`, built with the SDK like
//! any plugin. Guests that misbehave at load, or in ways that Rust cannot express, are made with
//! `hostel::plugin::TestGuest`.

use hostel_sdk::prelude::*;
use std::{fs, hint::black_box, net::TcpStream, time::Duration};

fn spin(_: ()) {
    loop {
        black_box(());
    }
}

/// Calls the host in an endless loop.
fn spin_in_host(_: ()) {
    loop {
        black_box(std::time::Instant::now());
    }
}

fn sleep(_: ()) {
    std::thread::sleep(Duration::from_secs(3600));
}

fn panic(_: ()) {
    panic!("the panic's own words");
}

fn trap(_: ()) {
    std::process::abort();
}

#[expect(clippy::disallowed_methods, reason = "it is what this guest shows")]
fn exit(_: ()) {
    std::process::exit(3);
}

fn grow(_: ()) {
    let mut all = Vec::new();
    loop {
        all.push(black_box(vec![1_u8; 1 << 20]));
    }
}

fn recurse(_: ()) {
    #[allow(unconditional_recursion)]
    fn deeper(n: u64) -> u64 {
        let frame = black_box([n; 64]);
        deeper(n + 1) + frame[7]
    }
    black_box(deeper(0));
}

/// Returns that many MiB, by default 100.
fn return_too_much(megabytes: String) -> Result<Vec<u8>> {
    let megabytes: usize = megabytes.parse().unwrap_or(100);
    Ok(vec![7; megabytes << 20])
}

fn log_too_much(_: ()) -> String {
    let line = "x".repeat(1 << 10);
    for _ in 0..100 << 10 {
        log::info!("{line}");
    }
    "logged".into()
}

fn print_too_much(_: ()) -> String {
    let line = "x".repeat(1 << 10);
    for _ in 0..100 << 10 {
        println!("{line}");
    }
    "printed".into()
}

/// Lists everything of the node that it can reach; nothing, if the sandbox holds.
fn look_around(_: ()) -> String {
    let mut found = Vec::new();
    found.extend(std::env::vars().map(|(key, _)| format!("variable {key}")));
    found.extend(std::env::args().map(|argument| format!("argument {argument}")));
    for path in ["/", "/etc/passwd", "."] {
        if fs::metadata(path).is_ok() || fs::read(path).is_ok() {
            found.push(format!("file {path}"));
        }
    }
    if fs::write("/tmp/hostel-was-here", "x").is_ok() {
        found.push("a file written".into());
    }
    if TcpStream::connect("127.0.0.1:22").is_ok() {
        found.push("a connection".into());
    }
    if std::net::UdpSocket::bind("127.0.0.1:0").is_ok() {
        found.push("a socket".into());
    }
    found.join(", ")
}

hostel_sdk::plugin! {
    task("spin", spin).timeout(Duration::from_millis(500)).attempts(1),
    task("spin-in-host", spin_in_host).timeout(Duration::from_millis(500)).attempts(1),
    task("sleep", sleep).timeout(Duration::from_millis(500)).attempts(1),
    task("panic", panic).attempts(1),
    task("trap", trap).attempts(1),
    task("exit", exit).attempts(1),
    task("grow", grow).attempts(1),
    task("recurse", recurse).attempts(1),
    task("return-too-much", return_too_much).attempts(1),
    task("log-too-much", log_too_much).attempts(1),
    task("print-too-much", print_too_much).attempts(1),
    task("look-around", look_around).attempts(1),
}
