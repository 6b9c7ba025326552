//! Golden bytes, round trips, and bytes that nobody meant.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nearcache_store::{Expiry, NodeId, Scope, Tags, Timestamp, Version};
use proptest::prelude::*;

use super::{WireError, cache_id, decode, encode};
use crate::announce::{Agreement, Announcement, ModeKind, SplitPolicy};
use crate::anti_entropy::AntiEntropy;
use crate::fetching::{Fetching, Piece};
use crate::frame::{Frame, FrameLimit, Kind};
use crate::ids::{CacheId, Epoch, RequestId, StreamId};
use crate::load::lease::{Answer, LoadMessage};
use crate::message::{
    Ask, Batch, CacheMessage, Chunk, ModifiedAt, ProgressVector, Relayed, State, TransferCursor,
};
use crate::modify::{Condition, ExpireCondition, ModifyError, ModifyOp, NewExpiry};
use crate::parts::Parts;
use crate::payload::CodecTag;
use crate::probe::{Held, HeldEntry, Probe};
use crate::testing::{Text, entry, through_wire};
use crate::time::Time;
use crate::update::Update;

type Message = CacheMessage<Text>;

fn bytes_of(message: &Message) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(
        CacheId::from_u64(0x0102_0304_0506_0708),
        message,
        FrameLimit::DEFAULT,
        &mut out,
    )
    .unwrap();
    out.to_vec()
}

fn version() -> Version {
    Version::new(
        Timestamp::from_parts(0x0011_2233_4455, 0x6677),
        NodeId::from_u64(0x99),
    )
}

fn updates() -> Vec<Update<Text>> {
    vec![
        Update::Put {
            key: Bytes::from_static(b"k"),
            version: version(),
            value: Text(
                CodecTag {
                    codec: 1,
                    schema: 2,
                },
                b"v1".to_vec(),
            ),
            expiry: Expiry::at_millis(3),
            tags: Tags::new(["t"]).unwrap(),
        },
        Update::Remove {
            key: Bytes::from_static(b"gone"),
            version: version(),
        },
        Update::Floor {
            scope: Scope::Tag(b"t".as_slice().into()),
            version: version(),
        },
    ]
}

fn held() -> Message {
    Message::Probe {
        request: RequestId(2),
        message: Probe::Held(Held {
            known: version(),
            entry: Some(HeldEntry {
                version: version(),
                expiry: Expiry::at_millis(3),
                value_bytes: 4,
                value_hash: 5,
            }),
            removed: false,
            leased: true,
            ready: true,
        }),
    }
}

fn probe_ask() -> Message {
    Message::Probe {
        request: RequestId(1),
        message: Probe::Ask {
            key: Bytes::from_static(b"k"),
            at_least: version(),
            wait_ms: 60_000,
            keeps: true,
        },
    }
}

#[test]
fn golden_probe() {
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 42, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 1,                 // frame header: length, version, kind, request
        1, 2, 3, 4, 5, 6, 7, 8,                                       // cache
        0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99, // at least this version
        0, 0, 0xea, 0x60,                                             // wait for 60 s
        1,                                                            // keep a copy
        0, 1, b'k',                                                   // key
    ];
    assert_eq!(bytes_of(&probe_ask()), expected);
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 74, 1, 0x81, 0, 0, 0, 0, 0, 0, 0, 2,                 // frame header: length, version, kind, request
        1, 2, 3, 4, 5, 6, 7, 8,                                       // cache
        0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99, // known
        0, 1, 1,                                                      // not removed, leased, ready
        1,                                                            // there is an entry:
        0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99, // version
        0, 0, 0, 0, 0, 0, 0, 3,                                       // expires
        0, 0, 0, 4,                                                   // bytes of its value
        0, 0, 0, 0, 0, 0, 0, 5,                                       // hash of its value
    ];
    assert_eq!(bytes_of(&held()), expected);
}

