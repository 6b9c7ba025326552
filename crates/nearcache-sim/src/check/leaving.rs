//! K4 and C2 where nodes leave on purpose and come back: nothing is lost, and nobody goes back to what it served before.
//!
//! What any node has ever held is held, or superseded, on every node at the end. And from when a node is ready again, it serves nothing
//! older than what its former life served.

use std::collections::BTreeMap;

use nearcache_store::Version;

use super::Broken;
use crate::node::{Heard, Node};
use crate::plan::{KEYS, key};

/// What was seen of all lives together.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    /// The newest that any node held of a key.
    held: BTreeMap<Vec<u8>, Version>,
    /// The newest that a host served of a key while it was ready, and the life that is known to be ready.
    served: Vec<(u32, BTreeMap<Vec<u8>, Version>)>,
}

impl Lives {
    /// Something happened on a host, in its life of this number.
    pub(crate) fn observe(
        &mut self,
        (host, life): (usize, u32),
        node: &Node,
        heard: &[Heard],
    ) -> Result<(), Broken> {
        for change in heard {
            let held = self
                .held
                .entry(change.key.clone())
                .or_insert(change.version);
            *held = change.version.max(*held);
        }
        if !node.core.is_ready() {
            return Ok(());
        }
        if self.served.len() <= host {
            self.served.resize_with(host + 1, Default::default);
        }
        let Some((ready, served)) = self.served.get_mut(host) else {
            return Ok(());
        };
        if *ready == life {
            for change in heard {
                serve((host, life), node, &change.key, served)?;
            }
        } else {
            *ready = life;
            for number in 0..KEYS {
                serve((host, life), node, &key(number), served)?;
            }
        }
        Ok(())
    }

    /// What was lost, in words.
    pub(crate) fn lost(&self, nodes: &[(usize, &Node)]) -> Option<String> {
        for (key, held) in &self.held {
            for (host, node) in nodes {
                let known = node.store.known(key).version();
                if known < *held {
                    let name = String::from_utf8_lossy(key);
                    let what = format!("{held:?} of {name} was held, n{host} knows {known:?} only");
                    return Some(what);
                }
            }
        }
        None
    }
}

/// A reader asks for a key.
fn serve(
    (host, life): (usize, u32),
    node: &Node,
    key: &[u8],
    served: &mut BTreeMap<Vec<u8>, Version>,
) -> Result<(), Broken> {
    let Some(entry) = node.store.peek(key) else {
        return Ok(());
    };
    let former = served.entry(key.to_vec()).or_insert(Version::ZERO);
    if entry.version() < *former {
        let name = String::from_utf8_lossy(key);
        let what = format!(
            "n{host} serves {:?} of {name} in life {life}, and served {former:?} before",
            entry.version()
        );
        return Err(("C2", what));
    }
    *former = entry.version();
    Ok(())
}
