//! Messages of a cache ↔ bytes: one frame per message, laid out byte by byte in `docs/wire-cache.md`.

mod anti_entropy;
mod entries;
mod fetching;
mod kind;
mod load;
mod modify;
mod probe;
mod reader;
#[cfg(test)]
mod tests;
mod tree;

use bytes::{BufMut, BytesMut};
use nearcache_store::Version;

use self::reader::Reader;
use crate::announce::{Agreement, Announcement, ModeKind, SplitPolicy};
use crate::frame::{self, Frame, FrameError, FrameLimit};
use crate::ids::{CacheId, StreamId};
use crate::message::{Batch, CacheMessage, Chunk, ProgressVector, TransferCursor};
use crate::parts::Parts;
use crate::payload::Payload;

/// Why a frame is no message of a cache. The connection must be closed; no state has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The body ends before the message does.
    #[error("message is cut short")]
    Truncated,
    /// The body goes on after the message.
    #[error("message is followed by {extra_bytes} bytes")]
    TrailingBytes {
        /// How many bytes follow.
        extra_bytes: usize,
    },
    /// No message of a cache has this kind.
    #[error("unknown kind {kind:#04x}")]
    UnknownKind {
        /// The kind in the frame's header.
        kind: u8,
    },
    /// A field holds a value that it cannot have.
    #[error("invalid {field}")]
    Invalid {
        /// The field.
        field: &'static str,
    },
}

/// Appends `message` of cache `cache` to `out` as one frame. Cost: one copy of what it carries.
///
/// # Errors
/// [`FrameError`] if the frame would be larger than `limit`; `out` is unchanged.
pub fn encode<V: Payload>(
    cache: CacheId,
    message: &CacheMessage<V>,
    limit: FrameLimit,
    out: &mut BytesMut,
) -> Result<(), FrameError> {
    let (kind, number) = kind::of(message);
    let mark = frame::begin(kind, number, out);
    out.put_u64(cache.as_u64());
    put_message(message, out);
    mark.finish(limit, out)
}

fn put_message<V: Payload>(message: &CacheMessage<V>, out: &mut BytesMut) {
    match message {
        CacheMessage::Announce(announcement) => put_announcement(announcement, out),
        CacheMessage::Heartbeat {
            asked,
            epoch,
            latest,
            ready,
            progress,
        } => {
            out.put_u64(asked.as_nanos());
            out.put_u64(epoch.as_u64());
            out.put_u64(*latest);
            out.put_u8(u8::from(*ready));
            put_progress(progress, out);
        }
        CacheMessage::Echo {
            asked,
            epoch,
            latest,
            physical_ms,
        } => {
            out.put_u64(asked.as_nanos());
            out.put_u64(epoch.as_u64());
            out.put_u64(*latest);
            out.put_u64(*physical_ms);
        }
        CacheMessage::Ack {
            epoch,
            after,
            applied,
        } => {
            out.put_u64(epoch.as_u64());
            out.put_u64(*after);
            out.put_u64(*applied);
        }
        CacheMessage::Leave {
            epoch,
            latest: number,
        }
        | CacheMessage::Subscribed {
            epoch,
            after: number,
        } => {
            out.put_u64(epoch.as_u64());
            out.put_u64(*number);
        }
        CacheMessage::Subscribe { epoch, after } => {
            out.put_u64(epoch.as_u64());
            put_optional(*after, out);
        }
        CacheMessage::Updates(batch) => {
            put_batch(batch, out);
        }
        CacheMessage::Find { key, .. } => {
            entries::put_len16(key, out);
            out.put_slice(key);
        }
        CacheMessage::Found { update, .. } => entries::put_optional_update(update.as_ref(), out),
        CacheMessage::Modify {
            wait_ms,
            known,
            key,
            op,
            ..
        } => {
            out.put_u32(*wait_ms);
            out.put_slice(&known.to_bytes());
            entries::put_len16(key, out);
            out.put_slice(key);
            modify::put_op(op, out);
        }
        CacheMessage::Modified { result, .. } => modify::put_result(result, out),
        CacheMessage::TransferRequest {
            cursor,
            credit_bytes,
            parts,
            ..
        } => {
            put_optional(cursor.map(|cursor| cursor.0), out);
            out.put_u32(*credit_bytes);
            out.put_u64(parts.as_u64());
        }
        CacheMessage::TransferStart {
            ready,
            progress,
            floors,
            ..
        } => {
            out.put_u8(u8::from(*ready));
            put_progress(progress, out);
            entries::put_updates(floors, out);
        }
        CacheMessage::TransferChunk { chunk, .. } => {
            out.put_u32(chunk.index);
            put_optional(chunk.next.map(|cursor| cursor.0), out);
            put_evicted(&chunk.evicted, out);
            entries::put_updates(&chunk.updates, out);
        }
        CacheMessage::TransferCredit { bytes, .. } => out.put_u32(*bytes),
        CacheMessage::TransferRefused { .. } => {}
        CacheMessage::Load { message, .. } => load::put(message, out),
        CacheMessage::Relayed(relayed) => tree::put_relayed(relayed, out),
        CacheMessage::Want(wants) => tree::put_wants(wants, out),
        CacheMessage::Ask(ask) => tree::put_ask(ask, out),
        CacheMessage::State(state) => tree::put_state(state, out),
        CacheMessage::AntiEntropy { message, .. } => anti_entropy::put(message, out),
        CacheMessage::Fetching { message, .. } => fetching::put(message, out),
        CacheMessage::Probe { message, .. } => probe::put(message, out),
    }
}

