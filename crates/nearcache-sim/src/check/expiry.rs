//! C5: nothing is served after it has expired.
//!
//! A deadline is a time of the cluster, the same on all nodes: that which the writer was promised, whatever the entry that has travelled says of it. Each
//! node goes by its own boot-time clock, which counts the time in which it was paused too.

use std::collections::BTreeMap;

use bytes::Bytes;
use nearcache_protocol::time::Time;
use nearcache_store::{Expiry, Handle, Version};

use super::Broken;
use crate::node::{Done, Node};
use crate::plan::{KEYS, key};
use crate::value::Value;

/// How late it may be noticed, in milliseconds.
const LATE_MS: u64 = 10;

/// When what was written expires.
#[derive(Debug, Default)]
pub(crate) struct Expiries {
    promised: BTreeMap<(Bytes, Version), Expiry>,
}

impl Expiries {
    /// A caller was told this.
    pub(crate) fn done(&mut self, done: &Done) {
        if let Done::Key {
            key,
            version,
            value: Some((expiry, _)),
        } = done
        {
            self.promised(key.clone(), *version, *expiry);
        }
    }

    /// The value of a key at this version is to expire then.
    pub(crate) fn promised(&mut self, key: Bytes, version: Version, expiry: Expiry) {
        self.promised.insert((key, version), expiry);
    }

    /// Somebody reads everything on the host.
    pub(crate) fn read(&self, now: Time, host: usize, node: &Node) -> Result<(), Broken> {
        if node.time(now) > node.core.read_bound().serve_until {
            return Ok(());
        }
        let held = (0..KEYS).filter_map(|number| node.store.peek(&key(number)));
        held.into_iter()
            .try_for_each(|entry| self.serves(now, host, node, &entry))
    }

    /// A reader on the host gets this as fresh.
    pub(crate) fn serves(
        &self,
        now: Time,
        host: usize,
        node: &Node,
        entry: &Handle<Value>,
    ) -> Result<(), Broken> {
        let name = (Bytes::copy_from_slice(entry.key()), entry.version());
        let promised = self.promised.get(&name).copied();
        let expiry = promised.unwrap_or_else(|| entry.expiry());
        let (now_ms, name) = (node.boot_ms(now), String::from_utf8_lossy(entry.key()));
        if entry.expiry() != expiry {
            let what = format!(
                "n{host} holds {:?} of {name} until {:?}, and it was to expire at {expiry:?}",
                entry.version(),
                entry.expiry()
            );
            return Err(("C5", what));
        }
        if !expiry.is_never() && now_ms > expiry.as_millis() + LATE_MS {
            let what = format!(
                "n{host} serves {:?} of {name} at {now_ms}, which expired at {expiry:?}",
                entry.version()
            );
            return Err(("C5", what));
        }
        Ok(())
    }
}
