//! gRPC reflection, in both of its versions: what the services and messages of the server look like.
//! A question that has no answer is answered with an error, and the next one is heard.

use prost::{DecodeError, Message};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use std::{collections::HashMap, pin::Pin, sync::Arc};
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::{
    v1::{
        self, ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
        ServiceResponse, server_reflection_request::MessageRequest as Question,
        server_reflection_response::MessageResponse as Answer,
    },
    v1alpha,
};

/// Answers for both versions, whose messages are the same on the wire.
#[derive(Clone)]
pub struct Reflection {
    described: Arc<Described>,
    /// Ends streams, which would otherwise outlive the server.
    end: CancellationToken,
}

/// What there is to be found.
struct Described {
    services: Vec<String>,
    /// The encoded descriptor of each file, by its name.
    files: HashMap<String, Vec<u8>>,
    /// The name of the file that describes it, by a symbol's full name.
    symbols: HashMap<String, String>,
}

impl Reflection {
    /// Of these services, which the encoded descriptor sets describe.
    pub fn new(
        services: &[&str],
        descriptors: &[&[u8]],
        end: CancellationToken,
    ) -> Result<Self, DecodeError> {
        let mut described = Described {
            services: services.iter().map(|&name| name.to_owned()).collect(),
            files: HashMap::new(),
            symbols: HashMap::new(),
        };
        for set in descriptors {
            for file in FileDescriptorSet::decode(*set)?.file {
                described.add(&file);
            }
        }
        let described = Arc::new(described);
        Ok(Self { described, end })
    }

    fn answers<Q, A>(&self, questions: Streaming<Q>) -> Answers<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let described = self.described.clone();
        let answers = questions.map(move |question| {
            let answer = described.answer(same(&question?)?);
            same(&answer)
        });
        let end = self.end.clone().cancelled_owned();
        Box::pin(futures_util::StreamExt::take_until(answers, end))
    }
}

type Answers<A> = Pin<Box<dyn Stream<Item = Result<A, Status>> + Send>>;

/// A message of one version as that of another.
fn same<A: Message, B: Message + Default>(message: &A) -> Result<B, Status> {
    let same = B::decode(message.encode_to_vec().as_slice());
    same.map_err(|error| super::status::invalid(error.to_string()))
}

impl Described {
    fn add(&mut self, file: &FileDescriptorProto) {
        let name = file.name();
        let mut symbols = Vec::new();
        for service in &file.service {
            let service_name = within(file.package(), service.name());
            let methods = service.method.iter();
            symbols.extend(methods.map(|method| within(&service_name, method.name())));
            symbols.push(service_name);
        }
        messages(file.package(), &file.message_type, &mut symbols);
        enums(file.package(), &file.enum_type, &mut symbols);
        let symbols = symbols.into_iter().map(|symbol| (symbol, name.to_owned()));
        self.symbols.extend(symbols);
        self.files.insert(name.to_owned(), file.encode_to_vec());
    }

    fn answer(&self, asked: v1::ServerReflectionRequest) -> v1::ServerReflectionResponse {
        let answer = match &asked.message_request {
            None => Err((Code::InvalidArgument, "nothing is asked")),
            Some(Question::FileByFilename(name)) => self
                .file(name)
                .ok_or((Code::NotFound, "no file has this name")),
            Some(Question::FileContainingSymbol(symbol)) => {
                let file = self.symbols.get(symbol).and_then(|file| self.file(file));
                file.ok_or((Code::NotFound, "no symbol has this name"))
            }
            Some(Question::FileContainingExtension(_)) => {
                Err((Code::NotFound, "no message has extensions"))
            }
            Some(Question::AllExtensionNumbersOfType(name)) => match self.symbols.get(name) {
                None => Err((Code::NotFound, "no symbol has this name")),
                Some(_) => Ok(Answer::AllExtensionNumbersResponse(
                    ExtensionNumberResponse {
                        base_type_name: name.clone(),
                        extension_number: Vec::new(),
                    },
                )),
            },
            Some(Question::ListServices(_)) => {
                let services = self.services.iter().cloned();
                Ok(Answer::ListServicesResponse(ListServiceResponse {
                    service: services.map(|name| ServiceResponse { name }).collect(),
                }))
            }
        };
        let answer = answer.unwrap_or_else(|(code, message)| {
            Answer::ErrorResponse(ErrorResponse {
                error_code: code.into(),
                error_message: message.into(),
            })
        });
        v1::ServerReflectionResponse {
            valid_host: asked.host.clone(),
            original_request: Some(asked),
            message_response: Some(answer),
        }
    }

    fn file(&self, name: &str) -> Option<Answer> {
        let file = self.files.get(name)?;
        Some(Answer::FileDescriptorResponse(FileDescriptorResponse {
            file_descriptor_proto: vec![file.clone()],
        }))
    }
}

/// The names of messages and of what is in them.
fn messages(scope: &str, messages_here: &[DescriptorProto], symbols: &mut Vec<String>) {
    for message in messages_here {
        let name = within(scope, message.name());
        let fields = message
            .field
            .iter()
            .map(|field| within(&name, field.name()));
        symbols.extend(fields);
        let choices = message.oneof_decl.iter();
        symbols.extend(choices.map(|choice| within(&name, choice.name())));
        messages(&name, &message.nested_type, symbols);
        enums(&name, &message.enum_type, symbols);
        symbols.push(name);
    }
}

fn enums(scope: &str, enums_here: &[EnumDescriptorProto], symbols: &mut Vec<String>) {
    for one in enums_here {
        // The values of an enum are named beside it.
        let values = one.value.iter().map(|value| within(scope, value.name()));
        symbols.extend(values);
        symbols.push(within(scope, one.name()));
    }
}

fn within(scope: &str, name: &str) -> String {
    match scope {
        "" => name.to_owned(),
        scope => format!("{scope}.{name}"),
    }
}

#[tonic::async_trait]
impl v1::server_reflection_server::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers<v1::ServerReflectionResponse>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<v1::ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        Ok(Response::new(self.answers(request.into_inner())))
    }
}

/// What Python's own client and older tools still ask for.
#[tonic::async_trait]
impl v1alpha::server_reflection_server::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers<v1alpha::ServerReflectionResponse>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<v1alpha::ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        Ok(Response::new(self.answers(request.into_inner())))
    }
}
