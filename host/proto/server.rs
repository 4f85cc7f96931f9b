//! What only servers need of the generated code: the standard services, the descriptors of all services,
//! and the codec that refuses malformed requests.

use super::buffer_settings;
use prost::Message;
use std::marker::PhantomData;
use tonic::{
    Status,
    codec::{BufferSettings, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

/// The services that gRPC defines for every server, with its own comments.
#[allow(rustdoc::invalid_html_tags)]
pub mod grpc {
    pub mod health {
        pub mod v1 {
            tonic::include_proto!("server/grpc.health.v1");
        }
    }

    pub mod reflection {
        pub mod v1 {
            tonic::include_proto!("server/grpc.reflection.v1");
        }

        /// The service of the older version, over the messages of `v1`.
        pub mod v1alpha {
            tonic::include_proto!("server/grpc.reflection.v1alpha");
        }
    }
}

/// The descriptors of all services above, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");

/// The codec of servers: a request that does not decode is an invalid argument, where tonic's own
/// codec reports an internal error.
#[derive(Default)]
pub struct ServerCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> tonic::codec::Codec for ServerCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = RequestDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(buffer_settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder(PhantomData)
    }
}

/// Decodes requests.
pub struct RequestDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for RequestDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(bytes)
            .map(Some)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}
