//! A component for tests, built with the SDK like any plugin. The type of a message says what to do
//! with it, and the configuration how to start and stop, well or badly. Its version is that of its
//! package, so that the tests can build several from the same source.

use hostel_sdk::prelude::*;
use std::hint::black_box;

const VERSION: &str = env!("CARGO_PKG_VERSION");

const TOPIC: &str = "probe.topic";

#[derive(Default)]
struct Probe {
    /// How many messages of the type `memory` this instance has received.
    memory: u64,
    /// How many answers to published messages it has received.
    answers: u64,
}

impl Component for Probe {
    const TOPICS: &'static [&'static str] = &[TOPIC];
    type In = Vec<u8>;
    type Out = Option<Vec<u8>>;

    fn start() -> Result<Self> {
        misbehave("start")?;
        log::info!("started {VERSION}");
        Ok(Self::default())
    }

    fn on_message(&mut self, payload: Vec<u8>, message: &Message) -> Result<Option<Vec<u8>>> {
        let answer = match message.message_type() {
            "echo" => payload,
            "silent" => return Ok(None),
            "error" => return Err(TaskError::permanent("the error's own words")),
            "panic" => panic!("the panic's own words"),
            "trap" => std::process::abort(),
            "spin" => spin(),
            "sleep" => sleep(),
            "grow" => grow(),
            "big" => vec![7; 100 << 20],
            "return" => vec![7; kib(&payload)?],
            "send" => {
                let sent = messaging::publish("probe.topic", "sent", vec![7; kib(&payload)?])?;
                sent.to_string().into()
            }
            "store" => store(&payload)?,
            "about" => format!("{VERSION} {message:?}").into(),
            "version" => VERSION.into(),
            "count" => count()?,
            "memory" => {
                self.memory += 1;
                self.memory.to_string().into()
            }
            "answers" => self.answers.to_string().into(),
            "ask" => ask(&payload)?,
            "publish" => publish(&payload)?,
            "flood" => flood(payload),
            "log" => log_in_every_way(),
            other => return Err(TaskError::permanent(format!("no such thing: {other:?}"))),
        };
        Ok(Some(answer))
    }

    fn on_answer(&mut self, _: Vec<u8>, _: &Message) -> Result<()> {
        self.answers += 1;
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        log::info!("stops {VERSION}");
        misbehave("stop")
    }
}

/// Does what the configuration says for `start` or `stop`: `ok`, `error`, `panic`, `trap`, `hang`,
/// `spin`, `slow` (200 ms), or `fail-N`: an error each of the first N times, counted in a store.
fn misbehave(at: &str) -> Result<()> {
    // A setting for this version, else one for all versions.
    let of_this_version = config::get(&format!("{at}-{VERSION}"))?;
    let how = match of_this_version {
        Some(how) => how,
        None => config::get(at)?.unwrap_or("ok".into()),
    };
    match how.as_str() {
        "ok" => Ok(()),
        "error" => Err(TaskError::retryable(format!("{at} fails as configured"))),
        "panic" => panic!("{at} panics as configured"),
        "trap" => std::process::abort(),
        "hang" => sleep(),
        "spin" => spin(),
        "slow" => {
            std::thread::sleep(Duration::from_millis(200));
            Ok(())
        }
        other => {
            let times = other.strip_prefix("fail-").and_then(|n| n.parse().ok());
            let times: u64 = times.ok_or_else(|| format!("{at} = {other:?}: no such thing"))?;
            match kv::open("probe")?.increment(at, 1)? {
                n if n <= times => Err(TaskError::retryable(format!("{at} fails: {n} of {times}"))),
                _ => Ok(()),
            }
        }
    }
}

fn spin() -> ! {
    loop {
        black_box(());
    }
}

fn sleep() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn grow() -> ! {
    let mut all = Vec::new();
    loop {
        all.push(black_box(vec![1_u8; 1 << 20]));
    }
}

/// So many KiB.
fn kib(number: &[u8]) -> Result<usize> {
    let number = std::str::from_utf8(number).permanent()?;
    Ok(number.parse::<usize>().permanent()? << 10)
}

