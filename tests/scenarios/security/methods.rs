//! Every method of every service needs a token. The services come from the node's reflection.

use super::*;
use bytes::{Buf, BufMut};
use hostel::proto::DESCRIPTORS;
use prost::Message;
use prost_types::FileDescriptorSet;
use std::collections::{BTreeMap, BTreeSet};
use tonic::{
    Request,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_reflection::pb::v1;

/// The only service that needs no token.
const OPEN: &str = "grpc.health.v1.Health";

/// A codec for empty messages, which are valid for every type.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&[]);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

/// Returns the methods of each service.
fn described() -> BTreeMap<String, Vec<String>> {
    let mut services = BTreeMap::new();
    for file in FileDescriptorSet::decode(DESCRIPTORS).unwrap().file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            let methods = service.method.iter().map(|method| method.name().to_owned());
            services.insert(name, methods.collect());
        }
    }
    services
}

/// Returns the services that the node lists.
async fn served(channel: Channel) -> BTreeSet<String> {
    use v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut request = Request::new(tokio_stream::iter([ask]));
    let bearer = format!("Bearer {TOKEN}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client
        .server_reflection_info(request)
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    match answer.message_response.unwrap() {
        MessageResponse::ListServicesResponse(list) => list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect(),
        other => panic!("{other:?}"),
    }
}

pub async fn every_method_needs_a_token() {
    let node = prepared(TOKENS, &Authority::new("authority"))
        .started()
        .await;
    let endpoint = Channel::from_shared(format!("http://{}", node.address()));
    let channel = endpoint.unwrap().connect().await.unwrap();
    let described = described();
    for service in served(channel.clone()).await {
        assert!(described.contains_key(&service), "{service} is not tested");
    }

    let mut raw = tonic::client::Grpc::new(channel);
    let mut called = 0;
    for (service, methods) in &described {
        for method in methods {
            raw.ready().await.unwrap();
            let path = format!("/{service}/{method}");
            let uri = path.parse().unwrap();
            let answer = raw.server_streaming(Request::new(()), uri, Raw).await;
            match answer {
                Err(status) if service != OPEN => assert_unauthenticated::<()>(Err(status)),
                Ok(_) if service == OPEN => {}
                other => panic!("{path}: {:?}", other.err()),
            }
            called += 1;
        }
    }
    assert!(called >= 16, "only {called} methods");
}
