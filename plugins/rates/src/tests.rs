//! Native tests of the tasks and the component together.

use super::*;
use hostel_sdk::serde_json::{Value, from_slice, json};

fn host() -> MockHost {
    MockHost::new(plugin())
}

fn record(host: &MockHost, payload: Value) -> Result<Value> {
    let rates = host.run("record-event", payload.to_string())?;
    Ok(from_slice(&rates).unwrap())
}

fn query(host: &MockHost, query: Value) -> Value {
    let request = json!({ "query": query }).to_string();
    let answer = host.send("query", request).unwrap().unwrap();
    from_slice(&answer).unwrap()
}

#[test]
fn events_are_counted() {
    let host = host().id("1");
    assert_eq!(query(&host, json!({})), json!({}));
    let rates = record(&host, json!({"name": "login"})).unwrap();
    assert_eq!(rates, json!({"login": {"count": 1, "last_minute": 1}}));
    let host = host.id("2");
    record(&host, json!({"name": "sale", "count": 7})).unwrap();
    assert_eq!(
        query(&host, json!({})),
        json!({
            "login": {"count": 1, "last_minute": 1},
            "sale": {"count": 7, "last_minute": 7},
        })
    );
    let sale = query(&host, json!({"name": "sale"}));
    assert_eq!(sale, json!({"sale": {"count": 7, "last_minute": 7}}));
    assert_eq!(query(&host, json!({"name": "other"})), json!({}));
}

#[test]
fn a_retried_task_is_counted_once() {
    let host = host().id("1");
    for attempt in 1..=3 {
        let rates = record(&host, json!({"name": "login"})).unwrap();
        assert_eq!(rates["login"]["count"], 1, "attempt {attempt}");
        host.restart().unwrap();
    }
    let host = host.id("2");
    let rates = record(&host, json!({"name": "login"})).unwrap();
    assert_eq!(rates["login"]["count"], 2);
}

#[test]
fn a_restart_loses_nothing() {
    let mut host = host();
    for number in 0..250 {
        host = host.id(format!("task-{number}"));
        record(&host, json!({"name": format!("e{}", number % 3)})).unwrap();
    }
    let before = query(&host, json!({}));
    host.restart().unwrap();
    let after = query(&host, json!({}));
    let count = |rates: &Value| rates["e0"]["count"].as_u64();
    assert_eq!((count(&before), count(&after)), (Some(84), Some(84)));
    assert_eq!(host.logs()[1].message, "250 events so far");
}

#[test]
fn a_summary_is_published_after_the_configured_number_of_events() {
    let mut host = host().config("summary_every", "10");
    for (number, count) in [3, 6, 1, 9, 25].into_iter().enumerate() {
        host = host.id(number.to_string());
        record(&host, json!({"name": "sale", "count": count})).unwrap();
    }
    let published = host.published();
    let counts: Vec<_> = published
        .iter()
        .map(|summary| {
            assert_eq!(summary.to, "rates.summary");
            let rates: Value = from_slice(&summary.payload).unwrap();
            rates["sale"]["count"].clone()
        })
        .collect();
    assert_eq!(counts, [10, 44]);
}

#[test]
fn an_undeliverable_summary_does_not_fail_the_task() {
    let nobody = || messaging::Error::Undeliverable("nobody listens".into());
    let host = host()
        .config("summary_every", "1")
        .answers("rates.summary", move |_| Err(nobody()));
    record(&host, json!({"name": "login"})).unwrap();
    assert_eq!(query(&host, json!({}))["login"]["count"], 1);
}

#[test]
fn an_invalid_event_fails_permanently() {
    let long = "x".repeat(129);
    for payload in [json!({}), json!({"name": ""}), json!({"name": long})] {
        let error = record(&host(), payload).unwrap_err();
        assert!(error.is_permanent(), "{error}");
    }
    let error = host().send("", "who?").unwrap_err();
    assert!(
        error
            .message()
            .starts_with("the payload is not the expected JSON")
    );
}
