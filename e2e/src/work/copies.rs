//! Reads in mode `invalidation`: a copy, or a load from the record that the node is given to keep.

use std::time::Duration;

use super::client::Client;
use crate::history::{Kind, Value};
use crate::resp::Reply;

/// How long the record takes to answer, so that changes overtake loads.
const LOAD_TAKES: Duration = Duration::from_millis(1);
/// How often a change is told before it is given up.
const TOLD_AT_MOST: usize = 20;

impl Client<'_> {
    pub(super) fn read_copy(&mut self, node: usize, key: usize) {
        if self.leaves_alone(node) {
            return;
        }
        let start = self.board.now();
        let name = self.keys.name(key);
        let (life, found) = match self.call(node, &["NC.GETFILL", &name]) {
            Ok((life, reply)) => (life, self.understand_copy(node, key, reply)),
            Err(error) => (self.board.life(node), Err(format!("{error:#}"))),
        };
        match found {
            Ok(Ok(value)) => {
                let kind = Kind::Read(Some(value));
                self.note(node, life, key, kind, start, Ok(kind));
            }
            Ok(Err(token)) => self.fill(node, key, &token, start),
            Err(why) => self.note(node, life, key, Kind::Read(None), start, Err(why)),
        }
    }

    /// Has all copies dropped of keys that change, as a program does that was not answered when it told of a change: the record has changed
    /// then, and a command that came late may have put an older value into its place.
    pub(crate) fn tell_again(&mut self) {
        let nodes = self.board.nodes();
        for key in 0..self.keys.stable_from() {
            let name = self.keys.name(key);
            for attempt in 0..TOLD_AT_MOST {
                let kind = Kind::Write(self.record.load(key));
                self.perform((key + attempt) % nodes, key, kind, &["DEL", &name]);
                if self.ops.last().is_some_and(|op| op.key == key && op.ok()) {
                    break;
                }
                std::thread::sleep(LOAD_TAKES * 50);
            }
        }
    }

    /// Loads the key for a read that began at `start` and missed, and gives the value to the node.
    pub(super) fn fill(&mut self, node: usize, key: usize, token: &str, start: u64) {
        let value = self.record.load(key);
        std::thread::sleep(LOAD_TAKES);
        let (name, stored) = (self.keys.name(key), self.keys.stored(key, value));
        let answer = self.call(node, &["NC.FILL", &name, token, &stored]);
        let kind = Kind::Load(value);
        let (life, ended) = match answer {
            Ok((life, Reply::Integer(_))) => (life, Ok(kind)),
            Ok((life, other)) => (life, Err(format!("unexpected answer {other:?}"))),
            Err(error) => (self.board.life(node), Err(format!("{error:#}"))),
        };
        self.note(node, life, key, kind, start, ended);
    }

    /// The copy in an answer to `NC.GETFILL`, or the token for one.
    pub(super) fn understand_copy(
        &mut self,
        node: usize,
        key: usize,
        reply: Reply,
    ) -> Result<Result<Value, String>, String> {
        match reply {
            Reply::Array(parts) => match parts.as_slice() {
                [Reply::Bulk(Some(bytes)), Reply::Bulk(None)] => {
                    match self.keys.value(key, bytes) {
                        Some(value) => Ok(Ok(value)),
                        None => Err(self.crossed(node, key)),
                    }
                }
                [Reply::Bulk(None), Reply::Bulk(Some(token))] => {
                    Ok(Err(String::from_utf8_lossy(token).into_owned()))
                }
                _ => Err(format!("unexpected answer {parts:?}")),
            },
            Reply::Error(text) => Err(text),
            other => Err(format!("unexpected answer {other:?}")),
        }
    }
}
