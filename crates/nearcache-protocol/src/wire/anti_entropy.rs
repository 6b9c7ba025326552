//! Messages of comparisons ↔ bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::reader::Reader;
use super::{WireError, entries, kind, progress, put_progress};
use crate::anti_entropy::AntiEntropy;
use crate::frame::Kind;
use crate::payload::Payload;

/// Most bits of a range: 32 are a prefix in full.
const DEPTH_MAX: u8 = 32;
/// Most bits that a part may have more than its range.
const PART_BITS_MAX: u8 = 8;

pub(super) fn put<V: Payload>(message: &AntiEntropy<V>, out: &mut BytesMut) {
    match message {
        AntiEntropy::Compare {
            batch,
            own_bits,
            depth,
            part_bits,
            floors_digest,
            ranges,
        } => {
            out.put_u32(*batch);
            out.put_slice(&[*own_bits, *depth, *part_bits]);
            out.put_u64(*floors_digest);
            put_count(ranges.len(), out);
            for (range, sums) in ranges {
                out.put_u32(*range);
                sums.iter().for_each(|sum| out.put_u64(*sum));
            }
        }
        AntiEntropy::Differs {
            batch,
            own_bits,
            ready,
            progress,
            floors_differ,
            floors,
            parts,
        } => {
            out.put_u32(*batch);
            out.put_slice(&[*own_bits, u8::from(*ready), u8::from(*floors_differ)]);
            put_progress(progress, out);
            entries::put_updates(floors, out);
            put_ranges(parts, out);
        }
        AntiEntropy::List {
            bits,
            leaves,
            floors,
        } => {
            out.put_u8(*bits);
            entries::put_updates(floors, out);
            put_ranges(leaves, out);
        }
        AntiEntropy::Listed {
            own,
            index,
            done,
            keys,
            floors,
        } => {
            out.put_slice(&[u8::from(*own), u8::from(*done)]);
            out.put_u32(*index);
            put_count(keys.len(), out);
            for (key, version) in keys {
                put_key(key, out);
                out.put_slice(&version.to_bytes());
            }
            entries::put_updates(floors, out);
        }
        AntiEntropy::Want {
            own,
            index,
            outdated,
            keys,
        } => {
            out.put_u8(u8::from(*own));
            out.put_u32(*index);
            entries::put_updates(outdated, out);
            put_count(keys.len(), out);
            keys.iter().for_each(|key| put_key(key, out));
        }
        AntiEntropy::Entries {
            own,
            part,
            done,
            updates,
        } => {
            out.put_slice(&[u8::from(*own), u8::from(*done)]);
            out.put_u32(*part);
            entries::put_updates(updates, out);
        }
    }
}

pub(super) fn read<V: Payload>(
    kind: Kind,
    reader: &mut Reader<'_>,
) -> Result<AntiEntropy<V>, WireError> {
    Ok(match kind {
        kind::COMPARE => compare(reader)?,
        kind::DIFFERS => {
            let (batch, own_bits) = (reader.u32()?, reader.u8()?);
            let (ready, floors_differ) = (reader.bool("ready")?, reader.bool("floors_differ")?);
            AntiEntropy::Differs {
                batch,
                own_bits,
                ready,
                progress: progress(reader)?,
                floors_differ,
                floors: entries::updates(reader)?,
                parts: ranges(reader)?,
            }
        }
        kind::LIST => AntiEntropy::List {
            bits: reader.u8()?,
            floors: entries::updates(reader)?,
            leaves: ranges(reader)?,
        },
        kind::LISTED => {
            let (own, done, index) = (reader.bool("own")?, reader.bool("done")?, reader.u32()?);
            let mut keys = Vec::with_capacity(count(reader, 18)?);
            while keys.len() < keys.capacity() {
                let key = key(reader)?;
                keys.push((key, reader.version()?));
            }
            AntiEntropy::Listed {
                own,
                index,
                done,
                keys,
                floors: entries::updates(reader)?,
            }
        }
        kind::WANT => {
            let (own, index) = (reader.bool("own")?, reader.u32()?);
            let outdated = entries::updates(reader)?;
            let count = count(reader, 2)?;
            AntiEntropy::Want {
                own,
                index,
                outdated,
                keys: (0..count).map(|_| key(reader)).collect::<Result<_, _>>()?,
            }
        }
        kind::ENTRIES => {
            let (own, done, part) = (reader.bool("own")?, reader.bool("done")?, reader.u32()?);
            AntiEntropy::Entries {
                own,
                part,
                done,
                updates: entries::updates(reader)?,
            }
        }
        unknown => return Err(WireError::UnknownKind { kind: unknown.0 }),
    })
}

fn compare<V>(reader: &mut Reader<'_>) -> Result<AntiEntropy<V>, WireError> {
    let batch = reader.u32()?;
    let (own_bits, depth, part_bits) = (reader.u8()?, reader.u8()?, reader.u8()?);
    let floors_digest = reader.u64()?;
    if part_bits > PART_BITS_MAX || depth.saturating_add(part_bits) > DEPTH_MAX {
        return Err(WireError::Invalid {
            field: "depth of a comparison",
        });
    }
    let parts = 1_usize << part_bits;
    let count = count(reader, 4 + 8 * parts)?;
    let mut ranges = Vec::with_capacity(count);
    for _ in 0..count {
        let range = reader.u32()?;
        let sums = (0..parts).map(|_| reader.u64());
        ranges.push((range, sums.collect::<Result<_, _>>()?));
    }
    Ok(AntiEntropy::Compare {
        batch,
        own_bits,
        depth,
        part_bits,
        floors_digest,
        ranges,
    })
}

fn put_count(count: usize, out: &mut BytesMut) {
    out.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
}

fn count(reader: &mut Reader<'_>, item_bytes_min: usize) -> Result<usize, WireError> {
    let announced = reader.len32()?;
    reader.count(announced, item_bytes_min)
}

fn put_ranges(ranges: &[u32], out: &mut BytesMut) {
    put_count(ranges.len(), out);
    ranges.iter().for_each(|range| out.put_u32(*range));
}

fn ranges(reader: &mut Reader<'_>) -> Result<Vec<u32>, WireError> {
    let count = count(reader, 4)?;
    (0..count).map(|_| reader.u32()).collect()
}

fn put_key(key: &[u8], out: &mut BytesMut) {
    entries::put_len16(key, out);
    out.put_slice(key);
}

fn key(reader: &mut Reader<'_>) -> Result<Bytes, WireError> {
    let len = reader.len16()?;
    reader.shared(len)
}
