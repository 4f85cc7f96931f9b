//! The output of `hostel plugins inspect`.

use super::{error::CliError, output::print_json};
use crate::plugin::{Generation, Inspection};
use serde_json::{Value, json};

/// Prints an inspection. Returns an error if a node would refuse the file.
pub fn print(inspection: &Inspection, json: bool) -> Result<(), CliError> {
    if json {
        print_json(&to_json(inspection));
    } else {
        print_text(inspection);
    }
    if inspection.diagnostics.is_empty() {
        Ok(())
    } else {
        Err(CliError::failed("a node would refuse this file"))
    }
}

fn to_json(inspection: &Inspection) -> Value {
    let imports = inspection.imports.iter();
    let imports = imports.map(|import| json!({ "name": import.name, "provided": import.provided }));
    let errors = inspection.diagnostics.iter().map(ToString::to_string);
    json!({
        "bytes": inspection.bytes,
        "sha256": inspection.sha256,
        "compile_ms": inspection.compile_time.map(|time| time.as_millis() as u64),
        "exports": inspection.exports,
        "imports": imports.collect::<Vec<_>>(),
        "plugin": inspection.plugin.as_ref().map(plugin_json),
        "errors": errors.collect::<Vec<_>>(),
        "warnings": inspection.warnings,
    })
}

fn plugin_json(plugin: &Generation) -> Value {
    let task_types = plugin.task_types.iter();
    let task_types = task_types.map(|task_type| {
        json!({
            "name": task_type.name.as_str(),
            "description": task_type.description,
            "timeout_ms": task_type.timeout.as_millis() as u64,
            "max_attempts": task_type.retry.max_attempts,
            "max_concurrency": task_type.max_concurrency,
        })
    });
    json!({
        "name": plugin.name.as_str(),
        "version": plugin.version,
        "description": plugin.description,
        "task_types": task_types.collect::<Vec<_>>(),
    })
}

fn print_text(inspection: &Inspection) {
    if let Some(plugin) = &inspection.plugin {
        print_line!("{} {}: {}", plugin.name, plugin.version, plugin.description);
        for task_type in &plugin.task_types {
            print_line!(
                "  handles {}: {} attempts, {:?} each; {}",
                task_type.name,
                task_type.retry.max_attempts,
                task_type.timeout,
                task_type.description
            );
        }
    }
    print_line!("{} bytes, sha256 {}", inspection.bytes, inspection.sha256);
    if let Some(time) = inspection.compile_time {
        print_line!("compiled in {time:.0?}");
    }
    for export in &inspection.exports {
        print_line!("exports {export}");
    }
    for import in &inspection.imports {
        let provided = if import.provided {
            "provided"
        } else {
            "NOT PROVIDED"
        };
        print_line!("imports {} ({provided})", import.name);
    }
    for diagnostic in &inspection.diagnostics {
        print_line!("error: {diagnostic}");
    }
    for warning in &inspection.warnings {
        print_line!("warning: {warning}");
    }
}
