//! Watchers: one per node and cache, which asks the node how old its knowledge of the others is, by RESP and by its metrics, and in the
//! same go reads the keys whose newest values are known. What is said must not be contradicted by what is read then (C11).
//!
//! They wait for a stopped node until it goes on, so that its first answers are among those judged.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::board::Board;
use super::client::{Asked, Client};
use super::http;
use super::keys::{Keys, PINNED};
use super::record::Record;
use crate::history::Claim;
use crate::machine::network::Network;
use crate::resp::Reply;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// Longer than any node is stopped.
const PATIENCE: Duration = Duration::from_secs(20);
/// After so many looks by RESP, one at the metrics.
const METRICS_EVERY: u32 = 8;
/// After so many, a read that demands freshness.
const DEMAND_EVERY: u32 = 5;
/// How fresh, in milliseconds: heartbeats alone come too seldom for that, so that mostly the peers are asked.
const DEMANDED_MS: u64 = 250;
/// What the metrics say of a peer that was never heard.
const UNKNOWN: u64 = i64::MAX as u64;

/// Whose number in the run each node id is.
pub(crate) type Names = BTreeMap<String, usize>;

/// A watcher, and what it saw.
#[derive(Debug)]
pub(crate) struct Watcher<'a> {
    /// Its reads.
    pub(crate) client: Client<'a>,
    node: usize,
    /// What the node said.
    pub(crate) claims: Vec<Claim>,
}

impl<'a> Watcher<'a> {
    /// For one node.
    pub(crate) fn new(board: &'a Board, keys: Keys, record: &'a Record, node: usize) -> Self {
        Self {
            client: Client::new(board, keys, record).patient(PATIENCE),
            node,
            claims: Vec::new(),
        }
    }

    /// Watches until the round is over.
    pub(crate) fn watch(&mut self, names: &Names) {
        let mut look = 0_u32;
        while !self.client.board.over.load(Ordering::SeqCst) {
            look = look.wrapping_add(1);
            // A node that does not answer says nothing wrong.
            let _: Option<()> = if look.is_multiple_of(METRICS_EVERY) {
                self.look_at_metrics(names)
            } else if look.is_multiple_of(DEMAND_EVERY) && !self.client.keys.cache.is_copies() {
                self.demand(names)
            } else {
                self.look(names)
            };
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn look(&mut self, names: &Names) -> Option<()> {
        let pinned = 0..self.client.keys.pinned();
        let (asked, _) = self
            .client
            .read_some(self.node, pinned, &[&["NC.FRESHNESS"]])?;
        let ages = ages(asked.replies.first()?, names)?;
        self.claim(&asked, ages);
        Some(())
    }

    /// A value that is at most so old is one that the node had when it knew all that its peers had then.
    fn demand(&mut self, names: &Names) -> Option<()> {
        let board = self.client.board;
        let owner = (self.node + 1) % board.nodes();
        let key = owner * PINNED;
        let (name, demanded) = (self.client.keys.name(key), DEMANDED_MS.to_string());
        let commands: [&[&str]; 3] = [
            &["NC.FRESHNESS"],
            &["NC.GETFRESH", &name, &demanded],
            &["NC.FRESHNESS"],
        ];
        let start = board.now();
        let (life, replies) = self.client.call_all(self.node, &commands).ok()?;
        let asked = Asked {
            start,
            end: board.now(),
            life,
            replies,
        };
        let [before, read, after] = asked.replies.as_slice() else {
            return None;
        };
        if matches!(read, Reply::Error(_)) {
            return Some(());
        }
        // It is not held to what it says of a node that it has given up meanwhile.
        let (before, after) = (ages(before, names)?, ages(after, names)?);
        let both = before.iter().zip(&after);
        let ages = both.map(|(before, after)| before.and(*after).map(|_| DEMANDED_MS));
        let ages = ages.collect();
        let read = read.clone();
        self.client.note_read(self.node, key, &asked, read)?;
        self.claim(&asked, ages);
        Some(())
    }

    fn look_at_metrics(&mut self, names: &Names) -> Option<()> {
        let board = self.client.board;
        let start = board.now();
        let address = Network::http_address(self.node);
        let text = http::metrics(address, &board.token, PATIENCE).ok()?;
        let ages = scraped(&text, self.client.keys.cache.name(), names);
        let pinned = 0..self.client.keys.pinned();
        let from = self.client.ops.len();
        let (asked, _) = self.client.read_some(self.node, pinned, &[])?;
        // The node was asked for both from here on.
        for op in self.client.ops.iter_mut().skip(from) {
            if op.start == asked.start {
                op.start = start;
            }
        }
        self.claim(&Asked { start, ..asked }, ages);
        Some(())
    }

    fn claim(&mut self, asked: &Asked, ages: Vec<Option<u64>>) {
        self.claims.push(Claim {
            start: asked.start,
            end: asked.end,
            node: self.node,
            ages,
        });
    }
}

/// What `NC.FRESHNESS` says, by the number of the peer.
fn ages(reply: &Reply, names: &Names) -> Option<Vec<Option<u64>>> {
    let mut ages = vec![None; names.len()];
    let Reply::Array(peers) = field(reply, "peers")? else {
        return None;
    };
    for peer in peers {
        let (Some(Reply::Bulk(Some(id))), Some(age)) = (field(peer, "peer"), field(peer, "age_ms"))
        else {
            return None;
        };
        let place = names.get(String::from_utf8_lossy(id).as_ref());
        if let (Some(place), Reply::Integer(age)) = (place, age) {
            *ages.get_mut(*place)? = u64::try_from(*age).ok();
        }
    }
    Some(ages)
}

fn field<'a>(map: &'a Reply, name: &str) -> Option<&'a Reply> {
    let Reply::Array(parts) = map else {
        return None;
    };
    parts.chunks_exact(2).find_map(|pair| match pair {
        [Reply::Bulk(Some(key)), value] if key == name.as_bytes() => Some(value),
        _ => None,
    })
}

