//! Compares two sets of proto files by their descriptors: every field, value and call that was there
//! has to be there with the same number, name and type.

use super::Files;
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto, field_descriptor_proto::Label,
};
use std::{collections::BTreeSet, env, ffi::OsString, fs, process::Command};

/// What the old files promise and the new ones do not.
pub fn removals(old: &Files, now: &Files) -> Vec<String> {
    let now = promises(now);
    promises(old).difference(&now).cloned().collect()
}

/// Each field, value and call as a line.
fn promises(files: &Files) -> BTreeSet<String> {
    let mut promises = BTreeSet::new();
    for file in descriptors(files).file {
        let package = file.package().to_owned();
        for message in &file.message_type {
            promises.extend(of_message(&package, message));
        }
        for enumeration in &file.enum_type {
            promises.extend(of_enum(&package, enumeration));
        }
        for service in &file.service {
            promises.extend(of_service(&package, service));
        }
    }
    promises
}

fn of_message(parent: &str, message: &DescriptorProto) -> Vec<String> {
    let path = format!("{parent}.{}", message.name());
    let mut promises = vec![format!("message {path}")];
    promises.extend(
        message
            .field
            .iter()
            .map(|field| of_field(&path, message, field)),
    );
    promises.extend(
        message
            .nested_type
            .iter()
            .flat_map(|nested| of_message(&path, nested)),
    );
    promises.extend(
        message
            .enum_type
            .iter()
            .flat_map(|nested| of_enum(&path, nested)),
    );
    promises
}

fn of_field(path: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let repeated = match field.label() {
        Label::Repeated => "repeated ",
        Label::Optional | Label::Required => "",
    };
    let optional = if field.proto3_optional() {
        "optional "
    } else {
        ""
    };
    let index = field
        .oneof_index
        .and_then(|index| usize::try_from(index).ok());
    let oneof = index.and_then(|index| message.oneof_decl.get(index));
    let oneof = oneof.map_or(String::new(), |oneof| format!(" of {}", oneof.name()));
    format!(
        "field {path}.{} = {}: {optional}{repeated}{:?} {}{oneof}",
        field.name(),
        field.number(),
        field.r#type(),
        field.type_name()
    )
}

fn of_enum(parent: &str, enumeration: &EnumDescriptorProto) -> Vec<String> {
    let path = format!("{parent}.{}", enumeration.name());
    let values = enumeration.value.iter();
    values
        .map(|value| format!("value {path}.{} = {}", value.name(), value.number()))
        .collect()
}

fn of_service(package: &str, service: &ServiceDescriptorProto) -> Vec<String> {
    let path = format!("{package}.{}", service.name());
    let calls = service.method.iter();
    calls
        .map(|call| {
            let stream = |streams: bool| if streams { "stream " } else { "" };
            format!(
                "call {path}.{}: {}{} -> {}{}",
                call.name(),
                stream(call.client_streaming()),
                call.input_type(),
                stream(call.server_streaming()),
                call.output_type()
            )
        })
        .collect()
}

fn descriptors(files: &Files) -> FileDescriptorSet {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let protos: Vec<_> = files
        .keys()
        .filter(|name| name.ends_with(".proto"))
        .collect();
    for name in &protos {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, &files[*name]).expect("a proto file");
    }
    let set = dir.path().join("set");
    let protoc = Command::new(protoc())
        .current_dir(dir.path())
        .arg("--proto_path=proto")
        .arg(format!("--descriptor_set_out={}", set.display()))
        .args(protos)
        .output()
        .expect("protoc runs");
    let said = String::from_utf8_lossy(&protoc.stderr);
    assert!(
        protoc.status.success(),
        "protoc refuses the proto files: {said}"
    );
    let set = fs::read(set).expect("a descriptor set");
    FileDescriptorSet::decode(&*set).expect("a descriptor set")
}

/// The program that the build uses too: of PROTOC, of the PATH, or of a crate.
fn protoc() -> OsString {
    let is_there = |protoc: &OsString| {
        let version = Command::new(protoc).arg("--version").output();
        version.is_ok_and(|version| version.status.success())
    };
    let candidates = [env::var_os("PROTOC"), Some("protoc".into())];
    let found = candidates.into_iter().flatten().find(is_there);
    found.unwrap_or_else(|| {
        let vendored = protoc_bin_vendored::protoc_bin_path();
        vendored
            .expect("a protoc for this machine")
            .into_os_string()
    })
}
