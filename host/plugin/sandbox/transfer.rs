//! How many bytes the node takes from a guest in one piece: the arguments of a host call, or a result.
//! wasmtime counts them while it copies them, and ends the guest that passes more. So this is above every
//! limit that is checked afterwards and answered with an error.

use hostel_config::{Config, Sandbox};

/// What a guest may always pass, even if results, payloads and values must be smaller.
const MIN_BYTES: usize = 1 << 20;
/// What a key takes besides its text: it and the length of its value, as Rust keeps them.
const ENTRY_BYTES: usize = 64;
/// Names and types of messages, ids and error texts.
const NAMES_BYTES: usize = 64 << 10;
/// The keys of one call, however many and long the settings allow.
const MAX_KEYS_BYTES: usize = 64 << 20;

/// Returns what a guest with these limits may pass to the node at once: twice the largest of what a
/// result, a message and a batch of values may have, so that what is too large is told so, and beside that
/// the keys of the batch.
pub fn max_bytes(config: &Config, sandbox: &Sandbox) -> usize {
    let keyvalue = &config.keyvalue.limits;
    let largest = [
        sandbox.max_result_bytes,
        config.limits.max_payload_bytes,
        keyvalue.max_batch_bytes,
        MIN_BYTES,
    ];
    let largest = largest.into_iter().fold(0, usize::max);
    let key_bytes = keyvalue.max_key_bytes.saturating_add(ENTRY_BYTES);
    let keys_bytes = keyvalue.max_batch_keys.saturating_mul(key_bytes);
    largest
        .saturating_mul(2)
        .saturating_add(keys_bytes.min(MAX_KEYS_BYTES))
        .saturating_add(NAMES_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_largest_limit_passes_together_with_its_keys() {
        type Change = fn(&mut Config);
        let changes: [Change; 4] = [
            |_| {},
            |config| config.plugins.sandbox.max_result_bytes = 100 << 20,
            |config| config.limits.max_payload_bytes = 100 << 20,
            |config| config.keyvalue.limits.max_batch_bytes = 100 << 20,
        ];
        for change in changes {
            let mut config = Config::default();
            change(&mut config);
            let bytes = max_bytes(&config, &config.plugins.sandbox);
            let keyvalue = &config.keyvalue.limits;
            let entry = std::mem::size_of::<(String, Vec<u8>)>() + keyvalue.max_key_bytes;
            let batch = keyvalue.max_batch_bytes + keyvalue.max_batch_keys * entry;
            assert!(bytes > batch);
            assert!(bytes > 2 * config.limits.max_payload_bytes);
            assert!(bytes > 2 * config.plugins.sandbox.max_result_bytes);
            assert!(bytes < 250 << 20, "{bytes}");
        }
    }

    #[test]
    fn small_limits_and_long_keys_stay_within_bounds() {
        let mut config = Config::default();
        config.plugins.sandbox.max_result_bytes = 0;
        config.limits.max_payload_bytes = 0;
        config.keyvalue.limits.max_batch_bytes = 0;
        assert!(max_bytes(&config, &config.plugins.sandbox) > 2 * MIN_BYTES);
        config.keyvalue.limits.max_batch_keys = 100_000;
        config.keyvalue.limits.max_key_bytes = 64 << 10;
        let bytes = max_bytes(&config, &config.plugins.sandbox);
        assert_eq!(bytes, 2 * MIN_BYTES + MAX_KEYS_BYTES + NAMES_BYTES);
    }
}
