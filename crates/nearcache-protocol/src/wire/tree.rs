//! Messages of the tree.

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::WireError;
use super::reader::Reader;
use crate::ids::StreamId;
use crate::message::{Ask, MemberWord, Relayed, Runs, State};
use crate::payload::Payload;

/// An age that is not known.
const UNKNOWN: u64 = u64::MAX;

pub(super) fn put_relayed<V: Payload>(relayed: &[Relayed<V>], out: &mut BytesMut) {
    put_count(relayed.len(), out);
    for one in relayed.iter().take(usize::from(u16::MAX)) {
        out.put_u64(one.origin.as_u64());
        out.put_u64(one.until);
        super::put_batch(&one.batch, out);
    }
}

pub(super) fn relayed<V: Payload>(reader: &mut Reader<'_>) -> Result<Vec<Relayed<V>>, WireError> {
    /// Without updates.
    const BYTES_MIN: usize = 45;
    list(reader, BYTES_MIN, |reader| {
        Ok(Relayed {
            origin: reader.node()?,
            until: reader.u64()?,
            batch: super::batch(reader)?,
        })
    })
}

pub(super) fn put_wants(wants: &[(StreamId, u64, u64)], out: &mut BytesMut) {
    put_count(wants.len(), out);
    for (stream, after, through) in wants.iter().take(usize::from(u16::MAX)) {
        put_stream(*stream, out);
        out.put_u64(*after);
        out.put_u64(*through);
    }
}

pub(super) fn wants(reader: &mut Reader<'_>) -> Result<Vec<(StreamId, u64, u64)>, WireError> {
    list(reader, 32, |reader| {
        Ok((stream(reader)?, reader.u64()?, reader.u64()?))
    })
}

pub(super) fn put_ask(ask: &Ask, out: &mut BytesMut) {
    out.put_u64(ask.asked.as_nanos());
    out.put_u64(ask.epoch.as_u64());
    out.put_u8(u8::from(ask.ready));
    out.put_u8(u8::from(ask.by_tree));
    out.put_u64(ask.until);
    out.put_u64(ask.told.0);
    out.put_u64(ask.told.1);
}

pub(super) fn ask(reader: &mut Reader<'_>) -> Result<Ask, WireError> {
    Ok(Ask {
        asked: reader.time()?,
        epoch: reader.epoch()?,
        ready: reader.bool("ready")?,
        by_tree: reader.bool("by_tree")?,
        until: reader.u64()?,
        told: (reader.u64()?, reader.u64()?),
    })
}

pub(super) fn put_state(state: &State, out: &mut BytesMut) {
    out.put_u64(state.asked.as_nanos());
    out.put_u64(state.until);
    out.put_u64(state.epoch.as_u64());
    out.put_u64(state.latest);
    out.put_u64(state.physical_ms);
    out.put_u8(u8::from(state.ready));
    out.put_u64(state.told.0);
    out.put_u64(state.told.1);
    put_age(state.oldest, out);
    put_count(state.except.len(), out);
    for (node, age) in state.except.iter().take(usize::from(u16::MAX)) {
        out.put_u64(node.as_u64());
        put_age(*age, out);
    }
    put_count(state.streams.len(), out);
    for (stream, number) in state.streams.iter().take(usize::from(u16::MAX)) {
        put_stream(*stream, out);
        out.put_u64(*number);
    }
    out.put_u8(u8::from(state.whole));
    put_count(state.members.len(), out);
    for word in state.members.iter().take(usize::from(u16::MAX)) {
        out.put_u64(word.node.as_u64());
        out.put_u8(u8::from(word.alive));
        out.put_u64(word.epoch.as_u64());
        let (runs, latest) = match word.runs {
            Runs::No => (0, 0),
            Runs::Yes => (1, 0),
            Runs::Ended(latest) => (2, latest),
        };
        out.put_u8(runs);
        out.put_u64(latest);
    }
}

pub(super) fn state(reader: &mut Reader<'_>) -> Result<State, WireError> {
    Ok(State {
        asked: reader.time()?,
        until: reader.u64()?,
        epoch: reader.epoch()?,
        latest: reader.u64()?,
        physical_ms: reader.u64()?,
        ready: reader.bool("ready")?,
        told: (reader.u64()?, reader.u64()?),
        oldest: age(reader)?,
        except: list(reader, 16, |reader| Ok((reader.node()?, age(reader)?)))?,
        streams: list(reader, 24, |reader| Ok((stream(reader)?, reader.u64()?)))?,
        whole: reader.bool("whole")?,
        members: list(reader, 26, |reader| {
            Ok(MemberWord {
                node: reader.node()?,
                alive: reader.bool("alive")?,
                epoch: reader.epoch()?,
                runs: match (reader.u8()?, reader.u64()?) {
                    (0, _) => Runs::No,
                    (1, _) => Runs::Yes,
                    (2, latest) => Runs::Ended(latest),
                    _ => return Err(WireError::Invalid { field: "runs" }),
                },
            })
        })?,
    })
}

fn put_stream(stream: StreamId, out: &mut BytesMut) {
    out.put_u64(stream.origin.as_u64());
    out.put_u64(stream.epoch.as_u64());
}

fn stream(reader: &mut Reader<'_>) -> Result<StreamId, WireError> {
    Ok(StreamId {
        origin: reader.node()?,
        epoch: reader.epoch()?,
    })
}

fn put_age(age: Option<Duration>, out: &mut BytesMut) {
    let nanos = age.map(|age| u64::try_from(age.as_nanos()).unwrap_or(UNKNOWN - 1));
    out.put_u64(nanos.unwrap_or(UNKNOWN));
}

fn age(reader: &mut Reader<'_>) -> Result<Option<Duration>, WireError> {
    let nanos = reader.u64()?;
    Ok((nanos != UNKNOWN).then(|| Duration::from_nanos(nanos)))
}

fn put_count(count: usize, out: &mut BytesMut) {
    out.put_u16(u16::try_from(count).unwrap_or(u16::MAX));
}

fn list<T>(
    reader: &mut Reader<'_>,
    item_bytes_min: usize,
    mut item: impl FnMut(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let announced = reader.len16()?;
    let count = reader.count(announced, item_bytes_min)?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(item(reader)?);
    }
    Ok(items)
}
