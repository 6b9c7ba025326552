//! The bytes of a message are what docs/wire.md says, and stay so.

use bytes::Bytes;
use nearcache_store::{NodeId, Version};

use super::samples::{
    Message, anti_entropy, bytes_of, fetching, held, load, probe_ask, state, stub, updates, version,
};
use crate::announce::{Agreement, Announcement, ModeKind, SplitPolicy};
use crate::anti_entropy::AntiEntropy;
use crate::fetching::{Fetching, Piece};
use crate::ids::{Epoch, RequestId, StreamId};
use crate::load::lease::{Answer, LoadMessage};
use crate::message::{Batch, CacheMessage, ProgressVector, Relayed};
use crate::testing::entry;
use crate::time::Time;
use crate::update::Update;

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
        0, 0, 0, 91, 1, 0x81, 0, 0, 0, 0, 0, 0, 0, 2,                 // frame header: length, version, kind, request
        1, 2, 3, 4, 5, 6, 7, 8,                                       // cache
        0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99, // known
        0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99, // floor
        0, 1, 1,                                                      // not removed, leased, ready
        1,                                                            // there is an entry:
        0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99, // version
        0, 0, 0, 0, 0, 0, 0, 3,                                       // expires
        0, 0, 0, 4,                                                   // bytes of its value
        1,                                                            // its value is here, and is hashed:
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

#[test]
fn golden_state_of_a_neighbour() {
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 156, 1, 0x93, 0, 0, 0, 0, 0, 0, 0, 0,
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
        1,                                                            // whole
        0, 1, 0, 0, 0, 0, 0, 0, 0, 13, 1,                             // members: node, alive,
        0, 0, 0, 0, 0, 0, 0, 14, 2, 0, 0, 0, 0, 0, 0, 0, 15,          // epoch, runs: ended with
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

#[test]
fn golden_fetch_keep() {
    let keep = fetching(Fetching::Keep {
        key: Bytes::from_static(b"key"),
        version: version(),
        fetch: true,
    });
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 40, 1, 0x74, 0, 0, 0, 0, 0, 0, 0, 2,
        1, 2, 3, 4, 5, 6, 7, 8,
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x99,
        1,                                                            // fetch it
        0, 3, b'k', b'e', b'y',
    ];
    assert_eq!(bytes_of(&keep), expected);

    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 19, 1, 0x75, 0, 0, 0, 0, 0, 0, 0, 2,
        1, 2, 3, 4, 5, 6, 7, 8,
        1,
    ];
    assert_eq!(bytes_of(&fetching(Fetching::Kept { held: true })), expected);
}