#[test]
fn golden_batch_of_updates() {
    let message = CacheMessage::Updates(Batch {
        epoch: Epoch::from_u64(5),
        after: 6,
        through: 9,
        wants_ack: true,
        updates: updates(),
    });
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 132, 1, 0x40, 0, 0, 0, 0, 0, 0, 0, 9,                // frame header: length, version, kind, through
        1, 2, 3, 4, 5, 6, 7, 8,                                       // cache
        0, 0, 0, 0, 0, 0, 0, 5,                                       // epoch
        0, 0, 0, 0, 0, 0, 0, 6,                                       // after
        0, 0, 0, 0, 0, 0, 0, 9,                                       // through
        1,                                                            // wants_ack
        0, 0, 0, 3,                                                   // number of updates
        0b1100, 0, 1, 0, 0, 0, 2,                                     // put, expiry, tags; key 1, value 2 bytes
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,               // version: milliseconds, counter
        0, 0, 0, 0, 0, 0, 0, 0x99,                                    // version: origin
        0, 1, 0, 2,                                                   // codec, schema
        0, 0, 0, 0, 0, 0, 0, 3,                                       // expiry
        1, 0, 1, b't',                                                // one tag
        b'k', b'v', b'1',
        0b01, 0, 4,                                                   // remove, key 4 bytes
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99,
        b'g', b'o', b'n', b'e',
        0b10_0010, 0, 1,                                              // floor of a tag, 1 byte
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99,
        b't',
    ];
    assert_eq!(bytes_of(&message), expected);
}

#[test]
fn golden_heartbeat() {
    let stream = StreamId {
        origin: NodeId::from_u64(1),
        epoch: Epoch::from_u64(2),
    };
    let message = Message::Heartbeat {
        asked: Time::from_nanos(3),
        epoch: Epoch::from_u64(2),
        latest: 4,
        ready: true,
        progress: ProgressVector(vec![(stream, 4)]),
    };
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 69, 1, 0x45, 0, 0, 0, 0, 0, 0, 0, 0,
        1, 2, 3, 4, 5, 6, 7, 8,
        0, 0, 0, 0, 0, 0, 0, 3,
        0, 0, 0, 0, 0, 0, 0, 2,
        0, 0, 0, 0, 0, 0, 0, 4,
        1,
        0, 1,
        0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4,
    ];
    assert_eq!(bytes_of(&message), expected);
}

fn state() -> State {
    let stream = StreamId {
        origin: NodeId::from_u64(1),
        epoch: Epoch::from_u64(2),
    };
    State {
        asked: Time::from_nanos(3),
        until: 4,
        epoch: Epoch::from_u64(5),
        latest: 6,
        physical_ms: 7,
        ready: true,
        told: (8, 9),
        oldest: Some(Duration::from_nanos(10)),
        except: vec![(NodeId::from_u64(11), None)],
        streams: vec![(stream, 12)],
        members: vec![(NodeId::from_u64(13), true)],
    }
}

#[test]
fn golden_state_of_a_neighbour() {
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 138, 1, 0x93, 0, 0, 0, 0, 0, 0, 0, 0,
        1, 2, 3, 4, 5, 6, 7, 8,
        0, 0, 0, 0, 0, 0, 0, 3,                                       // asked
        0, 0, 0, 0, 0, 0, 0, 4,                                       // until
        0, 0, 0, 0, 0, 0, 0, 5,                                       // epoch
        0, 0, 0, 0, 0, 0, 0, 6,                                       // latest
        0, 0, 0, 0, 0, 0, 0, 7,                                       // physical_ms
        1,                                                            // ready
        0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9,               // told
        0, 0, 0, 0, 0, 0, 0, 10,                                      // oldest
        0, 1, 0, 0, 0, 0, 0, 0, 0, 11,                                // exceptions: node,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,               // age: unknown
        0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2,         // streams: origin, epoch,
        0, 0, 0, 0, 0, 0, 0, 12,                                      // number
        0, 1, 0, 0, 0, 0, 0, 0, 0, 13, 1,                             // members: node, alive
    ];
    assert_eq!(bytes_of(&Message::State(state())), expected);
}

