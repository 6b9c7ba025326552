//! Bytes that are no message (F22): the receiver closes the connection, and nothing else comes of it.

use bytes::{BufMut as _, Bytes, BytesMut};
use nearcache_protocol::frame::FRAME_VERSION;
use nearcache_protocol::lane::Lane;
use rand::RngExt as _;

use super::{Cluster, Event, Fate};
use crate::plan::Garbage;

/// Kinds of messages of a cache (docs/wire-cache.md).
const UPDATES: u8 = 0x40;
const ANNOUNCE: u8 = 0x44;

impl Cluster {
    /// Lets bytes that are no message arrive on a lane between the two, if there is a session.
    pub(super) fn garble(&mut self, from: usize, to: usize, how: Garbage) {
        let stands = self.sessions.iter().position(|session| {
            let hosts = [session.ends[0].host, session.ends[1].host];
            (hosts == [from, to] || hosts == [to, from])
                && session.ends.iter().all(|end| end.stands)
        });
        let Some(session) = stands else {
            return;
        };
        let end = usize::from(self.sessions[session].ends[1].host == to);
        let lane = Lane::ALL[self.rng.random_range(0..Lane::ALL.len())];
        let bytes = self.garbage(how);
        self.sessions[session].ends[end].garbled = true;
        let at = self.now + self.delay();
        self.queue.schedule(
            at,
            Event::Arrive {
                session,
                end,
                lane,
                bytes,
                fate: Fate::Again,
            },
        );
    }

    fn garbage(&mut self, how: Garbage) -> Bytes {
        let body = match how {
            // Too short for what it says it is.
            Garbage::Short => vec![7; 11],
            Garbage::Random => (0..self.rng.random_range(9..200))
                .map(|_| self.rng.random())
                .collect(),
            _ => vec![0; 16],
        };
        let kind = match how {
            Garbage::Kind => 0xee,
            Garbage::Random => UPDATES,
            _ => ANNOUNCE,
        };
        let len = u32::try_from(body.len() + 10).unwrap_or(u32::MAX);
        let mut bytes = BytesMut::new();
        bytes.put_u32(if how == Garbage::TooLong {
            u32::MAX
        } else {
            len
        });
        bytes.put_u8(if how == Garbage::Version {
            99
        } else {
            FRAME_VERSION
        });
        bytes.put_u8(kind);
        bytes.put_u64(0);
        bytes.put_slice(&body);
        bytes.freeze()
    }
}
