//! The generated gRPC types. Only `api`, `client` and `cli` name them.

#![allow(clippy::all, missing_docs)]

pub mod distributed {
    tonic::include_proto!("distributed");
}

pub mod hostel {
    pub mod v1 {
        tonic::include_proto!("hostel.v1");
    }
}

/// All of the above as descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");
