//! Turns the proto files into Rust, and does nothing else. .cargo/config.toml says
//! which protoc does it, so that nobody has to install one.

use std::{env, error::Error, path::PathBuf};

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
        .codec_path("crate::proto::Codec")
        .file_descriptor_set_path(out.join("descriptors.bin"))
        .compile_protos(&FILES, &["proto"])?;
    Ok(())
}
