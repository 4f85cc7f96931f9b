//! The fuzz target of the records in etcd.

use super::keyspace::{Entry, Key};
use hostel_fuzz::Target;
use hostel_task::Name;

/// A record that can be read is written so that it reads the same.
pub const ETCD_RECORDS: Target = Target {
    name: "etcd_records",
    seeds: || {
        let records = [
            r#"{"id":"n","address":"a:1","version":"9","task_types":["t"],"plugins":[{"name":"p",
                "version":"1","sha256":"0"}],"components":["p"],"capacity":64,"labels":["gpu"],
                "instance":"i"}"#,
            r#"{"address":"a","metadata":{"k":"v"},"ttl_ms":60000}"#,
            "{}",
        ];
        records.map(Vec::from).into()
    },
    check: |value| {
        let Ok(id) = Name::parse("node id", "n") else {
            unreachable!("a sound name");
        };
        for key in [Key::Node(id.clone()), Key::Service(id.clone(), id)] {
            if let Ok(entry) = Entry::parse(&key, value) {
                let written = entry.value().expect("a record has a JSON form");
                assert_eq!(Entry::parse(&key, &written), Ok(entry));
            }
        }
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn fuzz_etcd_records() {
        super::ETCD_RECORDS.run();
    }
}
