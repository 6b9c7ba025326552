//! K5: what a node holds stays within its bounds, and nobody is waited for who no longer waits.

use super::Broken;
use crate::node::Node;
use crate::plan::Plan;

/// Bytes kept for replay by default.
const REPLAY_BYTES_MAX: usize = 16 << 20;
/// The longest value of all ([`Shape::Long`](crate::plan::Shape), of a number with four digits).
const LONGEST: usize = 900 * 5;
/// Streams followed by default.
const STREAMS_MAX: usize = 1_024;

/// The first bound that the node is beyond.
pub(crate) fn check(plan: &Plan, host: usize, node: &Node) -> Result<(), Broken> {
    let held = node.core.held();
    let weight_bytes = node.store.stats().weight_bytes;
    // One walk or list in each direction for each peer, of each kind.
    let serving_max = 3 * plan.nodes;
    // One value may be longer than all the room.
    let fetch_bytes_max = plan
        .long
        .as_ref()
        .map_or(usize::MAX, |long| long.room_bytes.max(LONGEST));
    for (what, is, max) in [
        (
            "updates for replay",
            held.replay_updates,
            plan.replay_updates_max.max(1),
        ),
        ("bytes for replay", held.replay_bytes, REPLAY_BYTES_MAX),
        ("callers that wait", held.waiters, node.waiting.len()),
        ("streams", held.streams, STREAMS_MAX),
        ("peers being served", held.serving, serving_max),
        (
            "bytes of long values that arrive",
            held.fetch_bytes,
            fetch_bytes_max,
        ),
        ("sessions", node.sessions.len(), plan.nodes - 1),
    ] {
        if is > max {
            return Err(("K5", format!("n{host} holds {is} {what}, at most {max}")));
        }
    }
    if weight_bytes > plan.store_bytes {
        let what = format!(
            "n{host}'s store holds {weight_bytes} bytes of {}",
            plan.store_bytes
        );
        return Err(("K5", what));
    }
    Ok(())
}
