//! C6: a value is served whole, and under the version that it was written with.
//!
//! Whoever wrote a version is the first to hold it; every other node that ever holds a value in that version must hold the same bytes,
//! whether they came with the update, by a transfer, or in pieces.

use std::collections::BTreeMap;

use nearcache_protocol::payload::Payload as _;
use nearcache_store::{Handle, Version};

use super::Broken;
use crate::node::{Heard, Node};
use crate::plan::{KEYS, key};
use crate::value::Value;

/// The value of every version that was ever held.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    values: BTreeMap<(Vec<u8>, Version), Vec<u8>>,
}

impl Whole {
    pub(super) fn observe(&mut self, host: usize, heard: &[Heard]) -> Result<(), Broken> {
        for change in heard {
            let Some(entry) = change.entry.as_ref().filter(|entry| !entry.is_stub()) else {
                continue;
            };
            let of = (change.key.clone(), change.version);
            let bytes = entry.value().bytes();
            let first = self.values.entry(of).or_insert_with(|| bytes.to_vec());
            if first != bytes {
                let what = format!(
                    "n{host} holds {} bytes as {:?} of {}, which has others ({})",
                    bytes.len(),
                    change.version,
                    change.name(),
                    first.len()
                );
                return Err(("C6", what));
            }
        }
        Ok(())
    }
}

/// R9, once it is quiet and every stub was read: what one node holds, all do. The first difference, in words.
pub(crate) fn unfetched(nodes: &[(usize, &Node)]) -> Option<String> {
    for number in 0..KEYS {
        let name = key(number);
        let held = nodes
            .iter()
            .filter_map(|(host, node)| Some((*host, node.store.peek(&name)?)));
        let held: Vec<_> = held.collect();
        let Some((holder, whole)) = held.iter().find(|(_, entry)| !entry.is_stub()) else {
            continue;
        };
        let lacks = |entry: &Handle<Value>| entry.is_stub() && entry.version() == whole.version();
        if let Some((host, _)) = held.iter().find(|(_, entry)| lacks(entry)) {
            let name = String::from_utf8_lossy(&name);
            return Some(format!(
                "n{host} has read {name} and has no value, n{holder} holds it"
            ));
        }
    }
    None
}

/// K4, after all nodes were restarted one after the other: an entry whose long value nobody holds any more, in words.
pub(crate) fn orphaned(nodes: &[(usize, &Node)]) -> Option<String> {
    for number in 0..KEYS {
        let name = key(number);
        let held = nodes.iter().filter_map(|(_, node)| node.store.peek(&name));
        let held: Vec<_> = held.collect();
        let newest = held.iter().map(Handle::version).max();
        let newest = held.iter().filter(|entry| Some(entry.version()) == newest);
        let mut newest = newest.peekable();
        if newest.peek().is_some() && newest.all(Handle::is_stub) {
            let name = String::from_utf8_lossy(&name);
            return Some(format!("nobody holds the long value of {name} any more"));
        }
    }
    None
}
