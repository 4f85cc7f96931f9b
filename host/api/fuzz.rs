//! The fuzz target of requests as they come over the wire.

use super::{
    convert::{self, TaskLimits},
    read_convert,
};
use crate::{
    config::Config,
    proto::{distributed as wire, hostel::v1},
    task::{Route, UnixMs},
};
use hostel_fuzz::Target;
use prost::Message as _;
use std::collections::HashMap;

/// When the requests arrive.
const NOW: UnixMs = UnixMs(1_800_000_000_000);

/// Requests that decode are converted within the limits or refused.
pub const REQUESTS: Target = Target {
    name: "requests",
    seeds,
    check: |bytes| {
        let config = Config::default();
        let limits = TaskLimits::new(&config.limits, config.plugins.max_timeout);
        if let Ok(task) = wire::Task::decode(bytes)
            && let Ok(task) = convert::submission(task, &limits, NOW)
        {
            assert!(task.payload().len() <= limits.submission.payload_bytes);
            assert!(Route::parse(&task.route().to_string()).is_some());
            if let Some(options) = task.options() {
                let latest = NOW.after(limits.options.delay);
                assert!((NOW..=latest).contains(&options.due_at(NOW)));
                assert!(options.timeout <= Some(limits.options.timeout));
            }
        }
        if let Ok(sent) = wire::Message::decode(bytes)
            && let Ok(message) = convert::message(sent, 16)
        {
            assert!(message.payload.len() <= 16);
            let _ = convert::delivered(message);
        }
        if let Ok(request) = wire::RegisterRequest::decode(bytes)
            && let Ok(service) = convert::service(request)
        {
            let _ = service.check();
            let _ = convert::node(service);
        }
        if let Ok(request) = v1::ListTasksRequest::decode(bytes) {
            let _ = read_convert::filter(&request);
        }
    },
};

fn seeds() -> Vec<Vec<u8>> {
    let metadata = HashMap::from([("k".to_owned(), "v".to_owned())]);
    let task = wire::Task {
        task_id: "task-1".into(),
        task_type: "echo".into(),
        payload: vec![0, 255].into(),
        metadata: metadata.clone(),
        wait_ms: 1,
        node: "node-1".into(),
        ..Default::default()
    };
    let with_options = wire::Task {
        delay_ms: 1,
        start_by_ms: NOW.0 + 2,
        timeout_ms: 3,
        max_attempts: 4,
        backoff_initial_ms: 5,
        backoff_max_ms: 6,
        result_ttl_ms: 7,
        priority: wire::Priority::Low.into(),
        group: "g".into(),
        tags: vec!["t".into()],
        unique_key: "k".into(),
        unique_for_ms: 8,
        ..task.clone()
    };
    let message = wire::Message {
        from_node: "a".into(),
        to_node: "b".into(),
        payload: vec![1].into(),
        message_type: "note".into(),
        message_id: "m".into(),
        ..Default::default()
    };
    let service = wire::RegisterRequest {
        node_id: "n".into(),
        service_name: "web".into(),
        address: "a:1".into(),
        metadata,
        ttl_ms: 1,
    };
    vec![
        task.encode_to_vec(),
        with_options.encode_to_vec(),
        message.encode_to_vec(),
        service.encode_to_vec(),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn fuzz_requests() {
        super::REQUESTS.run();
    }
}
