//! R1: once it is quiet, all live nodes hold the same.
//!
//! A long value that is not on a node yet counts as the same: what it holds is checked by [`whole`](super::whole).
//!
//! Compared key by key: what is served (version, value, expiry, tags), and for what is not, the version
//! that keeps older ones out. An entry whose time is up just now may be gone on one node already and not
//! yet on another: their clocks differ.

use std::fmt;

use nearcache_protocol::payload::Payload as _;
use nearcache_store::{Known, Version};

use crate::node::Node;
use crate::plan::{KEYS, key};

/// How far apart clocks may be, in milliseconds, with some reserve.
const CLOCKS_APART_MS: u64 = 400;

/// What a node holds under a key, as far as nodes must agree on it.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    version: Version,
    /// Deadline and tags of what is served.
    served: Option<(u64, Vec<Vec<u8>>)>,
    /// Its value, unless that is to be fetched when it is read.
    value: Option<Value>,
    /// Whether the entry's time is up about now, so that it may be served or not.
    fading: bool,
    /// Whether that is the version of an entry that is not here any more.
    evicted: bool,
}

/// Told by its length and its beginning: some are long.
#[derive(PartialEq, Eq)]
struct Value(Vec<u8>);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beginning: Vec<u8> = self.0.iter().take(16).copied().collect();
        let length = self.0.len();
        write!(f, "{length} bytes, {}", String::from_utf8_lossy(&beginning))
    }
}

/// The first difference between two of the nodes, in words; loosely, of what two of them serve. Where contents are dropped for a split (`flushes`), what
/// kept older values of a dropped entry out stays where it was if nobody brings the entry back: it is no difference where nothing is served.
pub(crate) fn difference(nodes: &[(usize, &Node)], loosely: bool, flushes: bool) -> Option<String> {
    for number in 0..KEYS {
        let key = key(number);
        let held = nodes.iter().map(|(host, node)| (*host, held(node, &key)));
        let held: Vec<(usize, Held)> = held.collect();
        for pair in held.windows(2) {
            let [(a, left), (b, right)] = pair else {
                continue;
            };
            let fading = left.fading || right.fading;
            // Where entries are evicted or removals forgotten, only what two nodes serve must be the same.
            let (a_serves, b_serves) = (left.served.is_some(), right.served.is_some());
            let is_left_over = flushes && (left.evicted || right.evicted);
            if loosely && !(a_serves && b_serves) || is_left_over && !a_serves && !b_serves {
                continue;
            }
            let (a_whole, b_whole) = (left.value.is_some(), right.value.is_some());
            let same_value = left.value == right.value || !(a_whole && b_whole);
            let same_served = (left.served == right.served && same_value) || fading;
            if left.version != right.version || !same_served {
                let name = String::from_utf8_lossy(&key);
                return Some(format!("{name}: n{a} holds {left:?}, n{b} holds {right:?}"));
            }
        }
    }
    None
}

fn held(node: &Node, key: &[u8]) -> Held {
    let now_ms = node.store.clock().now_ms();
    match node.store.known(key) {
        Known::Live(entry) => {
            let tags = entry.tags().iter().map(<[u8]>::to_vec).collect();
            let deadline_ms = entry.expiry().as_millis();
            let served = (deadline_ms, tags);
            let value = (!entry.is_stub()).then(|| Value(entry.value().bytes().to_vec()));
            let fading = deadline_ms < now_ms + CLOCKS_APART_MS;
            Held {
                version: entry.version(),
                served: Some(served),
                value,
                fading,
                evicted: false,
            }
        }
        known => Held {
            version: known.version(),
            served: None,
            value: None,
            fading: false,
            evicted: node.store.evicted(key) == Some(known.version()),
        },
    }
}