#[test]
fn golden_piece_of_a_stream_on_its_way_through_the_tree() {
    let message = Message::Relayed(vec![Relayed {
        origin: NodeId::from_u64(3),
        until: 4,
        batch: Batch {
            epoch: Epoch::from_u64(5),
            after: 6,
            through: 7,
            wants_ack: false,
            updates: Vec::new(),
        },
    }]);
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 65, 1, 0x90, 0, 0, 0, 0, 0, 0, 0, 0,
        1, 2, 3, 4, 5, 6, 7, 8,
        0, 1,                                                         // one piece
        0, 0, 0, 0, 0, 0, 0, 3,                                       // origin
        0, 0, 0, 0, 0, 0, 0, 4,                                       // until
        0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0,
    ];
    assert_eq!(bytes_of(&message), expected);
}

fn anti_entropy(message: AntiEntropy<Text>) -> Message {
    let request = RequestId(2);
    Message::AntiEntropy { request, message }
}

#[test]
fn golden_announcement() {
    let message = Message::Announce(Announcement {
        agreement: Agreement {
            mode: ModeKind::Replicated,
            codec: 1,
            time_to_live_ms: 2,
            tombstone_ttl_ms: 3,
            split: SplitPolicy::Flush,
        },
        epoch: Epoch::from_u64(4),
        latest: 5,
        ready: true,
        physical_ms: 6,
        value_bytes_max: 7,
        lease_ms: 8,
    });
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 75, 1, 0x44, 0, 0, 0, 0, 0, 0, 0, 0,                 // frame header: length, version, kind, request
        1, 2, 3, 4, 5, 6, 7, 8,                                       // cache
        1, 0, 1,                                                      // mode, codec
        0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3,               // time_to_live_ms, tombstone_ttl_ms
        2,                                                            // split
        0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5,               // epoch, latest
        1,                                                            // ready
        0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8,   // physical_ms, value_bytes_max, lease_ms
    ];
    assert_eq!(bytes_of(&message), expected);
}

#[test]
fn golden_comparison() {
    let message = anti_entropy(AntiEntropy::Compare {
        batch: 1,
        own_bits: 12,
        depth: 4,
        part_bits: 1,
        floors_digest: 7,
        ranges: vec![(3, vec![4, 5])],
    });
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 57, 1, 0x60, 0, 0, 0, 0, 0, 0, 0, 2,                 // frame header: length, version, kind, request
        1, 2, 3, 4, 5, 6, 7, 8,                                       // cache
        0, 0, 0, 1,                                                   // batch
        12, 4, 1,                                                     // own_bits, depth, part_bits
        0, 0, 0, 0, 0, 0, 0, 7,                                       // floors_digest
        0, 0, 0, 1,                                                   // number of ranges
        0, 0, 0, 3,                                                   // range
        0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5,               // sums of its parts
    ];
    assert_eq!(bytes_of(&message), expected);
}

#[test]
fn golden_piece_of_a_list_and_what_is_wanted_of_it() {
    let key = Bytes::from_static(b"k");
    let listed = anti_entropy(AntiEntropy::Listed {
        own: true,
        index: 3,
        done: true,
        keys: vec![(key.clone(), version())],
        floors: vec![],
    });
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 51, 1, 0x63, 0, 0, 0, 0, 0, 0, 0, 2,
        1, 2, 3, 4, 5, 6, 7, 8,
        1, 1,                                                         // own, done
        0, 0, 0, 3,                                                   // index
        0, 0, 0, 1,                                                   // number of keys
        0, 1, b'k',                                                   // length and key
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99,
        0, 0, 0, 0,                                                   // number of floors
    ];
    assert_eq!(bytes_of(&listed), expected);
    let want = anti_entropy(AntiEntropy::Want {
        own: false,
        index: 3,
        outdated: vec![],
        keys: vec![key],
    });
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 34, 1, 0x64, 0, 0, 0, 0, 0, 0, 0, 2,
        1, 2, 3, 4, 5, 6, 7, 8,
        0,                                                            // own
        0, 0, 0, 3,                                                   // index
        0, 0, 0, 0,                                                   // number of outdated
        0, 0, 0, 1,                                                   // number of keys
        0, 1, b'k',
    ];
    assert_eq!(bytes_of(&want), expected);
}

fn load(message: LoadMessage<Text>) -> Message {
    let request = RequestId(2);
    Message::Load { request, message }
}

