//! What a journal of accepted writes looks like, byte for byte; docs/journal.md is the same for people.
//!
//! ```text
//! segment:  header, frames                            one file
//! header:   magic 8, number u64, salt u64, owner length u16, owner, CRC u32
//! frame:    magic u32, length u32, durable u64, CRC u32, records            one for each group commit
//! record:   length u32, kind u8, the rest by kind
//! ```
//!
//! Numbers are little-endian; a CRC is CRC-32C (Castagnoli; RFC 3720, section 12.1) of what it follows, or leads. That of a frame begins with the segment's
//! salt and the frame's own offset, so that no bytes inside a value can be taken for a frame.
//!
//! `durable` says up to where the file was known to be on the disk when the frame was written. That tells a torn tail, which is cut
//! off, from a record that went bad: bytes that a later frame calls durable were acknowledged, and are never cut off.

use bytes::{Buf as _, BufMut as _, Bytes};
use nearcache_store::{Expiry, Timestamp, Version};

use super::queue::WriteSeq;
use crate::payload::CodecTag;

/// Begins a segment; the last byte is the version of the format.
const SEGMENT_MAGIC: [u8; 8] = *b"NCJRNL\0\x01";
/// Begins a frame.
const FRAME_MAGIC: u32 = 0x4E43_4A46;
/// Header of a frame, in bytes.
pub const FRAME_HEADER_BYTES: usize = 20;
/// Longest owner, in bytes: names of cluster, cache and node.
pub const OWNER_BYTES_MAX: usize = 1_024;
/// Longest record, in bytes: the longest key and value that a cache can be set to take, and what surrounds them.
pub const RECORD_BYTES_MAX: usize = (64 << 20) + (64 << 10) + 64;

const KIND_WRITE: u8 = 1;
const KIND_SETTLED: u8 = 2;
const KIND_NEWEST: u8 = 3;

/// One accepted write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteRecord {
    /// Its number.
    pub seq: WriteSeq,
    /// What the sink is told.
    pub version: Version,
    /// The canonical bytes of the key.
    pub key: Bytes,
    /// The value, how to read it, and when it expires; nothing for a removal.
    pub value: Option<(CodecTag, Expiry, Bytes)>,
}

/// What a journal remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A write was accepted.
    Write(WriteRecord),
    /// These are in the system of record, or given up for good.
    Settled(Vec<WriteSeq>),
    /// No version that was recorded before this is later. A segment begins with it, so that it is known when all earlier ones are gone.
    Newest(Timestamp),
}

/// Why a segment cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// It does not begin like one, or its header is damaged.
    #[error("it does not begin as a journal of this format does")]
    Header,
    /// What was acknowledged cannot be read.
    #[error("the record at byte {offset} is damaged")]
    Damaged {
        /// Where, in bytes from the beginning of the file.
        offset: u64,
    },
}

/// Whose a segment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its place among the segments.
    pub number: u64,
    /// Drawn when it was made.
    pub salt: u64,
    /// Names of cluster, cache and node.
    pub owner: String,
}

/// A record and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Where it begins, in bytes from the beginning of the file.
    pub offset: u64,
    /// What it takes in the file, in bytes.
    pub bytes: u64,
    /// What it says.
    pub record: Record,
}

/// What a segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Whose it is.
    pub header: SegmentHeader,
    /// Its records, in their order.
    pub records: Vec<Located>,
    /// What follows this was torn when the machine stopped.
    pub valid_bytes: u64,
}

impl SegmentHeader {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.owner.len() + 30);
        out.put_slice(&SEGMENT_MAGIC);
        out.put_u64_le(self.number);
        out.put_u64_le(self.salt);
        out.put_u16_le(u16::try_from(self.owner.len()).unwrap_or(u16::MAX));
        out.put_slice(self.owner.as_bytes());
        let crc = crc32c(0, &out);
        out.put_u32_le(crc);
        out
    }

    fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut rest = bytes.strip_prefix(&SEGMENT_MAGIC)?;
        let (number, salt) = (rest.try_get_u64_le().ok()?, rest.try_get_u64_le().ok()?);
        let len = usize::from(rest.try_get_u16_le().ok()?);
        if len > OWNER_BYTES_MAX {
            return None;
        }
        let (owner, mut rest) = rest.split_at_checked(len)?;
        let crc = rest.try_get_u32_le().ok()?;
        let used = bytes.len() - rest.len();
        if crc32c(0, bytes.get(..used - 4)?) != crc {
            return None;
        }
        let owner = String::from_utf8(owner.to_vec()).ok()?;
        let header = Self {
            number,
            salt,
            owner,
        };
        Some((header, used))
    }
}

/// Appends a record, as a part of a frame.
pub fn encode_record(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.put_u32_le(0);
    match record {
        Record::Write(write) => {
            out.put_u8(KIND_WRITE);
            out.put_u64_le(write.seq.0);
            out.put_slice(&write.version.to_bytes());
            out.put_u32_le(u32::try_from(write.key.len()).unwrap_or(u32::MAX));
            out.put_slice(&write.key);
            if let Some((codec, expiry, value)) = &write.value {
                out.put_u16_le(codec.codec);
                out.put_u16_le(codec.schema);
                out.put_u64_le(expiry.as_millis());
                out.put_slice(value);
            }
        }
        Record::Settled(seqs) => {
            out.put_u8(KIND_SETTLED);
            for seq in seqs {
                out.put_u64_le(seq.0);
            }
        }
        Record::Newest(time) => {
            out.put_u8(KIND_NEWEST);
            out.put_u64_le(time.as_u64());
        }
    }
    let len = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&len.to_le_bytes());
    }
}

