//! Looks at one key ↔ bytes.

use bytes::{BufMut, BytesMut};
use nearcache_store::Expiry;

use super::reader::Reader;
use super::{WireError, entries, kind};
use crate::frame::Kind;
use crate::probe::{Held, HeldEntry, Probe};

pub(super) fn put(message: &Probe, out: &mut BytesMut) {
    match message {
        Probe::Ask {
            key,
            at_least,
            wait_ms,
            keeps,
        } => {
            out.put_slice(&at_least.to_bytes());
            out.put_u32(*wait_ms);
            out.put_u8(u8::from(*keeps));
            entries::put_len16(key, out);
            out.put_slice(key);
        }
        Probe::Held(held) => {
            let Held {
                known,
                floor,
                entry,
                removed,
                leased,
                ready,
            } = held;
            out.put_slice(&known.to_bytes());
            out.put_slice(&floor.to_bytes());
            out.put_slice(&[removed, leased, ready].map(|flag| u8::from(*flag)));
            out.put_u8(u8::from(entry.is_some()));
            if let Some(entry) = entry {
                out.put_slice(&entry.version.to_bytes());
                out.put_u64(entry.expiry.as_millis());
                out.put_u32(entry.value_bytes);
                out.put_u8(u8::from(entry.value_hash.is_some()));
                if let Some(hash) = entry.value_hash {
                    out.put_u64(hash);
                }
            }
        }
    }
}

pub(super) fn read(kind: Kind, reader: &mut Reader<'_>) -> Result<Probe, WireError> {
    if kind == kind::PROBE_ASK {
        let (at_least, wait_ms) = (reader.version()?, reader.u32()?);
        let keeps = reader.bool("keeps")?;
        let len = reader.len16()?;
        return Ok(Probe::Ask {
            key: reader.shared(len)?,
            at_least,
            wait_ms,
            keeps,
        });
    }
    let (known, floor) = (reader.version()?, reader.version()?);
    let (removed, leased) = (reader.bool("removed")?, reader.bool("leased")?);
    let ready = reader.bool("ready")?;
    let has_entry = reader.bool("presence")?;
    Ok(Probe::Held(Held {
        known,
        floor,
        entry: has_entry.then(|| entry(reader)).transpose()?,
        removed,
        leased,
        ready,
    }))
}

fn entry(reader: &mut Reader<'_>) -> Result<HeldEntry, WireError> {
    let version = reader.version()?;
    let expiry = Expiry::at_millis(reader.u64()?);
    let value_bytes = reader.u32()?;
    let has_hash = reader.bool("value hash")?;
    Ok(HeldEntry {
        version,
        expiry,
        value_bytes,
        value_hash: has_hash.then(|| reader.u64()).transpose()?,
    })
}
