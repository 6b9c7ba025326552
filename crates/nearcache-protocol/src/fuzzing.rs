//! Entry points of the fuzz targets: arbitrary bytes where a peer's bytes go.
//!
//! `fuzz/` calls them under libFuzzer; a test replays the saved corpora on every run. Each must neither
//! panic nor allocate much more than its input, and what it accepts must survive being written again.

#![doc(hidden)]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use nearcache_store::{
    Change, CoarseClock, Expiry, NodeId, Store, StoreConfig, Tags, Timestamp, Version, Weigh,
};

use crate::announce::{Announcement, ModeKind};
use crate::clock::Hlc;
use crate::config::ReplicationConfig;
use crate::control::{self, Hello, Leave, MemberList, Ready, Refused, Welcome};
use crate::core::CacheCore;
use crate::frame::{self, Frame, FrameDecoder, FrameLimit, Kind};
use crate::handshake::{Accepted, Handshake, Known, Local, Registry, SessionToken, accept};
use crate::identity::{Identity, Zone};
use crate::ids::{Epoch, WaiterId};
use crate::lane::Lane;
use crate::machine::Machine as _;
use crate::membership::{Membership, MembershipConfig, MembershipMessage};
use crate::message::CacheMessage;
use crate::mode::{Output, Waiter};
use crate::payload::{CodecTag, Payload};
use crate::rendezvous::PlacementKey;
use crate::time::Time;
use crate::wire;
use crate::write::ledger::Replay;
use crate::write::record::{SegmentHeader, WriteRecord, encode_frame, encode_record, read_segment};

/// The bytes of a connection: cut into frames, each written again as it was.
pub fn peer_frame(data: &[u8]) {
    let (cut, data) = data
        .split_first()
        .map_or((1, data), |(cut, data)| (*cut, data));
    let mut decoder = FrameDecoder::new(FrameLimit::HANDSHAKE);
    let mut written = BytesMut::new();
    for piece in data.chunks(usize::from(cut).max(1)) {
        decoder.extend(piece);
        while let Ok(Some(frame)) = decoder.next_frame() {
            let limit = FrameLimit::HANDSHAKE;
            let result = frame::encode(frame.kind, frame.number, &frame.body, limit, &mut written);
            assert_eq!(result, Ok(()), "a frame within the limit can be written");
        }
    }
    assert!(
        data.starts_with(&written),
        "frames are written as they were read"
    );
}

/// The first frames of a connection, on both sides.
pub fn handshake(data: &[u8]) {
    let mut decoder = FrameDecoder::new(FrameLimit::HANDSHAKE);
    decoder.extend(data);
    let now = Timestamp::from_parts(1_800_000_000_000, 0);
    while let Ok(Some(frame)) = decoder.next_frame() {
        let _ = accept(&local(), &Nobody, now, &frame);
        if let Some(accepted) = welcomed(now) {
            let _ = accepted.complete(now, &frame);
        }
        let (dialer, _) = Handshake::dial(local(), Lane::Control, SessionToken(1), now);
        let _ = dialer.complete(&Nobody, now, &frame);
    }
}

/// Control messages and membership packets, by the kind in the first byte.
pub fn control(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let frame = Frame {
        kind: Kind(*kind),
        number: 0,
        body: Bytes::copy_from_slice(body),
    };
    match frame.kind {
        Kind::HELLO => survives::<Hello>(body),
        Kind::WELCOME => survives::<Welcome>(body),
        Kind::REFUSED => survives::<Refused>(body),
        Kind::READY => survives::<Ready>(body),
        Kind::MEMBER_LIST => survives::<MemberList>(body),
        Kind::LEAVE => survives::<Leave>(body),
        _ => {}
    }
    let Ok(Some(message)) = MembershipMessage::decode(frame.kind, &frame.body) else {
        return;
    };
    let config = MembershipConfig::default();
    let Ok(mut node) = Membership::new(config, identity(1), 1, Time::ZERO) else {
        return;
    };
    let mut out = Vec::new();
    node.connected(Time::ZERO, &identity(2), &mut out);
    let _ = node.handle(Time::ZERO, NodeId::from_u64(2), &message, &mut out);
    node.tick(Time::from_millis(600), &mut out);
}

/// The message of a cache, by the kind in the first byte: read, written, read again, and handed to a machine.
pub fn entries_batch(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let frame = Frame {
        kind: Kind(*kind),
        // What the machine below asks for first is a transfer, then the value of a stub.
        number: 1 + u64::from(*kind >> 4 == 7),
        body: Bytes::copy_from_slice(body),
    };
    let (Ok(cache), Ok(message)) = (wire::cache_id(&frame), wire::decode::<Blob>(&frame)) else {
        return;
    };
    let mut written = BytesMut::new();
    if wire::encode(cache, &message, FrameLimit::DEFAULT, &mut written).is_ok() {
        let body = written.split_off(frame::HEADER_BYTES).freeze();
        let again = wire::decode::<Blob>(&Frame {
            body,
            ..frame.clone()
        });
        assert!(again.is_ok(), "a message is read as it was written");
    }
    hand_over(message, ModeKind::Replicated);
    if let Ok(message) = wire::decode::<Blob>(&frame) {
        hand_over(message, ModeKind::Invalidation);
    }
}

