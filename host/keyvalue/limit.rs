//! The limits of one call: pure checks, the same for every backend. A backend calls `usage` with what a
//! plugin would store.

use super::key_value::{Bucket, Change, Error};
use hostel_config::KeyValueLimits;
use hostel_task::Name;

pub(super) fn bucket(plugin: &Name, store: &str, limits: &KeyValueLimits) -> Result<Bucket, Error> {
    let max = limits.max_store_name_bytes;
    if store.len() > max {
        return Err(Error::Limit(format!(
            "the name of a store has {} bytes; at most {max} are allowed \
             (keyvalue.max_store_name_bytes)",
            store.len()
        )));
    }
    Ok(Bucket::new(plugin.clone(), store.to_owned()))
}

pub(super) fn keys<'k>(
    keys: impl ExactSizeIterator<Item = &'k str>,
    limits: &KeyValueLimits,
) -> Result<(), Error> {
    let (given, max) = (keys.len(), limits.max_batch_keys);
    if given > max {
        return Err(Error::Limit(format!(
            "{given} keys in one call; at most {max} are allowed (keyvalue.max_batch_keys)"
        )));
    }
    let max = limits.max_key_bytes;
    for key in keys {
        if key.len() > max {
            return Err(Error::Limit(format!(
                "a key has {} bytes; at most {max} are allowed (keyvalue.max_key_bytes)",
                key.len()
            )));
        }
    }
    Ok(())
}

pub(super) fn changes(changes: &[Change], limits: &KeyValueLimits) -> Result<(), Error> {
    keys(changes.iter().map(Change::key), limits)?;
    let max = limits.max_value_bytes;
    let mut all = 0;
    for change in changes {
        let Change::Set { value, .. } = change else {
            continue;
        };
        if value.len() > max {
            return Err(Error::Limit(format!(
                "a value has {} bytes; at most {max} are allowed (keyvalue.max_value_bytes)",
                value.len()
            )));
        }
        all += value.len();
    }
    batch(all, limits)
}

/// Checks the values of one call, in either direction.
pub(super) fn batch(bytes: usize, limits: &KeyValueLimits) -> Result<(), Error> {
    let max = limits.max_batch_bytes;
    if bytes > max {
        return Err(Error::Limit(format!(
            "the values of one call have {bytes} bytes or more; at most {max} are allowed \
             (keyvalue.max_batch_bytes): use fewer keys at once"
        )));
    }
    Ok(())
}

/// Checks what a plugin would store after a change that adds to it.
pub(super) fn usage(plugin: &Name, bytes: u64, limits: &KeyValueLimits) -> Result<(), Error> {
    let max = limits.max_plugin_bytes;
    if bytes > max {
        return Err(Error::Limit(format!(
            "plugin {plugin} would keep {bytes} bytes; at most {max} are allowed \
             (keyvalue.max_plugin_bytes): delete something first"
        )));
    }
    Ok(())
}
