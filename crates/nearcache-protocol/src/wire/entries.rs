//! Updates ↔ bytes: the compact layout that almost all traffic consists of.
//!
//! ```text
//! put     flags u8 | key u16 | value u32 | version 16 | codec u16 | schema u16 | [expiry u64] | [tags] | key | value
//! stub    as put, bit 4 of flags set, without the value: its length is that of the value to be fetched
//! remove  flags u8 | key u16 | version 16 | key
//! floor   flags u8 | bytes u16 | version 16 | bytes
//! withheld flags u8 | key u16 | version 16 | value u32 | key
//! tags    count u8 | count × ( length u16 | bytes )
//! flags   bits 0-1 what (0 put, 1 remove, 2 floor, 3 withheld); bit 2 expiry present; bit 3 tags present;
//!         bit 4 of a put: a stub; bits 4-5 of a floor its scope (0 all, 1 prefix, 2 tag, 3 tag prefix); the others are zero
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use nearcache_store::{Expiry, Scope, Tags, Version};

use super::WireError;
use super::reader::Reader;
use crate::payload::{CodecTag, Payload};
use crate::update::Update;

const WHAT: u8 = 0b0000_0011;
const PUT: u8 = 0;
const REMOVE: u8 = 1;
const FLOOR: u8 = 2;
const WITHHELD: u8 = 3;
const HAS_EXPIRY: u8 = 0b0000_0100;
const HAS_TAGS: u8 = 0b0000_1000;
const IS_STUB: u8 = 0b0001_0000;
const SCOPE: u8 = 0b0011_0000;
const SCOPE_SHIFT: u32 = 4;

/// The least bytes that an update takes.
const UPDATE_BYTES_MIN: usize = 19;

pub(super) fn put_updates<V: Payload>(updates: &[Update<V>], out: &mut BytesMut) {
    out.reserve(4 + updates.iter().map(Update::wire_bytes).sum::<usize>());
    out.put_u32(u32::try_from(updates.len()).unwrap_or(u32::MAX));
    for update in updates {
        put_update(update, out);
    }
}

pub(super) fn updates<V: Payload>(reader: &mut Reader<'_>) -> Result<Vec<Update<V>>, WireError> {
    let announced = reader.len32()?;
    let count = reader.count(announced, UPDATE_BYTES_MIN)?;
    let mut updates = Vec::with_capacity(count);
    for _ in 0..count {
        updates.push(update(reader)?);
    }
    Ok(updates)
}

/// Presence, then the update if there is one.
pub(super) fn put_optional_update<V: Payload>(update: Option<&Update<V>>, out: &mut BytesMut) {
    out.put_u8(u8::from(update.is_some()));
    if let Some(update) = update {
        put_update(update, out);
    }
}

pub(super) fn optional_update<V: Payload>(
    reader: &mut Reader<'_>,
) -> Result<Option<Update<V>>, WireError> {
    reader.bool("found")?.then(|| update(reader)).transpose()
}

pub(super) fn put_update<V: Payload>(update: &Update<V>, out: &mut BytesMut) {
    match update {
        Update::Entry(entry) => {
            let value = match entry.stub_bytes() {
                Some(value_bytes) => Value::Elsewhere(value_bytes),
                None => Value::Here(entry.value().bytes()),
            };
            let codec = entry.value().codec();
            let fixed = (entry.version(), entry.expiry(), codec);
            put_entry(entry.key(), fixed, value, entry.tags(), out);
        }
        Update::Put {
            key,
            version,
            value,
            expiry,
            tags,
        } => {
            let fixed = (*version, *expiry, value.codec());
            put_entry(key, fixed, Value::Here(value.bytes()), tags, out);
        }
        Update::Stub {
            key,
            version,
            codec,
            value_bytes,
            expiry,
            tags,
        } => {
            let fixed = (*version, *expiry, *codec);
            put_entry(key, fixed, Value::Elsewhere(*value_bytes), tags, out);
        }
        Update::Remove { key, version } => {
            out.put_u8(REMOVE);
            put_len16(key, out);
            out.put_slice(&version.to_bytes());
            out.put_slice(key);
        }
        Update::Withheld {
            key,
            version,
            value_bytes,
        } => {
            out.put_u8(WITHHELD);
            put_len16(key, out);
            out.put_slice(&version.to_bytes());
            out.put_u32(*value_bytes);
            out.put_slice(key);
        }
        Update::Floor { scope, version } => {
            let (number, bytes): (u8, &[u8]) = match scope {
                Scope::All => (0, &[]),
                Scope::Prefix(bytes) => (1, bytes),
                Scope::Tag(bytes) => (2, bytes),
                Scope::TagPrefix(bytes) => (3, bytes),
            };
            out.put_u8(FLOOR | (number << SCOPE_SHIFT));
            put_len16(bytes, out);
            out.put_slice(&version.to_bytes());
            out.put_slice(bytes);
        }
    }
}

/// The value of an entry, or its length.
#[derive(Clone, Copy)]
enum Value<'a> {
    Here(&'a [u8]),
    Elsewhere(u32),
}