#[test]
fn golden_load_through_the_home_node() {
    let key = Bytes::from_static(b"k");
    let ask = load(LoadMessage::Ask {
        wait_ms: 5_000,
        lease_ms: 10_000,
        known: version(),
        tags: Version::ZERO,
        key: key.clone(),
    });
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 61, 1, 0x51, 0, 0, 0, 0, 0, 0, 0, 2,                 // frame header: length, version, kind, request
        1, 2, 3, 4, 5, 6, 7, 8,                                       // cache
        0, 0, 0x13, 0x88, 0, 0, 0x27, 0x10,                           // wait_ms, lease_ms
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99, // known
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,               // newest invalidation by tag
        0, 1, b'k',
    ];
    assert_eq!(bytes_of(&ask), expected);
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 22, 1, 0x52, 0, 0, 0, 0, 0, 0, 0, 2,
        1, 2, 3, 4, 5, 6, 7, 8,
        0, 0, 1, b'k',                                                // yours, key
    ];
    let yours = Answer::Yours { key: key.clone() };
    assert_eq!(bytes_of(&load(LoadMessage::Answer(yours))), expected);
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 22, 1, 0x53, 0, 0, 0, 0, 0, 0, 0, 2,
        1, 2, 3, 4, 5, 6, 7, 8,
        0, 1, b'k', 0,                                                // key, nothing stored
    ];
    let end = LoadMessage::End { key, update: None };
    assert_eq!(bytes_of(&load(end)), expected);
}

/// One message of every kind and shape.
fn fetching(message: Fetching<Text>) -> Message {
    let request = RequestId(2);
    Message::Fetching { request, message }
}

fn stub() -> Update<Text> {
    Update::Stub {
        key: Bytes::from_static(b"k"),
        version: version(),
        codec: CodecTag {
            codec: 1,
            schema: 2,
        },
        value_bytes: 0x0002_0000,
        expiry: Expiry::at_millis(3),
        tags: Tags::new(["t"]).unwrap(),
    }
}

#[test]
fn golden_stub() {
    let message = Message::Found {
        request: RequestId(2),
        update: Some(stub()),
    };
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 59, 1, 0x49, 0, 0, 0, 0, 0, 0, 0, 2,
        1, 2, 3, 4, 5, 6, 7, 8,
        1,
        0b1_1100, 0, 1, 0, 2, 0, 0,                                   // put, expiry, tags, stub; key 1, value 128 KiB
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99,
        0, 1, 0, 2,
        0, 0, 0, 0, 0, 0, 0, 3,
        1, 0, 1, b't',
        b'k',
    ];
    assert_eq!(bytes_of(&message), expected);
}

#[test]
fn a_stub_on_its_way_out_is_written_as_one_that_has_arrived() {
    let out = Message::Found {
        request: RequestId(2),
        update: stub().into_entry().map(Update::Entry),
    };
    let arrived = Message::Found {
        request: RequestId(2),
        update: Some(stub()),
    };
    assert_eq!(bytes_of(&out), bytes_of(&arrived));
}

#[test]
fn golden_fetch() {
    let ask = fetching(Fetching::Ask {
        key: Bytes::from_static(b"key"),
        version: version(),
        from_byte: 0x0001_0000,
    });
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 43, 1, 0x70, 0, 0, 0, 0, 0, 0, 0, 2,                 // frame header: length, version, kind, request
        1, 2, 3, 4, 5, 6, 7, 8,                                       // cache
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99,
        0, 1, 0, 0,                                                   // from byte
        0, 3, b'k', b'e', b'y',
    ];
    assert_eq!(bytes_of(&ask), expected);

    let piece = fetching(Fetching::Piece {
        at: 3,
        bytes: Piece::Held {
            entry: entry("key", 1, "abcdef"),
            range: 3..5,
        },
    });
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 28, 1, 0x71, 0, 0, 0, 0, 0, 0, 0, 2,
        1, 2, 3, 4, 5, 6, 7, 8,
        0, 0, 0, 3,                                                   // at
        0, 0, 0, 2, b'd', b'e',
    ];
    assert_eq!(bytes_of(&piece), expected);

    let refused = fetching(Fetching::Refused {
        known: Some(Update::Remove {
            key: Bytes::from_static(b"key"),
            version: version(),
        }),
    });
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 41, 1, 0x72, 0, 0, 0, 0, 0, 0, 0, 2,
        1, 2, 3, 4, 5, 6, 7, 8,
        1,                                                            // something newer is known
        0b01, 0, 3,
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99,
        b'k', b'e', b'y',
    ];
    assert_eq!(bytes_of(&refused), expected);

    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 18, 1, 0x73, 0, 0, 0, 0, 0, 0, 0, 2,
        1, 2, 3, 4, 5, 6, 7, 8,
    ];
    assert_eq!(bytes_of(&fetching(Fetching::Stop)), expected);
}

