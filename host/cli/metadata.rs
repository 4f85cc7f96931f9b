//! The metadata of a task as arguments.

use super::error::CliError;
use clap::Args;
use std::collections::HashMap;

/// Metadata by its keys.
#[derive(Debug, Args)]
#[group(skip)]
pub struct MetadataArgs {
    /// Metadata for the handler; may be repeated
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = key_value)]
    metadata: Vec<(String, String)>,
}

impl MetadataArgs {
    /// Returns the metadata, unless a key is given twice.
    pub fn get(&self) -> Result<HashMap<String, String>, CliError> {
        let metadata: HashMap<_, _> = self.metadata.iter().cloned().collect();
        if metadata.len() < self.metadata.len() {
            return Err(CliError::usage("--meta gives a key more than once"));
        }
        Ok(metadata)
    }
}

fn key_value(given: &str) -> Result<(String, String), String> {
    match given.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("{given:?} is not KEY=VALUE")),
    }
}
