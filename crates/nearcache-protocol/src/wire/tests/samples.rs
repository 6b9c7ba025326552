//! Messages to write and read: at least one of every kind and shape.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nearcache_store::{Expiry, NodeId, Scope, Tags, Timestamp, Version};

use crate::announce::{Agreement, Announcement, ModeKind, SplitPolicy};
use crate::anti_entropy::AntiEntropy;
use crate::fetching::{Fetching, Piece};
use crate::frame::FrameLimit;
use crate::ids::{CacheId, Epoch, RequestId, StreamId};
use crate::load::lease::{Answer, LoadMessage};
use crate::message::{
    Ask, Batch, CacheMessage, Chunk, MemberWord, ModifiedAt, ProgressVector, Relayed, Runs, State,
    TransferCursor,
};
use crate::modify::{Condition, ExpireCondition, ModifyError, ModifyOp, NewExpiry};
use crate::parts::Parts;
use crate::payload::CodecTag;
use crate::probe::{Held, HeldEntry, Probe};
use crate::testing::{Text, entry};
use crate::time::Time;
use crate::update::Update;
use crate::wire::encode;

pub(super) type Message = CacheMessage<Text>;

pub(super) fn bytes_of(message: &Message) -> Vec<u8> {
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

pub(super) fn version() -> Version {
    Version::new(
        Timestamp::from_parts(0x0011_2233_4455, 0x6677),
        NodeId::from_u64(0x99),
    )
}

pub(super) fn updates() -> Vec<Update<Text>> {
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

pub(super) fn held() -> Message {
    Message::Probe {
        request: RequestId(2),
        message: Probe::Held(Held {
            known: version(),
            floor: version(),
            entry: Some(HeldEntry {
                version: version(),
                expiry: Expiry::at_millis(3),
                value_bytes: 4,
                value_hash: Some(5),
            }),
            removed: false,
            leased: true,
            ready: true,
        }),
    }
}

pub(super) fn probe_ask() -> Message {
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

pub(super) fn state() -> State {
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
        whole: true,
        members: vec![MemberWord {
            node: NodeId::from_u64(13),
            alive: true,
            epoch: Epoch::from_u64(14),
            runs: Runs::Ended(15),
        }],
    }
}

pub(super) fn anti_entropy(message: AntiEntropy<Text>) -> Message {
    let request = RequestId(2);
    Message::AntiEntropy { request, message }
}

pub(super) fn load(message: LoadMessage<Text>) -> Message {
    let request = RequestId(2);
    Message::Load { request, message }
}

pub(super) fn fetching(message: Fetching<Text>) -> Message {
    let request = RequestId(2);
    Message::Fetching { request, message }
}

pub(super) fn stub() -> Update<Text> {
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

/// One message of every kind and shape.
pub(super) fn messages() -> Vec<Message> {
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
        fetching(Fetching::Keep {
            key: key.clone(),
            version: version(),
            fetch: true,
        }),
        fetching(Fetching::Kept { held: true }),
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
