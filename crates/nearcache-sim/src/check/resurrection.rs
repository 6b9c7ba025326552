//! R3, and K4 of survivors: in the end nothing older is served than any living node has ever held, and
//! nobody knows less of a key than any of them knew.
//!
//! A removal that any survivor has applied therefore stays a removal, also on nodes that were away or
//! started again, and an update that any survivor has applied reaches all. What only a crashed node knew
//! may be lost.

use super::Checkers;
use crate::node::Node;
use crate::plan::{KEYS, key};

/// The first key that went back in time, in words.
pub(crate) fn resurrected(checkers: &Checkers, nodes: &[(usize, &Node)]) -> Option<String> {
    for number in 0..KEYS {
        let key = key(number);
        let newest = checkers.newest(nodes.iter().map(|(host, _)| *host), &key);
        for (host, node) in nodes {
            let served = node.store.peek(&key).map(|entry| entry.version());
            if let Some(served) = served.filter(|served| *served < newest) {
                let name = String::from_utf8_lossy(&key);
                return Some(format!(
                    "{name}: n{host} serves {served:?}, a survivor had {newest:?}"
                ));
            }
        }
    }
    None
}

/// The first update that a survivor had and somebody does not know of, in words: a miss that all nodes share is no agreement.
pub(crate) fn lost(checkers: &Checkers, nodes: &[(usize, &Node)]) -> Option<String> {
    for number in 0..KEYS {
        let key = key(number);
        let newest = checkers.newest(nodes.iter().map(|(host, _)| *host), &key);
        for (host, node) in nodes {
            let known = node.store.known(&key).version();
            if known < newest {
                let name = String::from_utf8_lossy(&key);
                return Some(format!(
                    "{name}: n{host} knows of {known:?} only, a survivor had {newest:?}"
                ));
            }
        }
    }
    None
}
