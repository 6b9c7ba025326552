//! Golden bytes, round trips, and bytes that nobody meant.

mod golden;
mod samples;

use bytes::Bytes;
use nearcache_store::{Expiry, Scope, Tags, Version};
use proptest::prelude::*;

use self::samples::{Message, bytes_of, messages, updates};
use crate::frame::{Frame, Kind};
use crate::ids::Epoch;
use crate::message::Batch;
use crate::payload::CodecTag;
use crate::testing::{Text, through_wire};
use crate::update::Update;
use crate::wire::{WireError, cache_id, decode};

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
