//! C3: read your writes on the node.
//!
//! After a node has told a caller that a key is written, removed or invalidated, alone or with its group, each later reader there gets that or
//! something newer. The same of what its home node changed for it. Where nothing makes a node lose what it holds, a value that was written
//! is there until it expires: nothing is no answer either, unless something newer is known.

use std::collections::BTreeMap;

use bytes::Bytes;
use nearcache_protocol::time::Time;
use nearcache_store::{Expiry, Handle, Scope, Tags, Version};

use super::Broken;
use crate::node::{Done, Node};
use crate::plan::Plan;
use crate::value::Value;

/// The newest that callers on a host were told of a key.
#[derive(Debug, Clone)]
struct Told {
    version: Version,
    /// Until when a value must be there, unless one of its tags is invalidated.
    value: Option<(Expiry, Tags)>,
}

/// What callers were told, by host, in the present lives.
#[derive(Debug, Default)]
pub(crate) struct OwnWrites {
    keys: BTreeMap<(usize, Bytes), Told>,
    groups: BTreeMap<usize, BTreeMap<Scope, Version>>,
}

impl OwnWrites {
    /// The host's node is gone.
    pub(super) fn forget(&mut self, host: usize) {
        self.keys.retain(|(at, _), _| *at != host);
        self.groups.remove(&host);
    }

    /// The node has dropped what it held: it may serve nothing, and still nothing older.
    pub(super) fn dropped(&mut self, host: usize) {
        for ((at, _), told) in &mut self.keys {
            if *at == host {
                told.value = None;
            }
        }
    }

    /// The node has told a caller this; the caller looks at once.
    pub(crate) fn done(
        &mut self,
        now: Time,
        host: usize,
        node: &Node,
        plan: &Plan,
        done: Done,
    ) -> Result<(), Broken> {
        match done {
            Done::Key {
                key,
                version,
                value,
            } => {
                let told = Told { version, value };
                let newest = self.keys.entry((host, key.clone()));
                let newest = newest.or_insert_with(|| told.clone());
                if newest.version < version {
                    *newest = told;
                }
                let newest = newest.clone();
                self.look((now, host, node, plan), &key, &newest)
            }
            Done::Group { scope, version } => {
                let groups = self.groups.entry(host).or_default();
                let newest = groups.entry(scope).or_insert(version);
                *newest = version.max(*newest);
                self.read(now, host, node, plan)
            }
        }
    }

    /// Somebody reads all keys on the host that callers there were told of.
    pub(crate) fn read(
        &self,
        now: Time,
        host: usize,
        node: &Node,
        plan: &Plan,
    ) -> Result<(), Broken> {
        let keys = self
            .keys
            .range((host, Bytes::new())..(host + 1, Bytes::new()));
        for ((_, key), told) in keys {
            self.look((now, host, node, plan), key, told)?;
        }
        Ok(())
    }

    fn look(
        &self,
        (now, host, node, plan): (Time, usize, &Node, &Plan),
        key: &Bytes,
        told: &Told,
    ) -> Result<(), Broken> {
        let own = node.time(now);
        if own > node.core.read_bound().serve_until {
            return Ok(());
        }
        if let Some(entry) = node.store.peek(key) {
            return self.serves(host, &entry);
        }
        // Where there is little room, or what was removed is forgotten, a miss says nothing.
        let may_lose = plan.is_small() || plan.forgets();
        let must = told.value.as_ref();
        let must = must.filter(|(expiry, _)| !expiry.is_expired(node.boot_ms(now)));
        let Some((_, tags)) = must.filter(|_| !may_lose) else {
            return Ok(());
        };
        let mut floors = node.store.floors().into_iter();
        if node.store.known(key).version() > told.version
            || floors.any(|(scope, floor)| floor > told.version && scope.covers(key, tags))
        {
            return Ok(());
        }
        let what = format!(
            "n{host} has nothing under {}, and has told a caller that {:?} is there: it knows of {:?}",
            name(key),
            told.version,
            node.store.known(key).version()
        );
        Err(("C3", what))
    }

    /// A reader on the host gets this.
    pub(crate) fn serves(&self, host: usize, entry: &Handle<Value>) -> Result<(), Broken> {
        let served = entry.version();
        let key = Bytes::copy_from_slice(entry.key());
        let of_groups = self.groups.get(&host).into_iter().flatten();
        let of_groups = of_groups
            .filter(|(scope, _)| scope.covers(&key, entry.tags()))
            .map(|(_, version)| *version)
            .max()
            // What is as new as the invalidation was there before it.
            .filter(|version| served <= *version);
        let told = self.keys.get(&(host, key.clone()));
        let told = told.map(|told| told.version).filter(|told| served < *told);
        match told.max(of_groups) {
            Some(told) => Err((
                "C3",
                format!(
                    "n{host} serves {served:?} of {} after it has told a caller of {told:?}",
                    name(&key)
                ),
            )),
            None => Ok(()),
        }
    }
}

fn name(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
