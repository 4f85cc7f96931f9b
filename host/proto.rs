//! The generated gRPC types and their codecs. Only `api`, `client` and `cli` use them.

#![allow(clippy::all, missing_docs)]

use prost::Message;
use std::marker::PhantomData;
use tonic::{
    Status,
    codec::{BufferSettings, DecodeBuf, Decoder},
};
use tonic_prost::{ProstDecoder, ProstEncoder};

pub mod distributed {
    tonic::include_proto!("distributed");
    tonic::include_proto!("server/distributed");
}

pub mod hostel {
    pub mod v1 {
        tonic::include_proto!("hostel.v1");
        tonic::include_proto!("server/hostel.v1");
    }
}

/// The services that gRPC defines for every server.
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

/// The buffer that each message starts with, in bytes: room for a usual message, and small enough for the
/// allocator's fast path. With tonic's default of 8 KiB, twice a call, these buffers were most of the
/// node's allocation cost, and a payload keeps the buffer that it arrived in. Longer messages grow it.
fn buffer_settings() -> BufferSettings {
    BufferSettings::new(1024, 32 << 10)
}

/// The codec of clients: tonic's own with smaller buffers.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(buffer_settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(buffer_settings())
    }
}

/// The codec of servers: a request that does not decode is an invalid argument, where tonic's own
/// codec reports an internal error.
pub struct ServerCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ServerCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

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