/// How a segment begins: its header, and up to where the versions of all earlier ones go.
#[must_use]
pub fn encode_beginning(header: &SegmentHeader, newest: Timestamp) -> Vec<u8> {
    let (mut segment, mut record) = (header.encode(), Vec::new());
    encode_record(&Record::Newest(newest), &mut record);
    let offset = segment.len() as u64;
    encode_frame(header.salt, offset, 0, &record, &mut segment);
    segment
}

/// Appends a frame of these records, to be written at `offset` of a segment of which the first `durable` bytes are known to be on the
/// disk.
pub fn encode_frame(salt: u64, offset: u64, durable: u64, records: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(records.len()).unwrap_or(u32::MAX);
    out.put_u32_le(FRAME_MAGIC);
    out.put_u32_le(len);
    out.put_u64_le(durable);
    out.put_u32_le(frame_crc(salt, offset, len, durable, records));
    out.put_slice(records);
}

fn frame_crc(salt: u64, offset: u64, len: u32, durable: u64, records: &[u8]) -> u32 {
    let crc = crc32c(0, &salt.to_le_bytes());
    let crc = crc32c(crc, &offset.to_le_bytes());
    let crc = crc32c(crc, &len.to_le_bytes());
    let crc = crc32c(crc, &durable.to_le_bytes());
    crc32c(crc, records)
}

/// Reads a segment. Only the last one of a journal may be torn at its end.
///
/// # Errors
/// [`SegmentError`], if what was acknowledged may be among what cannot be read.
pub fn read_segment(bytes: &[u8], is_last: bool) -> Result<Segment, SegmentError> {
    let (header, mut at) = SegmentHeader::decode(bytes).ok_or(SegmentError::Header)?;
    let mut records = Vec::new();
    while at < bytes.len() {
        let Some(frame) = Frame::read(bytes, at, header.salt) else {
            let damaged = SegmentError::Damaged { offset: at as u64 };
            let acknowledged = || {
                (at + 1..bytes.len())
                    .filter_map(|later| Frame::read(bytes, later, header.salt))
                    .any(|later| later.durable > at as u64)
            };
            if !is_last || acknowledged() {
                return Err(damaged);
            }
            break;
        };
        // Its CRC is right: whatever does not fit in it was written like that.
        read_records(frame.records, at + FRAME_HEADER_BYTES, &mut records)
            .ok_or(SegmentError::Damaged { offset: at as u64 })?;
        at += FRAME_HEADER_BYTES + frame.records.len();
    }
    Ok(Segment {
        header,
        records,
        valid_bytes: at as u64,
    })
}

struct Frame<'a> {
    durable: u64,
    records: &'a [u8],
}

impl<'a> Frame<'a> {
    fn read(bytes: &'a [u8], at: usize, salt: u64) -> Option<Self> {
        let mut rest = bytes.get(at..)?;
        if rest.try_get_u32_le().ok()? != FRAME_MAGIC {
            return None;
        }
        let (len, durable) = (rest.try_get_u32_le().ok()?, rest.try_get_u64_le().ok()?);
        let crc = rest.try_get_u32_le().ok()?;
        let records = rest.get(..usize::try_from(len).ok()?)?;
        (frame_crc(salt, at as u64, len, durable, records) == crc)
            .then_some(Self { durable, records })
    }
}

fn read_records(mut bytes: &[u8], mut offset: usize, out: &mut Vec<Located>) -> Option<()> {
    while !bytes.is_empty() {
        let len = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
        let (body, rest) = bytes.split_at_checked(len)?;
        out.push(Located {
            offset: offset as u64,
            bytes: (len + 4) as u64,
            record: read_record(body)?,
        });
        offset += len + 4;
        bytes = rest;
    }
    Some(())
}

fn read_record(mut body: &[u8]) -> Option<Record> {
    match body.try_get_u8().ok()? {
        KIND_WRITE => {
            let seq = WriteSeq(body.try_get_u64_le().ok()?);
            let (version, rest) = body.split_first_chunk::<16>()?;
            body = rest;
            let key_len = usize::try_from(body.try_get_u32_le().ok()?).ok()?;
            let (key, mut rest) = body.split_at_checked(key_len)?;
            let value = if rest.is_empty() {
                None
            } else {
                let codec = rest.try_get_u16_le().ok()?;
                let schema = rest.try_get_u16_le().ok()?;
                let expiry = Expiry::at_millis(rest.try_get_u64_le().ok()?);
                let tag = CodecTag { codec, schema };
                Some((tag, expiry, Bytes::copy_from_slice(rest)))
            };
            Some(Record::Write(WriteRecord {
                seq,
                version: Version::from_bytes(*version),
                key: Bytes::copy_from_slice(key),
                value,
            }))
        }
        KIND_SETTLED => {
            let mut seqs = Vec::with_capacity(body.len() / 8);
            while !body.is_empty() {
                seqs.push(WriteSeq(body.try_get_u64_le().ok()?));
            }
            Some(Record::Settled(seqs))
        }
        KIND_NEWEST => {
            let time = Timestamp::from_u64(body.try_get_u64_le().ok()?);
            body.is_empty().then_some(Record::Newest(time))
        }
        _ => None,
    }
}

/// CRC-32C of `bytes`, going on from that of what is before them. A byte at a time: slower than the crates that do it in hardware, faster than a
/// disk that is synced.
#[must_use]
pub fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let index = (crc ^ u32::from(*byte)) & 0xFF;
        let row = usize::try_from(index).unwrap_or(0);
        CRC_TABLE.get(row).copied().unwrap_or(0) ^ (crc >> 8)
    };
    !bytes.iter().fold(!before, step)
}

/// By byte: what it adds to a CRC-32C (polynomial 0x1EDC6F41, reflected).
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & 0u32.wrapping_sub(crc & 1));
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
#[path = "record_test.rs"]
mod tests;