/// What the metrics say of a cache's peers.
fn scraped(text: &str, cache: &str, names: &Names) -> Vec<Option<u64>> {
    let mut ages = vec![None; names.len()];
    let cache = format!("cache=\"{cache}\"");
    let lines = text.lines();
    for line in
        lines.filter(|line| line.starts_with("nearcache_cache_peer_freshness_milliseconds{"))
    {
        let Some((labels, value)) = line.rsplit_once("} ") else {
            continue;
        };
        if !labels.contains(&cache) {
            continue;
        }
        let of = |(id, _): &(&String, &usize)| labels.contains(&format!("peer=\"{id}\""));
        let age = value.parse::<u64>().ok().filter(|age| *age < UNKNOWN);
        if let Some((_, place)) = names.iter().find(of)
            && let Some(slot) = ages.get_mut(*place)
        {
            *slot = age;
        }
    }
    ages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_say_by_resp_and_by_metrics_is_understood() {
        let names: Names = [("aa", 0), ("bb", 2), ("cc", 1)]
            .map(|(id, place)| (id.to_owned(), place))
            .into();
        let word = |text: &str| Reply::Bulk(Some(text.into()));
        let peer = |id, age| Reply::Array(vec![word("peer"), word(id), word("age_ms"), age]);
        let reply = Reply::Array(vec![
            word("age_ms"),
            Reply::Integer(900),
            word("peers"),
            Reply::Array(vec![
                peer("bb", Reply::Integer(7)),
                peer("cc", Reply::Bulk(None)),
            ]),
        ]);
        assert_eq!(ages(&reply, &names), Some(vec![None, None, Some(7)]));
        let text = "# HELP x\n\
            nearcache_cache_peer_freshness_milliseconds{cache=\"default\",peer=\"bb\"} 12\n\
            nearcache_cache_peer_freshness_milliseconds{cache=\"stale\",peer=\"bb\"} 99\n\
            nearcache_cache_peer_freshness_milliseconds{cache=\"default\",peer=\"cc\"} 18446744073709551615\n";
        assert_eq!(scraped(text, "default", &names), [None, None, Some(12)]);
    }
}
