//! gRPC reflection, versions v1 and v1alpha: describes the services and messages of the server. A
//! request without an answer gets an error response, and the stream goes on.

use super::super::transport::in_flight;
use crate::proto::grpc::reflection::{
    v1::{
        self, ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
        ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    },
    v1alpha,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use prost::{DecodeError, Message};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use std::{collections::HashMap, sync::Arc};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

/// The reflection service, for both versions: their messages are the same.
#[derive(Clone)]
pub struct Reflection {
    index: Arc<Index>,
    /// Ends streams, which would otherwise outlive the server.
    end: CancellationToken,
}

/// The descriptors by the names that clients look them up by.
struct Index {
    services: Vec<String>,
    /// The encoded descriptor of each file, by the file's name.
    files: HashMap<String, Bytes>,
    /// The name of the file that declares a symbol, by the symbol's full name.
    symbols: HashMap<String, String>,
}

impl Reflection {
    /// Creates the service for `services`, which the encoded descriptor set describes.
    pub fn new(
        services: &[&str],
        descriptors: &[u8],
        end: CancellationToken,
    ) -> Result<Self, DecodeError> {
        let mut index = Index {
            services: services.iter().map(|&name| name.to_owned()).collect(),
            files: HashMap::new(),
            symbols: HashMap::new(),
        };
        for file in FileDescriptorSet::decode(descriptors)?.file {
            index.add(&file);
        }
        let index = Arc::new(index);
        Ok(Self { index, end })
    }

    fn responses(&self, requests: Streaming<ServerReflectionRequest>) -> Responses {
        let index = self.index.clone();
        requests
            .map(move |request| Ok(index.response(request?)))
            .take_until(self.end.clone().cancelled_owned())
            .boxed()
    }
}

type Responses = BoxStream<'static, Result<ServerReflectionResponse, Status>>;

impl Index {
    fn add(&mut self, file: &FileDescriptorProto) {
        let name = file.name();
        let mut symbols = Vec::new();
        for service in &file.service {
            let service_name = qualified(file.package(), service.name());
            let methods = service.method.iter();
            symbols.extend(methods.map(|method| qualified(&service_name, method.name())));
            symbols.push(service_name);
        }
        add_messages(file.package(), &file.message_type, &mut symbols);
        add_enums(file.package(), &file.enum_type, &mut symbols);
        let symbols = symbols.into_iter().map(|symbol| (symbol, name.to_owned()));
        self.symbols.extend(symbols);
        self.files
            .insert(name.to_owned(), file.encode_to_vec().into());
    }

    fn response(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let found = match &request.message_request {
            None => Err((Code::InvalidArgument, "the request has no message_request")),
            Some(MessageRequest::FileByFilename(name)) => self
                .file(name)
                .ok_or((Code::NotFound, "no file has this name")),
            Some(MessageRequest::FileContainingSymbol(symbol)) => {
                let file = self.symbols.get(symbol).and_then(|file| self.file(file));
                file.ok_or((Code::NotFound, "no symbol has this name"))
            }
            Some(MessageRequest::FileContainingExtension(_)) => {
                Err((Code::NotFound, "no message has extensions"))
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => match self.symbols.get(name) {
                None => Err((Code::NotFound, "no symbol has this name")),
                Some(_) => Ok(MessageResponse::AllExtensionNumbersResponse(
                    ExtensionNumberResponse {
                        base_type_name: name.clone(),
                        extension_number: Vec::new(),
                    },
                )),
            },
            Some(MessageRequest::ListServices(_)) => {
                let services = self.services.iter().cloned();
                Ok(MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: services.map(|name| ServiceResponse { name }).collect(),
                }))
            }
        };
        let response = found.unwrap_or_else(|(code, message)| {
            MessageResponse::ErrorResponse(ErrorResponse {
                error_code: code.into(),
                error_message: message.into(),
            })
        });
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(response),
        }
    }

    fn file(&self, name: &str) -> Option<MessageResponse> {
        let file = self.files.get(name)?;
        Some(MessageResponse::FileDescriptorResponse(
            FileDescriptorResponse {
                file_descriptor_proto: vec![file.clone()],
            },
        ))
    }
}

/// Adds the names of `messages` and of everything declared in them.
fn add_messages(scope: &str, messages: &[DescriptorProto], symbols: &mut Vec<String>) {
    for message in messages {
        let name = qualified(scope, message.name());
        let fields = message.field.iter();
        symbols.extend(fields.map(|field| qualified(&name, field.name())));
        let oneofs = message.oneof_decl.iter();
        symbols.extend(oneofs.map(|oneof| qualified(&name, oneof.name())));
        add_messages(&name, &message.nested_type, symbols);
        add_enums(&name, &message.enum_type, symbols);
        symbols.push(name);
    }
}

/// Adds the names of `enums` and of their values, which protobuf scopes beside the enum.
fn add_enums(scope: &str, enums: &[EnumDescriptorProto], symbols: &mut Vec<String>) {
    for one in enums {
        let values = one.value.iter();
        symbols.extend(values.map(|value| qualified(scope, value.name())));
        symbols.push(qualified(scope, one.name()));
    }
}

fn qualified(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

#[tonic::async_trait]
impl v1::server_reflection_server::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Responses;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Responses>, Status> {
        Ok(in_flight::stream_response(
            self.responses(request.into_inner()),
        ))
    }
}

/// The version that Python's client and older tools use.
#[tonic::async_trait]
impl v1alpha::server_reflection_server::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Responses;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Responses>, Status> {
        Ok(in_flight::stream_response(
            self.responses(request.into_inner()),
        ))
    }
}
