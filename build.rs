//! Generates Rust from the proto files: messages and clients, and the servers over the same messages.
//! Needs protoc, and brings one along for machines that have none.

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};
use tonic_prost_build::{Builder, Config};

/// Hostel's own services.
const OWN: [&str; 7] = [
    "proto/distributed.proto",
    "proto/hostel/v1/tasks.proto",
    "proto/hostel/v1/plugins.proto",
    "proto/hostel/v1/components.proto",
    "proto/hostel/v1/nodes.proto",
    "proto/hostel/v1/schedules.proto",
    "proto/hostel/v1/types.proto",
];

/// The services that gRPC defines for every server, from <https://github.com/grpc/grpc-proto>.
const STANDARD: [&str; 3] = [
    "proto/grpc/health/v1/health.proto",
    "proto/grpc/reflection/v1/reflection.proto",
    "proto/grpc/reflection/v1alpha/reflection.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=PROTOC");
    println!("cargo:rerun-if-env-changed=PATH");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let vendored = vendored_protoc(&out)?;
    let generate = |builder: Builder, files: &[&str]| {
        let mut config = Config::new();
        if let Some(protoc) = &vendored {
            config.protoc_executable(protoc);
        }
        // A payload is a reference into the message that carried it, not a copy.
        builder
            .bytes(".")
            // Beside it the other responses are small, and many wait to be sent.
            .boxed(".hostel.v1.SubmitManyResponse.event.ended")
            .compile_with_config(config, files, &["proto"])
    };
    let clients = tonic_prost_build::configure()
        .build_server(false)
        .codec_path("crate::proto::Codec");
    generate(clients, &OWN)?;
    if env::var_os("CARGO_FEATURE_NODE").is_none() {
        return Ok(());
    }
    let servers = out.join("server");
    fs::create_dir_all(&servers)?;
    let servers = tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::proto::ServerCodec")
        .extern_path(".distributed", "crate::proto::distributed")
        .extern_path(".hostel.v1", "crate::proto::hostel::v1")
        // Both versions have the same messages.
        .extern_path(
            ".grpc.reflection.v1alpha",
            "crate::proto::grpc::reflection::v1",
        )
        .file_descriptor_set_path(out.join("descriptors.bin"))
        .out_dir(servers);
    let all: Vec<&str> = OWN.into_iter().chain(STANDARD).collect();
    generate(servers, &all)?;
    Ok(())
}

/// The protoc of `protoc-bin-vendored`, unless PROTOC names another or the PATH has one.
fn vendored_protoc(out: &Path) -> Result<Option<PathBuf>, Box<dyn Error>> {
    let on_path = env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join("protoc").is_file()));
    if on_path || env::var_os("PROTOC").is_some() {
        return Ok(None);
    }
    let vendored = protoc_bin_vendored::protoc_bin_path().map_err(|error| {
        format!("{error}: install protoc (Debian: protobuf-compiler) or set PROTOC to its path")
    })?;
    // Not every way of unpacking a crate keeps the permission to execute.
    let protoc = out.join("protoc");
    fs::copy(vendored, &protoc)?;
    make_executable(&protoc)?;
    Ok(Some(protoc))
}

#[cfg(unix)]
fn make_executable(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> io::Result<()> {
    Ok(())
}
