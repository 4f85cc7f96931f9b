//! Turns the proto files into Rust, and does nothing else. .cargo/config.toml says
//! which protoc does it, so that nobody has to install one.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 5] = [
    "proto/distributed.proto",
    "proto/hostel/v1/tasks.proto",
    "proto/hostel/v1/plugins.proto",
    "proto/hostel/v1/components.proto",
    "proto/hostel/v1/nodes.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        // A payload is a reference into the message that carried it, not a copy.
        .bytes(".")
        .build_server(false)
        .codec_path("crate::proto::Codec")
        .file_descriptor_set_path(out.join("descriptors.bin"))
        .compile_protos(&FILES, &["proto"])?;
    // Servers, over the same messages: what does not decode is their client's fault.
    let servers = out.join("server");
    fs::create_dir_all(&servers)?;
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::proto::ServerCodec")
        .extern_path(".distributed", "crate::proto::distributed")
        .extern_path(".hostel.v1", "crate::proto::hostel::v1")
        .out_dir(servers)
        .compile_protos(&FILES, &["proto"])?;
    Ok(())
}
