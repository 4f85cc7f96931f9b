//! The smallest plugin: returns its payload, for trying out and measuring a node.

use hostel_sdk::prelude::*;

fn echo(payload: Vec<u8>) -> Vec<u8> {
    payload
}

hostel_sdk::plugin! {
    task("echo", echo).description("The payload, unchanged"),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_comes_back() {
        let host = MockHost::new(plugin());
        for payload in [&b""[..], b"hello", b"\x00\xff"] {
            assert_eq!(host.run("echo", payload), Ok(payload.to_vec()));
        }
    }
}