fn messages() -> Vec<Message> {
    let (epoch, request) = (Epoch::from_u64(1), RequestId(2));
    let key = Bytes::from_static(b"key");
    let agreement = Agreement {
        mode: ModeKind::Replicated,
        codec: 1,
        time_to_live_ms: 2,
        tombstone_ttl_ms: 3,
        split: SplitPolicy::Flush,
    };
    let stream = StreamId {
        origin: NodeId::from_u64(1),
        epoch,
    };
    let put = || Some(Update::Entry(entry("key", 1, "value")));
    let mut messages = vec![
        Message::Announce(Announcement {
            agreement,
            epoch,
            latest: 4,
            ready: true,
            physical_ms: 5,
            value_bytes_max: 6,
            lease_ms: 3_000,
        }),
        Message::Echo {
            asked: Time::from_nanos(1),
            epoch,
            latest: 2,
            physical_ms: 3,
        },
        Message::Leave { epoch, latest: 9 },
        Message::Relayed(vec![Relayed {
            origin: NodeId::from_u64(3),
            until: 4,
            batch: Batch {
                epoch,
                after: 7,
                through: 7 + updates().len() as u64,
                wants_ack: true,
                updates: updates(),
            },
        }]),
        Message::Want(vec![(stream, 3, 9)]),
        Message::Ask(Ask {
            asked: Time::from_nanos(1),
            epoch,
            ready: true,
            by_tree: true,
            until: 9,
            told: (4, 5),
        }),
        Message::State(State {
            oldest: None,
            ..state()
        }),
        Message::Subscribe { epoch, after: None },
        Message::Subscribe {
            epoch,
            after: Some(7),
        },
        Message::Subscribed { epoch, after: 7 },
        Message::Updates(Batch {
            epoch,
            after: 7,
            through: 7,
            wants_ack: false,
            updates: vec![],
        }),
        Message::Ack {
            epoch,
            after: 1,
            applied: 2,
        },
        Message::Find {
            request,
            key: key.clone(),
        },
        Message::Found {
            request,
            update: None,
        },
        Message::Found {
            request,
            update: put(),
        },
        Message::TransferRequest {
            request,
            cursor: Some(TransferCursor(3)),
            credit_bytes: 4,
            parts: Parts::from_u64(0x0102_0304_0506_0708),
        },
        Message::TransferStart {
            request,
            ready: false,
            progress: ProgressVector(vec![(stream, 4)]),
            floors: [
                Scope::All,
                Scope::Prefix(b"p".as_slice().into()),
                Scope::TagPrefix(b"t".as_slice().into()),
            ]
            .into_iter()
            .map(|scope| Update::Floor {
                scope,
                version: version(),
            })
            .collect(),
        },
        Message::TransferChunk {
            request,
            chunk: Chunk {
                index: 1,
                evicted: vec![(7, version())],
                updates: updates(),
                next: None,
            },
        },
        Message::TransferCredit { request, bytes: 5 },
        Message::TransferRefused { request },
        probe_ask(),
        held(),
        anti_entropy(AntiEntropy::Compare {
            batch: 1,
            own_bits: 8,
            depth: 4,
            part_bits: 1,
            floors_digest: 2,
            ranges: vec![(3, vec![4, 5]), (6, vec![7, 8])],
        }),
        anti_entropy(AntiEntropy::Differs {
            batch: 1,
            own_bits: 8,
            ready: true,
            progress: ProgressVector(vec![(stream, 9)]),
            floors_differ: true,
            floors: updates(),
            parts: vec![1, 2],
        }),
        anti_entropy(AntiEntropy::List {
            bits: 8,
            leaves: vec![1, 2],
            floors: updates(),
        }),
        anti_entropy(AntiEntropy::Listed {
            own: true,
            index: 1,
            done: true,
            keys: vec![(key.clone(), version())],
            floors: updates(),
        }),
        anti_entropy(AntiEntropy::Want {
            own: false,
            index: 1,
            outdated: updates(),
            keys: vec![key.clone(), Bytes::new()],
        }),
        anti_entropy(AntiEntropy::Entries {
            own: true,
            part: 1,
            done: false,
            updates: updates(),
        }),
        load(LoadMessage::Ask {
            wait_ms: 1,
            lease_ms: 2,
            known: version(),
            tags: Version::ZERO,
            key: key.clone(),
        }),
        load(LoadMessage::Answer(Answer::Yours { key: key.clone() })),
        load(LoadMessage::Answer(Answer::Wait)),
        load(LoadMessage::Answer(Answer::Loaded(
            updates().swap_remove(0),
        ))),
        load(LoadMessage::Answer(Answer::NotHome)),
        load(LoadMessage::Answer(Answer::Overloaded)),
        load(LoadMessage::End {
            key: key.clone(),
            update: None,
        }),
        load(LoadMessage::End {
            key: key.clone(),
            update: put(),
        }),
        Message::Modified {
            request,
            result: Err(ModifyError::Overflow),
        },
        Message::Modified {
            request,
            result: Ok(ModifiedAt {
                applied: true,
                previous: put(),
                current: None,
            }),
        },
        Message::Modified {
            request,
            result: Ok(ModifiedAt {
                applied: false,
                previous: None,
                current: put(),
            }),
        },
    ];
    let conditions = [
        Condition::Always,
        Condition::IfAbsent,
        Condition::IfPresent,
        Condition::IfVersion(version()),
    ];
    let sets = conditions.map(|condition| ModifyOp::Set {
        condition,
        value: Text::new("value"),
        expiry: NewExpiry::At(9),
        tags: Tags::new(["a", "b"]).unwrap(),
        return_previous: true,
    });
    let removes = conditions.map(|condition| ModifyOp::Remove {
        condition,
        return_previous: false,
    });
    let expires = [
        ExpireCondition::Always,
        ExpireCondition::IfNone,
        ExpireCondition::IfSome,
        ExpireCondition::IfGreater,
        ExpireCondition::IfLess,
        ExpireCondition::IfSomeAndLess,
    ]
    .map(|condition| ModifyOp::Expire {
        expiry: NewExpiry::Never,
        condition,
        return_previous: false,
    });
    messages.extend([
        Message::Found {
            request,
            update: Some(stub()),
        },
        fetching(Fetching::Ask {
            key: key.clone(),
            version: version(),
            from_byte: 7,
        }),
        fetching(Fetching::Piece {
            at: 7,
            bytes: Piece::Arrived(Bytes::from_static(b"piece")),
        }),
        fetching(Fetching::Refused { known: None }),
        fetching(Fetching::Refused {
            known: Some(stub()),
        }),
        fetching(Fetching::Stop),
    ]);
    let add = ModifyOp::Add { delta: i64::MIN };
    for op in sets.into_iter().chain(removes).chain(expires).chain([add]) {
        messages.push(Message::Modify {
            request,
            wait_ms: 6,
            known: version(),
            key: key.clone(),
            op,
        });
    }
    messages
}

