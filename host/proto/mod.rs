//! The generated gRPC messages and clients, and the codec of clients. Only `api`, `client` and `cli` use
//! them. What only servers need is in `server.rs`.

#![allow(clippy::all, missing_docs)]

use prost::Message;
use std::marker::PhantomData;
use tonic::codec::BufferSettings;
use tonic_prost::{ProstDecoder, ProstEncoder};

#[cfg(feature = "node")]
mod priority;
#[cfg(feature = "node")]
mod server;

#[cfg(feature = "node")]
pub use server::{DESCRIPTORS, RequestDecoder, ServerCodec, grpc};

pub mod distributed {
    tonic::include_proto!("distributed");
    #[cfg(feature = "node")]
    tonic::include_proto!("server/distributed");
}

pub mod hostel {
    pub mod v1 {
        tonic::include_proto!("hostel.v1");
        #[cfg(feature = "node")]
        tonic::include_proto!("server/hostel.v1");
    }
}

/// Returns a duration in milliseconds, as fields of the protocol have it.
pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The buffer that each message starts with, in bytes: room for a usual message, and small enough for the
/// allocator's fast path. With tonic's default of 8 KiB, twice a call, these buffers were most of the
/// node's allocation cost, and a payload keeps the buffer that it arrived in. Longer messages grow it.
fn buffer_settings() -> BufferSettings {
    BufferSettings::new(1024, 32 << 10)
}

/// The codec of clients: tonic's own with smaller buffers.
#[derive(Default)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

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
