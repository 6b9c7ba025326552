//! C2, C4: within one life of a node no key goes back in time.
//!
//! After every event: an entry that is served is at least as new as everything the node has ever held
//! under its key, and newer than every group invalidation that covers it.

use std::collections::BTreeMap;

use nearcache_store::{Known, Scope, Version};

use super::Broken;
use crate::node::{Heard, Node};
use crate::plan::{KEYS, key};

/// What one life of a node has held.
#[derive(Debug, Default)]
pub(crate) struct Monotone {
    newest: BTreeMap<Vec<u8>, Version>,
    floors: BTreeMap<Scope, Version>,
    /// Keys whose entry was dropped on purpose, and the newest version then.
    dropped: BTreeMap<Vec<u8>, Version>,
    unchecked: bool,
}

impl Monotone {
    pub(super) fn invalidated(&mut self, scope: &Scope, version: Version) {
        let floor = self.floors.entry(scope.clone()).or_insert(Version::ZERO);
        self.unchecked |= *floor < version;
        *floor = version.max(*floor);
    }

    /// The node has dropped entries: what it no longer holds is not its to save.
    pub(super) fn dropped(&mut self, node: &Node) {
        for (key, version) in &self.newest {
            if matches!(node.store.known(key), Known::Absent { .. }) {
                self.dropped.insert(key.clone(), *version);
            }
        }
    }

    /// The newest version of a key that the node has held and not dropped on purpose.
    pub(super) fn survives(&self, key: &[u8]) -> Version {
        let newest = self.newest(key);
        match self.dropped.get(key) {
            Some(dropped) if *dropped >= newest => Version::ZERO,
            _ => newest,
        }
    }

    fn newest(&self, key: &[u8]) -> Version {
        self.newest.get(key).copied().unwrap_or(Version::ZERO)
    }

    pub(super) fn observe(
        &mut self,
        host: usize,
        node: &Node,
        heard: &[Heard],
    ) -> Result<(), Broken> {
        for change in heard {
            let newest = self
                .newest
                .entry(change.key.clone())
                .or_insert(change.version);
            *newest = change.version.max(*newest);
            self.check(host, node, &change.key)?;
        }
        if std::mem::take(&mut self.unchecked) {
            for number in 0..KEYS {
                self.check(host, node, &key(number))?;
            }
        }
        Ok(())
    }

    /// Looks at a key as a reader would.
    fn check(&self, host: usize, node: &Node, key: &[u8]) -> Result<(), Broken> {
        let Some(entry) = node.store.peek(key) else {
            return Ok(());
        };
        let (served, newest) = (entry.version(), self.newest(key));
        let name = String::from_utf8_lossy(key);
        if served < newest {
            return Err((
                "C2",
                format!("n{host} serves {served:?} of {name} after {newest:?}"),
            ));
        }
        let covering = self
            .floors
            .iter()
            .filter(|(scope, _)| scope.covers(key, entry.tags()));
        match covering
            .map(|(_, version)| *version)
            .max()
            .filter(|floor| served <= *floor)
        {
            Some(floor) => Err((
                "C4",
                format!("n{host} serves {served:?} of {name} below floor {floor:?}"),
            )),
            None => Ok(()),
        }
    }
}
