//! Tests of components on the mock host.

use super::*;
use crate::{Component, Json, Message, TaskError, config, kv, messaging, task};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Counts messages in memory and in a store, and acts on the payload.
struct Probe {
    count: u32,
    answers: Vec<String>,
}

impl Component for Probe {
    const TOPICS: &'static [&'static str] = &["news"];
    type In = String;
    type Out = Option<String>;

    fn start() -> Result<Self> {
        match config::get("broken")?.as_deref() {
            None => {}
            Some("forever") => return Err(TaskError::permanent("broken forever")),
            Some(_) => return Err(TaskError::retryable("broken")),
        }
        let answers = Vec::new();
        Ok(Self { count: 0, answers })
    }

    fn on_message(&mut self, payload: String, message: &Message) -> Result<Option<String>> {
        self.count += 1;
        let stored = kv::open("probe")?.increment("count", 1)?;
        Ok(match payload.as_str() {
            "count" => Some(format!("{} {stored}", self.count)),
            "about" => Some(format!("{message:?}")),
            "answers" => Some(self.answers.join(",")),
            "self" => Some(messaging::request("p", "", "count", Duration::ZERO)?),
            "panic" => panic!("as asked"),
            "error" => return Err(TaskError::permanent("as asked")),
            _ => None,
        })
    }

    fn on_answer(&mut self, payload: Vec<u8>, message: &Message) -> Result<()> {
        assert!(message.in_reply_to().is_some());
        self.answers.push(format!("{}", payload.len()));
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        log::info!("stopped after {}", self.count);
        Ok(())
    }
}

fn plugin() -> Plugin {
    Plugin::new("p", "1", "")
        .with_component::<Probe>()
        .with(task("ask", |(to, payload): Asked| -> Result<String> {
            Ok(messaging::request(&to, "t", &*payload, Duration::MAX)?)
        }))
        .with(task("tell", |(to, payload): Asked| -> Result<Json<u32>> {
            Ok(Json(messaging::publish(&to, "t", &*payload)?))
        }))
}

/// `to payload`.
type Asked = (String, String);

impl crate::Input for Asked {
    fn decode(payload: Vec<u8>) -> Result<Self> {
        let text = String::decode(payload)?;
        let (to, payload) = text.split_once(' ').unwrap_or((&text, ""));
        Ok((to.to_owned(), payload.to_owned()))
    }
}

fn answer(host: &MockHost, payload: &str) -> String {
    let answer = host.send("", payload).unwrap().expect("an answer");
    String::from_utf8(answer).unwrap()
}

#[test]
fn memory_lasts_until_a_restart_and_stores_survive_it() {
    let host = MockHost::new(plugin());
    host.start().unwrap();
    assert_eq!(host.send("", "silent"), Ok(None));
    assert_eq!(answer(&host, "count"), "2 2");
    host.restart().unwrap();
    assert_eq!(answer(&host, "count"), "1 3");
    assert_eq!(host.store("probe")["count"], b"3");
    assert!(host.logs().is_empty());
    host.stop().unwrap();
    host.stop().unwrap();
    assert_eq!(host.logs().len(), 1);
    assert_eq!(answer(&host, "count"), "1 4");
    let seeded = MockHost::new(plugin()).stored("probe", "count", "41");
    assert_eq!(answer(&seeded, "count"), "1 42");
}

#[test]
fn an_error_keeps_the_instance_and_a_panic_ends_it() {
    let host = MockHost::new(plugin());
    let error = host.send("", "error").unwrap_err();
    assert_eq!(error.message(), "as asked");
    let error = host.send("", b"\xff").unwrap_err();
    assert!(error.message().starts_with("the payload is not UTF-8"));
    assert_eq!(answer(&host, "count"), "2 2");
    assert!(catch_unwind(AssertUnwindSafe(|| host.send("", "panic"))).is_err());
    assert_eq!(config::get("broken"), Ok(None));
    assert_eq!(answer(&host, "count"), "1 4");
}

#[test]
fn a_failed_start_is_returned() {
    let host = MockHost::new(plugin()).config("broken", "true");
    assert_eq!(host.start(), Err(TaskError::retryable("broken")));
    assert_eq!(host.send("", "count"), Err(TaskError::retryable("broken")));
    let none = MockHost::new(Plugin::new("p", "1", "").with(task("t", |()| ())));
    let error = TaskError::permanent("plugin p has no component");
    assert_eq!(none.start(), Err(error.clone()));
    assert_eq!(none.send("", ""), Err(error));
}

#[test]
fn a_message_has_its_sender_and_destination() {
    let host = MockHost::new(plugin()).sender("ann");
    let about = host.send_to("news", "t", "about").unwrap().unwrap();
    assert_eq!(
        String::from_utf8(about).unwrap(),
        "Message { id: \"mock-message-1\", sender: \"ann\", to: \"news\", \
         message_type: \"t\", in_reply_to: \"\" }"
    );
    host.send_answer("1234").unwrap();
    assert_eq!(answer(&host, "answers"), "4");
}

#[test]
fn requests_reach_listeners_and_the_component() {
    let host = MockHost::new(plugin()).answers("other", |message| match &*message.payload {
        b"error" => Err(messaging::Error::Failed("no".into())),
        payload => Ok([payload, b"!"].concat()),
    });
    assert_eq!(host.run("ask", "other hello").unwrap(), b"hello!");
    let error = host.run("ask", "other error").unwrap_err();
    assert_eq!(error, TaskError::retryable("no"));
    assert_eq!(host.run("ask", "p count").unwrap(), b"1 1");
    let error = host.run("ask", "p silent").unwrap_err();
    assert_eq!(
        error,
        TaskError::retryable("p handled it and gave no answer")
    );
    let error = host.run("ask", "nobody x").unwrap_err();
    assert!(
        error
            .message()
            .starts_with("undeliverable: nothing listens")
    );
    assert!(host.run("ask", "a/b x").unwrap_err().is_permanent());
    // A permanent error of the component fails the requesting task permanently.
    let error = host.run("ask", "p error").unwrap_err();
    assert_eq!(error, TaskError::permanent("as asked"));
    assert_eq!(host.published(), []);
}

#[test]
fn a_component_cannot_send_a_request_to_itself() {
    let host = MockHost::new(plugin());
    let why = "refused: p cannot wait for its own answer: it handles one message after the other";
    assert_eq!(host.send("", "self"), Err(TaskError::permanent(why)));
    // For the task that asked, this is what the component answers.
    assert_eq!(host.run("ask", "p self"), Err(TaskError::permanent(why)));
    assert_eq!(host.run("ask", "p count").unwrap(), b"3 3");
}

#[test]
fn a_component_that_cannot_start_is_down_for_tasks() {
    for (broken, why) in [("true", "broken"), ("forever", "broken forever")] {
        let host = MockHost::new(plugin()).config("broken", broken);
        let down = format!("undeliverable: p is down: cannot start: {why}");
        let error = host.run("ask", "p count").unwrap_err();
        assert_eq!(error, TaskError::retryable(down));
    }
}

#[test]
fn published_messages_are_recorded() {
    let full = || messaging::Error::Undeliverable("full".into());
    let host = MockHost::new(plugin()).answers("full", move |_| Err(full()));
    assert_eq!(host.run("tell", "news 1").unwrap(), b"1");
    let error = host.run("tell", "full 2").unwrap_err();
    assert_eq!(error, TaskError::retryable("undeliverable: full"));
    let published = host.published();
    assert_eq!(published.len(), 1);
    assert_eq!(
        (&*published[0].to, &*published[0].payload),
        ("news", &b"1"[..])
    );
}
