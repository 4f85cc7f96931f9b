//! The fuzz target of configurations.

use super::{Secrets, reference, show};
use crate::Config;
use hostel_fuzz::Target;

/// A configuration that loads is shown as one that loads to the same; every other is refused with a
/// reason.
pub const CONFIGURATIONS: Target = Target {
    name: "configurations",
    seeds: || {
        let complete = complete();
        let sections = complete.split("\n[").skip(1);
        sections
            .map(|section| format!("[{section}").into())
            .collect()
    },
    check: |bytes| match Config::parse(&String::from_utf8_lossy(bytes), std::iter::empty()) {
        Ok(config) => {
            let shown = show(&config, Secrets::Shown);
            if let Ok(again) = Config::parse(&shown, std::iter::empty()) {
                assert_eq!(show(&again, Secrets::Shown), shown);
            }
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    },
};

/// The reference with the settings given that it mentions in comments.
fn complete() -> String {
    let reference = reference();
    let lines = reference.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn fuzz_configurations() {
        super::CONFIGURATIONS.run();
    }
}