/// A segment of a journal: its bytes, or with a first byte of 1 what its one frame holds, so that records are reached.
pub fn journal(data: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let mut segment = data.to_vec();
    if *how == 1 {
        let header = SegmentHeader {
            number: 1,
            salt: 7,
            owner: "demo/cache/a".to_owned(),
        };
        segment = header.encode();
        let at = segment.len() as u64;
        encode_frame(header.salt, at, at, data, &mut segment);
    }
    let Ok(read) = read_segment(&segment, true) else {
        return;
    };
    for located in &read.records {
        let mut again = Vec::new();
        encode_record(&located.record, &mut again);
        let at = usize::try_from(located.offset).unwrap_or(usize::MAX);
        let bytes = segment.get(at..).unwrap_or_default();
        assert!(
            bytes.starts_with(&again),
            "a record is written as it was read"
        );
    }
    let mut replay = Replay::default();
    replay.read(1, read.valid_bytes, read.records);
    let read = replay.finish();
    assert!(
        read.ledger.len() <= read.open.len(),
        "what is needed is to be written"
    );
    let is_known =
        |write: &WriteRecord| write.seq <= read.last && write.version.time <= read.newest;
    assert!(read.open.iter().all(is_known));
}

/// Gives a peer's message to the machine of a cache.
fn hand_over(message: CacheMessage<Blob>, mode: ModeKind) {
    let Ok(store) = Store::new(StoreConfig::new(1 << 20), CoarseClock::new(1)) else {
        return;
    };
    let mut config = ReplicationConfig::default();
    config.agreement.mode = mode;
    let clock = Hlc::new(
        NodeId::from_u64(1),
        1_800_000_000_000,
        Hlc::DEFAULT_MAX_DRIFT,
    );
    let mut core = CacheCore::new(
        Time::ZERO,
        Arc::new(store),
        Arc::new(clock),
        Epoch::from_u64(1),
        PlacementKey::of_cluster("demo"),
        config.clone(),
    );
    let (peer, mut out) = (NodeId::from_u64(2), Vec::new());
    core.peer_up(Time::ZERO, peer, Epoch::from_u64(1), &mut out);
    let announcement = Announcement {
        agreement: config.agreement,
        epoch: Epoch::from_u64(1),
        latest: 0,
        ready: true,
        physical_ms: 1_800_000_000_000,
        value_bytes_max: 1 << 20,
        lease_ms: 3_000,
    };
    core.handle(
        Time::ZERO,
        peer,
        CacheMessage::Announce(announcement),
        &mut out,
    );
    want_long_value(&mut core, &mut out);
    core.handle(Time::ZERO, peer, message, &mut out);
    for lane in Lane::ALL {
        let _ = core.poll_transmit(Time::ZERO, peer, lane, 1 << 16, &mut out);
    }
    core.tick(Time::from_millis(600), &mut out);
}

/// Somebody reads the key `k`, whose value of 8 bytes has to be fetched.
fn want_long_value(core: &mut CacheCore<Blob>, out: &mut Vec<Output<Blob>>) {
    let key = Bytes::from_static(b"k");
    let version = Version::new(
        Timestamp::from_parts(1_800_000_000_000, 0),
        NodeId::from_u64(2),
    );
    let stub = Change::Stub {
        placeholder: Blob::from_wire(CodecTag::default(), &[]),
        value_bytes: 8,
        expiry: Expiry::NEVER,
        tags: Tags::NONE,
    };
    if core.store().merge(&key, version, stub).is_ok() {
        let waiter = Waiter {
            id: WaiterId(1),
            deadline: Time::from_millis(2_000),
        };
        core.find(Time::ZERO, key, waiter, out);
    }
}

/// A value that is plain bytes.
#[derive(Clone)]
struct Blob(CodecTag, Bytes);

impl Weigh for Blob {
    fn weight(&self) -> usize {
        self.1.len()
    }
}

impl Payload for Blob {
    fn bytes(&self) -> &[u8] {
        &self.1
    }

    fn codec(&self) -> CodecTag {
        self.0
    }

    fn from_wire(codec: CodecTag, bytes: &[u8]) -> Self {
        Self(codec, Bytes::copy_from_slice(bytes))
    }
}

fn survives<M: prost::Message + Default + PartialEq>(body: &[u8]) {
    if let Ok(message) = control::decode::<M>(body) {
        let again = control::decode::<M>(&control::encode(&message));
        assert!(again == Ok(message), "a message is read as it was written");
    }
}

fn identity(node: u64) -> Identity {
    let address = SocketAddr::from(([127, 0, 0, 1], 7000));
    Identity::new(
        NodeId::from_u64(node),
        Epoch::from_u64(1),
        address,
        Zone::default(),
    )
}

fn local() -> Local {
    Local {
        mesh_max: 1,
        ..Local::new("demo", "a", identity(1))
    }
}

/// A connection of a node that was sent its welcome.
fn welcomed(now: Timestamp) -> Option<Accepted> {
    let dialer = Local::new("demo", "b", identity(2));
    let (_, hello) = Handshake::dial(dialer, Lane::Control, SessionToken(1), now);
    let mut decoder = FrameDecoder::new(FrameLimit::HANDSHAKE);
    decoder.extend(&hello);
    let hello = decoder.next_frame().ok().flatten()?;
    let accepted = accept(&local(), &Nobody, now, &hello);
    assert!(accepted.is_ok(), "such a node is welcome");
    accepted.ok()
}

struct Nobody;

impl Registry for Nobody {
    fn members_with(&self, _: NodeId) -> usize {
        2
    }

    fn known(&self, _: NodeId) -> Option<Known> {
        None
    }

    fn full_for(&self, _: NodeId) -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn every_saved_batch_of_entries_is_survived() -> std::io::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/entries_batch");
        let mut replayed = 0;
        for file in std::fs::read_dir(folder)? {
            super::entries_batch(&std::fs::read(file?.path())?);
            replayed += 1;
        }
        assert!(replayed > 0, "the seeds are in the repository");
        Ok(())
    }
}