fn frame_of(bytes: &[u8]) -> Frame {
    let number = u64::from_be_bytes(*bytes[6..].first_chunk().unwrap());
    Frame {
        kind: Kind(bytes[5]),
        number,
        body: Bytes::copy_from_slice(&bytes[14..]),
    }
}

#[test]
fn every_message_means_the_same_after_the_wire() {
    for message in messages() {
        let again = through_wire(&message);
        assert_eq!(again.name(), message.name());
        assert_eq!(bytes_of(&again), bytes_of(&message), "{message:?}");
    }
}

#[test]
fn a_message_that_is_cut_or_continued_anywhere_is_refused() {
    for message in messages() {
        let whole = frame_of(&bytes_of(&message));
        for len in 0..whole.body.len() {
            let cut = Frame {
                body: whole.body.slice(..len),
                ..whole.clone()
            };
            assert!(
                decode::<Text>(&cut).is_err(),
                "{message:?} cut to {len} bytes"
            );
        }
        let mut longer = whole.body.to_vec();
        longer.push(0);
        let longer = Frame {
            body: longer.into(),
            ..whole
        };
        let refused = decode::<Text>(&longer).unwrap_err();
        assert_eq!(
            refused,
            WireError::TrailingBytes { extra_bytes: 1 },
            "{message:?}"
        );
    }
}

