//! `on_disconnect = "flush"` in mode `invalidation`: no copy from before the lease ran out is served after it.

use std::collections::BTreeMap;

use nearcache_store::Version;

use super::Broken;
use crate::node::Node;
use crate::plan::{KEYS, key};

/// What was seen on a host, in its present life.
#[derive(Debug, Default)]
struct Seen {
    /// What was held when somebody last read under a lease.
    served: BTreeMap<usize, Version>,
    /// What was held when a lease ran out.
    gone: BTreeMap<usize, Version>,
}

/// The same of all hosts.
#[derive(Debug, Default)]
pub(crate) struct Lapses(BTreeMap<usize, Seen>);

impl Lapses {
    /// The host's node is gone.
    pub(super) fn forget(&mut self, host: usize) {
        self.0.remove(&host);
    }

    /// Somebody reads everything on the host, which may serve it or not.
    pub(crate) fn read(&mut self, host: usize, node: &Node, is_leased: bool) -> Result<(), Broken> {
        let seen = self.0.entry(host).or_default();
        let Seen { served, gone } = seen;
        if !is_leased {
            gone.append(served);
            return Ok(());
        }
        served.clear();
        for number in 0..KEYS {
            let Some(entry) = node.store.peek(&key(number)) else {
                continue;
            };
            if gone.get(&number) == Some(&entry.version()) {
                let what = format!(
                    "n{host} serves {:?} of key {number}, which it held when its lease ran out",
                    entry.version()
                );
                return Err(("on_disconnect", what));
            }
            served.insert(number, entry.version());
        }
        Ok(())
    }
}
