//! A line of the file of `hostel submit --many`: a JSON object with the fields of a task. All faults of a
//! line are found at once.

use crate::{
    proto::distributed::{Priority, Task},
    task,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Parses a line.
pub fn parse(line: &[u8]) -> Result<Task, Vec<String>> {
    let given = match serde_json::from_slice(line) {
        Ok(Value::Object(given)) => given,
        Ok(_) => return Err(vec!["not a JSON object".into()]),
        Err(error) => return Err(vec![format!("not JSON: {error}")]),
    };
    let mut fields = Fields {
        given,
        faults: Vec::new(),
    };
    let task = Task {
        task_id: fields.text("task_id"),
        task_type: fields.text("task_type"),
        payload: fields.payload().into(),
        metadata: fields.texts_by_name("metadata"),
        wait_ms: 0,
        node: fields.text("node"),
        label: fields.text("label"),
        delay_ms: fields.number("delay_ms"),
        run_at_ms: fields.number("run_at_ms"),
        start_by_ms: fields.number("start_by_ms"),
        timeout_ms: fields.number("timeout_ms"),
        max_attempts: fields.number("max_attempts"),
        backoff_initial_ms: fields.number("backoff_initial_ms"),
        backoff_max_ms: fields.number("backoff_max_ms"),
        result_ttl_ms: fields.number("result_ttl_ms"),
        priority: fields.priority() as i32,
        group: fields.text("group"),
        tags: fields.texts("tags"),
        unique_key: fields.text("unique_key"),
        unique_for_ms: fields.number("unique_for_ms"),
    };
    fields.finish(task)
}

/// Takes fields out of the object of a line, and collects what is wrong with them.
struct Fields {
    given: Map<String, Value>,
    faults: Vec<String>,
}

impl Fields {
    /// Takes a field of the kind that `read` accepts. It has its default if it is missing.
    fn take<T: Default>(
        &mut self,
        name: &str,
        kind: &str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> T {
        let Some(given) = self.given.remove(name) else {
            return T::default();
        };
        read(given).unwrap_or_else(|| {
            self.faults.push(format!("{name}: {kind} expected"));
            T::default()
        })
    }

    fn text(&mut self, name: &str) -> String {
        self.take(name, "a string", as_text)
    }

    fn number<T: Default + TryFrom<u64>>(&mut self, name: &str) -> T {
        self.take(name, "a whole number", |given| {
            T::try_from(given.as_u64()?).ok()
        })
    }

    fn texts(&mut self, name: &str) -> Vec<String> {
        self.take(name, "a list of strings", |given| match given {
            Value::Array(items) => items.into_iter().map(as_text).collect(),
            _ => None,
        })
    }

    /// The priority by its name in the protocol or by that of the command line.
    fn priority(&mut self) -> Priority {
        self.take("priority", "high, normal or low", |given| {
            let given = as_text(given)?;
            let named = given
                .parse()
                .ok()
                .map(|priority: task::Priority| priority.into());
            named.or_else(|| Priority::from_str_name(&given))
        })
    }

    fn texts_by_name(&mut self, name: &str) -> HashMap<String, String> {
        self.take(name, "an object of strings", |given| {
            let Value::Object(given) = given else {
                return None;
            };
            let pairs = given.into_iter();
            pairs
                .map(|(name, value)| Some((name, as_text(value)?)))
                .collect()
        })
    }

    /// The payload, which is in one field of three.
    fn payload(&mut self) -> Vec<u8> {
        const FIELDS: [&str; 3] = ["payload", "payload_base64", "payload_json"];
        let given = FIELDS.map(|name| self.given.contains_key(name));
        if given.into_iter().filter(|is_given| *is_given).count() > 1 {
            let names = FIELDS.join(", ");
            self.faults
                .push(format!("payload: only one of {names} is allowed"));
        }
        let text = self.text("payload").into_bytes();
        let base64 = self.take("payload_base64", "a string in base64", |given| {
            BASE64_STANDARD.decode(as_text(given)?).ok()
        });
        let json = self.given.remove("payload_json");
        let json = json.map(|value| value.to_string().into_bytes());
        match given {
            [_, true, _] => base64,
            [_, _, true] => json.unwrap_or_default(),
            _ => text,
        }
    }

    /// The task, unless a field was wrong or is left over.
    fn finish(mut self, task: Task) -> Result<Task, Vec<String>> {
        for name in self.given.keys() {
            self.faults.push(format!("{name}: no such field"));
        }
        if self.faults.is_empty() {
            Ok(task)
        } else {
            Err(self.faults)
        }
    }
}

fn as_text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(line: &str) -> Vec<String> {
        parse(line.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_line_has_the_fields_of_a_task() {
        let line = br#"{"task_id": "a", "task_type": "echo", "payload": "\u00e4",
            "metadata": {"k": "v"}, "label": "gpu"}"#;
        let task = parse(line).unwrap();
        assert_eq!((&*task.task_id, &*task.task_type), ("a", "echo"));
        assert_eq!(task.payload, "ä");
        assert_eq!(task.metadata["k"], "v");
        assert_eq!((&*task.node, &*task.label), ("", "gpu"));
        assert_eq!(parse(b"{}").unwrap(), Task::default());
        let payload = |line: &[u8]| parse(line).unwrap().payload;
        assert_eq!(payload(br#"{"payload_base64": "AP8="}"#), [0, 255][..]);
        let json = payload(br#"{"payload_json": {"b": [1, null], "a": "x"}}"#);
        assert_eq!(json, r#"{"a":"x","b":[1,null]}"#);
        assert_eq!(payload(br#"{"payload_json": null}"#), "null");
    }

    #[test]
    fn a_line_has_the_options_of_a_task() {
        let line = br#"{"delay_ms": 1, "max_attempts": 2, "priority": "low", "group": "g",
            "tags": ["a", "b"], "unique_key": "k", "unique_for_ms": 3}"#;
        let task = parse(line).unwrap();
        assert_eq!(
            (task.delay_ms, task.max_attempts, task.unique_for_ms),
            (1, 2, 3)
        );
        assert_eq!(task.priority(), Priority::Low);
        assert_eq!((&*task.group, &*task.unique_key), ("g", "k"));
        assert_eq!(task.tags, ["a", "b"]);
        let named = parse(br#"{"priority": "PRIORITY_HIGH"}"#).unwrap();
        assert_eq!(named.priority(), Priority::High);
        assert_eq!(
            faults(
                r#"{"delay_ms": -1, "max_attempts": 4294967296, "priority": "urgent", "tags": "a"}"#
            ),
            [
                "delay_ms: a whole number expected",
                "max_attempts: a whole number expected",
                "priority: high, normal or low expected",
                "tags: a list of strings expected",
            ]
        );
    }

    #[test]
    fn all_faults_of_a_line_are_named() {
        let line = r#"{"task_id": 1, "payload": "x", "payload_base64": "?", "metadata": {"k": 1},
            "node": null, "taskType": "echo"}"#;
        assert_eq!(
            faults(line),
            [
                "task_id: a string expected",
                "payload: only one of payload, payload_base64, payload_json is allowed",
                "payload_base64: a string in base64 expected",
                "metadata: an object of strings expected",
                "node: a string expected",
                "taskType: no such field",
            ]
        );
        assert_eq!(faults("[]"), ["not a JSON object"]);
        assert!(faults("{\"task_id\": ")[0].starts_with("not JSON: EOF"));
        assert!(parse(b"{\"task_id\": \"\xff\"}").unwrap_err()[0].starts_with("not JSON: "));
    }
}