/// The cache that a frame is for.
///
/// # Errors
/// [`WireError::Truncated`].
pub fn cache_id(frame: &Frame) -> Result<CacheId, WireError> {
    let id = frame.body.first_chunk::<8>().ok_or(WireError::Truncated)?;
    Ok(CacheId::from_u64(u64::from_be_bytes(*id)))
}

/// Whether a frame of this kind is a question or an answer about one key ([`probe`](crate::probe)): of the messages of caches, what may come
/// over a connection that is no session.
#[must_use]
pub const fn is_probe(kind: frame::Kind) -> bool {
    kind.0 == kind::PROBE_ASK.0 || kind.0 == kind::PROBE_HELD.0
}

/// The message in a frame. Keys are slices of the frame's body; values are copied out of it once.
///
/// # Errors
/// [`WireError`]; nothing is allocated by a length that the body does not cover.
pub fn decode<V: Payload>(frame: &Frame) -> Result<CacheMessage<V>, WireError> {
    let mut reader = Reader::new(&frame.body);
    reader.u64()?;
    let message = message(frame, &mut reader)?;
    reader.finish()?;
    Ok(message)
}

fn message<V: Payload>(
    frame: &Frame,
    reader: &mut Reader<'_>,
) -> Result<CacheMessage<V>, WireError> {
    let request = crate::ids::RequestId(frame.number);
    Ok(match frame.kind {
        kind::ANNOUNCE => CacheMessage::Announce(announcement(reader)?),
        kind::HEARTBEAT => CacheMessage::Heartbeat {
            asked: reader.time()?,
            epoch: reader.epoch()?,
            latest: reader.u64()?,
            ready: reader.bool("ready")?,
            progress: progress(reader)?,
        },
        kind::ECHO => CacheMessage::Echo {
            asked: reader.time()?,
            epoch: reader.epoch()?,
            latest: reader.u64()?,
            physical_ms: reader.u64()?,
        },
        kind::LEAVE => CacheMessage::Leave {
            epoch: reader.epoch()?,
            latest: reader.u64()?,
        },
        kind::SUBSCRIBE => CacheMessage::Subscribe {
            epoch: reader.epoch()?,
            after: optional(reader)?,
        },
        kind::SUBSCRIBED => CacheMessage::Subscribed {
            epoch: reader.epoch()?,
            after: reader.u64()?,
        },
        kind::UPDATES => CacheMessage::Updates(batch(reader)?),
        kind::ACK => CacheMessage::Ack {
            epoch: reader.epoch()?,
            after: reader.u64()?,
            applied: reader.u64()?,
        },
        kind::FIND => {
            let len = reader.len16()?;
            CacheMessage::Find {
                request,
                key: reader.shared(len)?,
            }
        }
        kind::FOUND => CacheMessage::Found {
            request,
            update: entries::optional_update(reader)?,
        },
        kind::MODIFY => {
            let (wait_ms, known) = (reader.u32()?, reader.version()?);
            let len = reader.len16()?;
            let key = reader.shared(len)?;
            CacheMessage::Modify {
                request,
                wait_ms,
                known,
                key,
                op: modify::op(reader)?,
            }
        }
        kind::MODIFIED => CacheMessage::Modified {
            request,
            result: modify::result(reader)?,
        },
        kind::TRANSFER_REQUEST => CacheMessage::TransferRequest {
            request,
            cursor: optional(reader)?.map(TransferCursor),
            credit_bytes: reader.u32()?,
            parts: Parts::from_u64(reader.u64()?),
        },
        kind::TRANSFER_START => CacheMessage::TransferStart {
            request,
            ready: reader.bool("ready")?,
            progress: progress(reader)?,
            floors: entries::updates(reader)?,
        },
        kind::TRANSFER_CHUNK => CacheMessage::TransferChunk {
            request,
            chunk: Chunk {
                index: reader.u32()?,
                next: optional(reader)?.map(TransferCursor),
                evicted: evicted(reader)?,
                updates: entries::updates(reader)?,
            },
        },
        kind::TRANSFER_CREDIT => CacheMessage::TransferCredit {
            request,
            bytes: reader.u32()?,
        },
        kind::RELAYED => CacheMessage::Relayed(tree::relayed(reader)?),
        kind::WANT_PIECES => CacheMessage::Want(tree::wants(reader)?),
        kind::ASK => CacheMessage::Ask(tree::ask(reader)?),
        kind::STATE => CacheMessage::State(tree::state(reader)?),
        kind::TRANSFER_REFUSED => CacheMessage::TransferRefused { request },
        kind::FETCH
        | kind::FETCH_PIECE
        | kind::FETCH_REFUSED
        | kind::FETCH_STOP
        | kind::FETCH_KEEP
        | kind::FETCH_KEPT => CacheMessage::Fetching {
            request,
            message: fetching::read(frame.kind, reader)?,
        },
        kind @ (kind::PROBE_ASK | kind::PROBE_HELD) => CacheMessage::Probe {
            request,
            message: probe::read(kind, reader)?,
        },
        other => match load::read(other, reader)? {
            Some(message) => CacheMessage::Load { request, message },
            None => CacheMessage::AntiEntropy {
                request,
                message: anti_entropy::read(other, reader)?,
            },
        },
    })
}