fn put_entry(
    key: &[u8],
    (version, expiry, codec): (Version, Expiry, CodecTag),
    value: Value<'_>,
    tags: &Tags,
    out: &mut BytesMut,
) {
    let (mut flags, bytes, len) = match value {
        Value::Here(bytes) => (PUT, bytes, u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        Value::Elsewhere(len) => (PUT | IS_STUB, &[][..], len),
    };
    if !expiry.is_never() {
        flags |= HAS_EXPIRY;
    }
    if !tags.is_empty() {
        flags |= HAS_TAGS;
    }
    // The fixed part is put together first: one bounds check instead of six.
    let mut fixed = [0; 27];
    fixed[0] = flags;
    fixed[1..3].copy_from_slice(&len16(key).to_be_bytes());
    fixed[3..7].copy_from_slice(&len.to_be_bytes());
    fixed[7..23].copy_from_slice(&version.to_bytes());
    fixed[23..25].copy_from_slice(&codec.codec.to_be_bytes());
    fixed[25..27].copy_from_slice(&codec.schema.to_be_bytes());
    out.put_slice(&fixed);
    if !expiry.is_never() {
        out.put_u64(expiry.as_millis());
    }
    if !tags.is_empty() {
        put_tags(tags, out);
    }
    out.put_slice(key);
    out.put_slice(bytes);
}

pub(super) fn put_tags(tags: &Tags, out: &mut BytesMut) {
    out.put_u8(u8::try_from(tags.len()).unwrap_or(u8::MAX));
    for tag in tags.iter() {
        put_len16(tag, out);
        out.put_slice(tag);
    }
}

pub(super) fn tags(reader: &mut Reader<'_>) -> Result<Tags, WireError> {
    let announced = usize::from(reader.u8()?);
    let count = reader.count(announced, 2)?;
    let mut tags = Vec::with_capacity(count);
    for _ in 0..count {
        let len = reader.len16()?;
        tags.push(reader.slice(len)?);
    }
    Tags::new(tags).map_err(|_| WireError::Invalid { field: "tags" })
}

pub(super) fn update<V: Payload>(reader: &mut Reader<'_>) -> Result<Update<V>, WireError> {
    let flags = reader.u8()?;
    match flags & WHAT {
        PUT if flags & !(WHAT | HAS_EXPIRY | HAS_TAGS | IS_STUB) == 0 => entry(flags, reader),
        REMOVE if flags == REMOVE => {
            let len = reader.len16()?;
            let version = reader.version()?;
            Ok(Update::Remove {
                key: reader.shared(len)?,
                version,
            })
        }
        WITHHELD if flags == WITHHELD => {
            let len = reader.len16()?;
            let (version, value_bytes) = (reader.version()?, reader.u32()?);
            Ok(Update::Withheld {
                key: reader.shared(len)?,
                version,
                value_bytes,
            })
        }
        FLOOR if flags & !(WHAT | SCOPE) == 0 => {
            let len = reader.len16()?;
            let version = reader.version()?;
            let bytes: Box<[u8]> = reader.slice(len)?.into();
            let scope = match (flags & SCOPE) >> SCOPE_SHIFT {
                0 if bytes.is_empty() => Scope::All,
                1 => Scope::Prefix(bytes),
                2 => Scope::Tag(bytes),
                3 => Scope::TagPrefix(bytes),
                _ => return Err(WireError::Invalid { field: "scope" }),
            };
            Ok(Update::Floor { scope, version })
        }
        _ => Err(WireError::Invalid {
            field: "flags of an update",
        }),
    }
}

fn entry<V: Payload>(flags: u8, reader: &mut Reader<'_>) -> Result<Update<V>, WireError> {
    let key_len = reader.len16()?;
    let value_bytes = reader.u32()?;
    let version = reader.version()?;
    let codec = CodecTag {
        codec: reader.u16()?,
        schema: reader.u16()?,
    };
    let expiry = match flags & HAS_EXPIRY {
        0 => Expiry::NEVER,
        _ => Expiry::at_millis(reader.u64()?),
    };
    let tags = match flags & HAS_TAGS {
        0 => Tags::NONE,
        _ => tags(reader)?,
    };
    let key: Bytes = reader.shared(key_len)?;
    if flags & IS_STUB != 0 {
        return Ok(Update::Stub {
            key,
            version,
            codec,
            value_bytes,
            expiry,
            tags,
        });
    }
    let value_len = usize::try_from(value_bytes).map_err(|_| WireError::Truncated)?;
    let value = V::from_wire(codec, reader.slice(value_len)?);
    Ok(Update::Put {
        key,
        version,
        value,
        expiry,
        tags,
    })
}

/// The store takes no longer keys, tags and prefixes than the wire (`u16`), so nothing is ever cut here.
fn len16(bytes: &[u8]) -> u16 {
    debug_assert!(
        u16::try_from(bytes.len()).is_ok(),
        "the store's limits are the wire's"
    );
    u16::try_from(bytes.len()).unwrap_or(u16::MAX)
}

pub(super) fn put_len16(bytes: &[u8], out: &mut BytesMut) {
    out.put_u16(len16(bytes));
}
