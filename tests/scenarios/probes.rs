//! The standard gRPC services for tools: health and reflection.

use crate::support::{DEADLINE, eventually, node::Node, trial_needing};
use libtest_mimic::Trial;
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

pub fn trials() -> Vec<Trial> {
    vec![
        trial_needing(
            "probes::reflection_continues_after_an_unknown_symbol",
            true,
            reflection_continues_after_an_unknown_symbol,
        ),
        trial_needing(
            "probes::health_reports_every_service",
            true,
            health_reports_every_service,
        ),
        trial_needing(
            "probes::a_health_watch_ends_with_the_node",
            true,
            a_health_watch_ends_with_the_node,
        ),
    ]
}

async fn channel(node: &Node) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", node.address()));
    endpoint.unwrap().connect().await.unwrap()
}

/// Returns the answers of one version of the reflection service to requests on one stream.
macro_rules! answers {
    ($version:ident, $channel:expr, $questions:expr) => {{
        use $version::{ServerReflectionRequest, server_reflection_client::ServerReflectionClient};
        let questions = $questions.map(|question| ServerReflectionRequest {
            host: String::new(),
            message_request: Some(question),
        });
        let mut client = ServerReflectionClient::new($channel);
        let stream = client
            .server_reflection_info(tokio_stream::iter(questions))
            .await;
        let mut stream = stream.unwrap().into_inner();
        let mut answers = Vec::new();
        while let Some(answer) = stream.message().await.unwrap() {
            answers.push(answer.message_response.unwrap());
        }
        answers
    }};
}

macro_rules! reflects {
    ($version:ident, $channel:expr) => {{
        use $version::{
            server_reflection_request::MessageRequest as Ask,
            server_reflection_response::MessageResponse as Answer,
        };
        let questions = [
            Ask::FileContainingSymbol("nothing.Such".into()),
            Ask::FileByFilename("nothing.proto".into()),
            Ask::AllExtensionNumbersOfType("nothing.Such".into()),
            Ask::FileContainingSymbol("distributed.Task.payload".into()),
            Ask::FileContainingSymbol("distributed.DistributedService.SubmitTask".into()),
            Ask::FileByFilename("hostel/v1/tasks.proto".into()),
            Ask::FileContainingSymbol("grpc.health.v1.Health".into()),
            Ask::AllExtensionNumbersOfType("distributed.Task".into()),
        ];
        let answers = answers!($version, $channel, questions);
        assert_eq!(answers.len(), 8);
        for answer in &answers[..3] {
            match answer {
                Answer::ErrorResponse(error) => assert_eq!(error.error_code, Code::NotFound as i32),
                other => panic!("{other:?}"),
            }
        }
        for answer in &answers[3..7] {
            match answer {
                Answer::FileDescriptorResponse(file) => {
                    assert!(!file.file_descriptor_proto[0].is_empty());
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(answers[7], Answer::AllExtensionNumbersResponse(_)));
    }};
}

async fn reflection_continues_after_an_unknown_symbol() {
    let node = Node::start(&[], "").await;
    reflects!(v1, channel(&node).await);
    reflects!(v1alpha, channel(&node).await);
}

async fn health_reports_every_service() {
    use v1::{
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let node = Node::start(&[], "").await;
    let questions = [MessageRequest::ListServices(String::new())];
    let answers = answers!(v1, channel(&node).await, questions);
    let MessageResponse::ListServicesResponse(list) = &answers[0] else {
        panic!("{answers:?}");
    };
    let mut services: Vec<String> = list.service.iter().map(|one| one.name.clone()).collect();
    assert_eq!(services.len(), 10, "{services:?}");
    services.push(String::new());
    let mut client = HealthClient::new(channel(&node).await);
    for service in services {
        let request = HealthCheckRequest {
            service: service.clone(),
        };
        let answer = client.check(request).await.expect(&service).into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let request = HealthCheckRequest {
        service: "nothing".into(),
    };
    let unknown = client.check(request).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

async fn a_health_watch_ends_with_the_node() {
    let mut node = Node::start(&[], "").await;
    let mut client = HealthClient::new(channel(&node).await);
    let mut watch = async |service: &str| {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        client.watch(request).await.unwrap().into_inner()
    };
    let mut of_nothing = watch("nothing").await;
    let mut of_node = watch("").await;
    let answer = of_nothing.message().await.unwrap().unwrap();
    assert_eq!(answer.status(), ServingStatus::ServiceUnknown);
    let answer = of_node.message().await.unwrap().unwrap();
    assert_eq!(answer.status(), ServingStatus::Serving);
    let more = timeout(Duration::from_millis(300), of_nothing.message()).await;
    assert!(more.is_err(), "{more:?}");

    // The streams end by themselves.
    node.request_stop();
    let answer = timeout(DEADLINE, of_node.message()).await.unwrap();
    assert_eq!(answer.unwrap().unwrap().status(), ServingStatus::NotServing);
    let end = timeout(DEADLINE, of_nothing.message()).await.unwrap();
    assert_eq!(end.unwrap_err().code(), Code::Unavailable);
    assert!(node.wait_for_exit().await.success());
    eventually("the log is written", async || {
        let log = node.log();
        (!log.is_empty()).then(|| assert!(!log.contains("were cut off"), "{log}"))
    })
    .await;
}
