//! Dials the addresses that discovery finds.
//!
//! Membership dials members by itself; this is for nodes it has never heard of. While this node is
//! alone it tries again and again, with full jitter from 50 ms up to 5 s; once it is connected it
//! looks every 30 s for addresses that no member advertises, so that two halves of a cluster that started
//! apart find each other. Where such an address leads to a member all the same (it has several, or shares one with others), the first
//! lane shows it, and the session that there is goes on.
//!
//! Source of the jitter: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::discovery::Discovery;
use crate::node::{ConnectError, NodeShared};
use crate::random::random;

/// The first wait between two rounds.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest wait between two rounds while this node is alone.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How often a node that has peers looks for more (a guess).
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// An address that led to this node is left out for so long: one that several nodes share leads elsewhere another time (a guess).
const OWN_FOR: Duration = Duration::from_secs(60);

/// Most addresses dialled at one time (a guess).
const DIALS_MAX: usize = 16;

/// How long one look-up may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until the node stops.
pub(super) async fn run(shared: Arc<NodeShared>, discovery: Arc<dyn Discovery>) {
    if discovery.is_empty() {
        return;
    }
    let addresses = [shared.local_addr(), shared.config().advertised];
    // Until when an address that led to this node is left out.
    let mut led_here = HashMap::new();
    let mut backoff = BACKOFF_MIN;
    let stopped = shared.stopped().clone();
    let looking = async {
        loop {
            let found = look_up(&*discovery).await;
            led_here.retain(|_, until| *until > Instant::now());
            let wanted = found.into_iter().filter(|address| {
                let is_held_off = shared.cluster_state().is_held_off(*address, shared.now());
                let is_own = addresses.contains(address) || led_here.contains_key(address);
                !is_own && !is_held_off && !is_member(&shared, *address)
            });
            let wanted: Vec<_> = wanted.collect();
            for some in wanted.chunks(DIALS_MAX) {
                // All at once: one that does not answer costs seconds, and a node that joins waits for whoever does.
                let mut dials = JoinSet::new();
                // Of those that were found first this node may have heard of the others.
                let still_wanted = some.iter().filter(|address| !is_member(&shared, **address));
                for address in still_wanted {
                    dials.spawn(try_dial(Arc::clone(&shared), *address));
                }
                while let Some(dialled) = dials.join_next().await {
                    let own = dialled.ok().flatten();
                    led_here.extend(own.map(|address| (address, Instant::now() + OWN_FOR)));
                }
            }
            if shared.links().is_alone() {
                tokio::time::sleep(backoff.mul_f64(random())).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            } else {
                backoff = BACKOFF_MIN;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    };
    let _: Option<()> = stopped.run_until_cancelled(looking).await;
}

async fn look_up(discovery: &dyn Discovery) -> Vec<SocketAddr> {
    match tokio::time::timeout(LOOKUP_TIMEOUT, discovery.lookup()).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot look for peers");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!(
                ?discovery,
                "looking for peers took longer than {LOOKUP_TIMEOUT:?}"
            );
            Vec::new()
        }
    }
}

/// Whether membership takes care of the address.
fn is_member(shared: &NodeShared, address: SocketAddr) -> bool {
    shared
        .cluster_state()
        .others(shared)
        .iter()
        .any(|member| member.address == address)
}

/// Returns the address if it turns out to be this node's own.
async fn try_dial(shared: Arc<NodeShared>, address: SocketAddr) -> Option<SocketAddr> {
    match super::dialer::dial_found(&shared, address).await {
        Ok(peer) => tracing::debug!(%peer, %address, "found a peer"),
        Err(ConnectError::Myself { .. }) => return Some(address),
        Err(error) if error.is_refusal() => tracing::warn!(%error, "cannot connect to a seed"),
        Err(error) => tracing::debug!(%error, "cannot connect to a seed"),
    }
    None
}
