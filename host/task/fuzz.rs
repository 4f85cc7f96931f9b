//! Fuzz targets of names and routes.

use crate::{Name, Route};
use hostel_fuzz::Target;

/// A name is safe in a key, a path, a label and a line of text.
pub const NAMES: Target = Target {
    name: "names",
    seeds: || {
        ["a", "word-count", "order:4711", "7f.v2", "__"]
            .map(Vec::from)
            .into()
    },
    check: |bytes| {
        let given = String::from_utf8_lossy(bytes);
        match Name::parse("name", &given) {
            Ok(name) => {
                assert_eq!(name.as_str(), given);
                assert!(given.len() <= Name::MAX_BYTES);
                assert!(given.bytes().all(|byte| byte.is_ascii_graphic()));
                assert!(!given.contains(['/', '{', '}', '@', '\\', '"', '*', ' ']));
            }
            Err(error) => assert!(error.to_string().len() < 1024, "{error}"),
        }
    },
};

/// A route that can be read is written the same.
pub const ROUTES: Target = Target {
    name: "routes",
    seeds: || {
        let routes = ["echo", "echo@node:node-1", "word:count@label:gpu"];
        routes.map(Vec::from).into()
    },
    check: |bytes| {
        let given = String::from_utf8_lossy(bytes);
        if let Some(route) = Route::parse(&given) {
            assert_eq!(route.to_string(), given);
        }
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn fuzz_names() {
        super::NAMES.run();
    }

    #[test]
    fn fuzz_routes() {
        super::ROUTES.run();
    }
}