/// Stores four values of so many KiB at once.
fn store(number: &[u8]) -> Result<Vec<u8>> {
    let value = vec![7; kib(number)?];
    let entries = ["a", "b", "c", "d"].map(|key| (key, value.clone()));
    kv::open("probe")?.set_many(entries)?;
    Ok("stored".into())
}

/// `version:count`, of a number that is kept in the store.
fn count() -> Result<Vec<u8>> {
    let count = kv::open("probe")?.increment("count", 1)?;
    Ok(format!("{VERSION}:{count}").into())
}

/// The payload's first line, and the rest: to whom and what.
fn addressed(payload: &[u8]) -> Result<(&str, &str)> {
    let text = std::str::from_utf8(payload).permanent()?;
    Ok(text.split_once('\n').unwrap_or((text, "")))
}

/// Asks the component or topic of the payload's first line to echo the rest.
fn ask(payload: &[u8]) -> Result<Vec<u8>> {
    let (to, what) = addressed(payload)?;
    Ok(messaging::request(
        to,
        "echo",
        what,
        Duration::from_secs(2),
    )?)
}

/// Publishes the rest of the payload to the topic in its first line, and answers the number of
/// receivers.
fn publish(payload: &[u8]) -> Result<Vec<u8>> {
    let (to, what) = addressed(payload)?;
    let receivers = messaging::publish(to, "published", what)?;
    Ok(receivers.to_string().into())
}

/// Publishes to the topic in the payload until that is refused, at most 10,000 times, and answers how
/// many were sent and why no more.
fn flood(topic: Vec<u8>) -> Vec<u8> {
    let topic = String::from_utf8_lossy(&topic);
    for sent in 0..10_000 {
        if let Err(error) = messaging::publish(&topic, "flood", sent.to_string()) {
            return format!("{sent}\n{error}").into();
        }
    }
    "10000".into()
}

/// Logs the same in each way that the SDK supports.
fn log_in_every_way() -> Vec<u8> {
    log::info!("through log");
    tracing::info!(number = 7, "through tracing");
    println!("through println");
    "said".into()
}

hostel_sdk::plugin! {
    component = Probe,
    task("probe-echo", |payload: Vec<u8>| payload),
    task("probe-ask", |payload: Vec<u8>| -> Result<Vec<u8>> {
        Ok(messaging::request("probe", "echo", payload, Duration::from_secs(2))?)
    }),
    task("probe-publish", |payload: Vec<u8>| publish(&payload)),
    task("probe-count", |()| count()),
    task("probe-flood", flood),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(host: &MockHost, message_type: &str, payload: &str) -> String {
        let answer = host
            .send(message_type, payload)
            .unwrap()
            .expect("an answer");
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn each_message_type_does_what_it_says() {
        let host = MockHost::new(plugin());
        assert_eq!(answer(&host, "echo", "x"), "x");
        assert_eq!(host.send("silent", ""), Ok(None));
        assert!(host.send("error", "").is_err());
        assert_eq!(answer(&host, "memory", ""), "1");
        assert_eq!(answer(&host, "count", ""), format!("{VERSION}:1"));
        host.restart().unwrap();
        assert_eq!(answer(&host, "memory", ""), "1");
        assert_eq!(answer(&host, "count", ""), format!("{VERSION}:2"));
        assert_eq!(answer(&host, "publish", "room\nhello"), "1");
        assert_eq!(host.published()[0].payload, b"hello");
        assert_eq!(answer(&host, "log", ""), "said");
        assert_eq!(answer(&host, "return", "2").len(), 2048);
        assert_eq!(answer(&host, "send", "1"), "1");
        assert_eq!(answer(&host, "store", "1"), "stored");
        assert_eq!(host.store("probe")["d"].len(), 1024);
        assert_eq!(host.run("probe-ask", "hello").unwrap(), b"hello");
        host.send_answer("").unwrap();
        assert_eq!(answer(&host, "answers", ""), "1");
    }

    #[test]
    fn it_starts_and_stops_as_configured() {
        let host = MockHost::new(plugin()).config("start", "fail-2");
        assert!(host.start().is_err());
        assert!(host.start().is_err());
        assert_eq!(host.start(), Ok(()));
        let host = host.config("start", "ok").config("stop", "error");
        assert!(host.stop().is_err());
    }
}