fn put_batch<V: Payload>(batch: &Batch<V>, out: &mut BytesMut) {
    out.put_u64(batch.epoch.as_u64());
    out.put_u64(batch.after);
    out.put_u64(batch.through);
    out.put_u8(u8::from(batch.wants_ack));
    entries::put_updates(&batch.updates, out);
}

fn batch<V: Payload>(reader: &mut Reader<'_>) -> Result<Batch<V>, WireError> {
    let (epoch, after, through) = (reader.epoch()?, reader.u64()?, reader.u64()?);
    if after > through {
        return Err(WireError::Invalid {
            field: "numbers of a batch",
        });
    }
    let wants_ack = reader.bool("wants_ack")?;
    let updates = entries::updates(reader)?;
    if updates.len() as u64 > through - after {
        return Err(WireError::Invalid {
            field: "numbers of a batch",
        });
    }
    Ok(Batch {
        epoch,
        after,
        through,
        wants_ack,
        updates,
    })
}

fn put_announcement(announcement: &Announcement, out: &mut BytesMut) {
    let Announcement {
        agreement,
        epoch,
        latest,
        ready,
        physical_ms,
        value_bytes_max,
        lease_ms,
    } = announcement;
    out.put_u8(agreement.mode as u8);
    out.put_u16(agreement.codec);
    out.put_u64(agreement.time_to_live_ms);
    out.put_u64(agreement.tombstone_ttl_ms);
    out.put_u8(agreement.split as u8);
    out.put_u64(epoch.as_u64());
    out.put_u64(*latest);
    out.put_u8(u8::from(*ready));
    out.put_u64(*physical_ms);
    out.put_u32(*value_bytes_max);
    out.put_u64(*lease_ms);
}

fn announcement(reader: &mut Reader<'_>) -> Result<Announcement, WireError> {
    let mode = match reader.u8()? {
        0 => ModeKind::Local,
        1 => ModeKind::Replicated,
        2 => ModeKind::Invalidation,
        _ => return Err(WireError::Invalid { field: "mode" }),
    };
    Ok(Announcement {
        agreement: Agreement {
            mode,
            codec: reader.u16()?,
            time_to_live_ms: reader.u64()?,
            tombstone_ttl_ms: reader.u64()?,
            split: match reader.u8()? {
                0 => SplitPolicy::Serve,
                1 => SplitPolicy::ReadOnly,
                2 => SplitPolicy::Flush,
                _ => return Err(WireError::Invalid { field: "split" }),
            },
        },
        epoch: reader.epoch()?,
        latest: reader.u64()?,
        ready: reader.bool("ready")?,
        physical_ms: reader.u64()?,
        value_bytes_max: reader.u32()?,
        lease_ms: reader.u64()?,
    })
}

fn put_progress(progress: &ProgressVector, out: &mut BytesMut) {
    out.put_u16(u16::try_from(progress.0.len()).unwrap_or(u16::MAX));
    for (stream, number) in progress.0.iter().take(usize::from(u16::MAX)) {
        out.put_u64(stream.origin.as_u64());
        out.put_u64(stream.epoch.as_u64());
        out.put_u64(*number);
    }
}

fn progress(reader: &mut Reader<'_>) -> Result<ProgressVector, WireError> {
    let announced = reader.len16()?;
    let count = reader.count(announced, 24)?;
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let stream = StreamId {
            origin: reader.node()?,
            epoch: reader.epoch()?,
        };
        streams.push((stream, reader.u64()?));
    }
    Ok(ProgressVector(streams))
}

fn put_evicted(evicted: &[(u64, Version)], out: &mut BytesMut) {
    out.put_u32(u32::try_from(evicted.len()).unwrap_or(u32::MAX));
    for (key_hash, version) in evicted {
        out.put_u64(*key_hash);
        out.put_slice(&version.to_bytes());
    }
}

fn evicted(reader: &mut Reader<'_>) -> Result<Vec<(u64, Version)>, WireError> {
    let announced = reader.len32()?;
    let count = reader.count(announced, 24)?;
    let mut evicted = Vec::with_capacity(count);
    for _ in 0..count {
        evicted.push((reader.u64()?, reader.version()?));
    }
    Ok(evicted)
}

fn put_optional(number: Option<u64>, out: &mut BytesMut) {
    out.put_u8(u8::from(number.is_some()));
    if let Some(number) = number {
        out.put_u64(number);
    }
}

fn optional(reader: &mut Reader<'_>) -> Result<Option<u64>, WireError> {
    reader.bool("presence")?.then(|| reader.u64()).transpose()
}
