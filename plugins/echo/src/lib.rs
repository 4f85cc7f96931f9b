//! The smallest plugin: gives back what it gets. For trying out a node and measuring one.

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
