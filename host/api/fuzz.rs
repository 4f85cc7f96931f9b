//! The fuzz target of requests as they come over the wire.

use super::convert;
use crate::{
    config::Config,
    proto::{distributed as wire, hostel::v1},
    task::Route,
};
use hostel_fuzz::Target;
use prost::Message as _;
use std::collections::HashMap;

/// Requests that decode are converted within the limits or refused.
pub const REQUESTS: Target = Target {
    name: "requests",
    seeds,
    check: |bytes| {
        let limits = Config::default().limits.submission();
        if let Ok(task) = wire::Task::decode(bytes)
            && let Ok(task) = convert::submission(task, &limits)
        {
            assert!(task.payload().len() <= limits.payload_bytes);
            assert!(Route::parse(&task.route().to_string()).is_some());
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
            let _ = convert::state(&request.status);
            let _ = convert::name("task type", &request.task_type);
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