#[test]
fn a_count_that_the_body_cannot_hold_is_refused_before_anything_is_allocated() {
    let batch = Message::Updates(Batch {
        epoch: Epoch::from_u64(1),
        after: 0,
        through: u64::MAX,
        wants_ack: false,
        updates: vec![],
    });
    let mut bytes = bytes_of(&batch);
    let len = bytes.len();
    bytes[len - 4..].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(
        decode::<Text>(&frame_of(&bytes)).unwrap_err(),
        WireError::Truncated
    );
}

#[test]
fn a_batch_with_more_updates_than_numbers_is_refused() {
    let batch = Message::Updates(Batch {
        epoch: Epoch::from_u64(1),
        after: 4,
        through: 5,
        wants_ack: false,
        updates: updates(),
    });
    let refused = decode::<Text>(&frame_of(&bytes_of(&batch))).unwrap_err();
    assert_eq!(
        refused,
        WireError::Invalid {
            field: "numbers of a batch"
        }
    );
}

fn arbitrary_update() -> impl Strategy<Value = Update<Text>> {
    let blob = proptest::collection::vec(any::<u8>(), 0..40);
    let tags = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..8), 0..4);
    (
        0_u8..8,
        blob.clone(),
        blob,
        any::<[u8; 16]>(),
        any::<(u16, u16, u64)>(),
        tags,
    )
        .prop_map(
            |(what, key, value, version, (codec, schema, expiry), tags)| {
                let version = Version::from_bytes(version);
                let boxed: Box<[u8]> = key.as_slice().into();
                let key = Bytes::from(key);
                match what {
                    0 | 1 => Update::Put {
                        key,
                        version,
                        value: Text(CodecTag { codec, schema }, value),
                        expiry: if what == 0 {
                            Expiry::NEVER
                        } else {
                            Expiry::at_millis(expiry)
                        },
                        tags: Tags::new(tags).unwrap(),
                    },
                    2 => Update::Remove { key, version },
                    7 => Update::Stub {
                        key,
                        version,
                        codec: CodecTag { codec, schema },
                        value_bytes: u32::from(schema),
                        expiry: Expiry::at_millis(expiry),
                        tags: Tags::new(tags).unwrap(),
                    },
                    6 => Update::Withheld {
                        key,
                        version,
                        value_bytes: u32::from(codec),
                    },
                    3 => Update::Floor {
                        scope: Scope::All,
                        version,
                    },
                    4 => Update::Floor {
                        scope: Scope::Prefix(boxed),
                        version,
                    },
                    _ => Update::Floor {
                        scope: Scope::Tag(boxed),
                        version,
                    },
                }
            },
        )
}

proptest! {
    #[test]
    fn batches_mean_the_same_after_the_wire(
        updates in proptest::collection::vec(arbitrary_update(), 0..20),
        after in 0..1_u64 << 40,
        wants_ack: bool,
    ) {
        let through = after + updates.len() as u64;
        let message = Message::Updates(Batch { epoch: Epoch::from_u64(3), after, through, wants_ack, updates });
        prop_assert_eq!(bytes_of(&through_wire(&message)), bytes_of(&message));
    }

    #[test]
    fn bytes_that_nobody_meant_never_panic(kind in 0x40_u8..0x78, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let frame = Frame { kind: Kind(kind), number: 0, body: body.into() };
        let _ = cache_id(&frame);
        let _ = decode::<Text>(&frame);
    }

    #[test]
    fn a_message_with_one_byte_changed_never_panics(at: prop::sample::Index, which: prop::sample::Index, byte: u8) {
        let messages = messages();
        let frame = frame_of(&bytes_of(&messages[which.index(messages.len())]));
        let mut body = frame.body.to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = decode::<Text>(&Frame { body: body.into(), ..frame });
    }
}
