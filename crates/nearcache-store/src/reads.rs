//! Hits and misses: [`ReadCounters`], counted at the price of an addition in the reader's own cache line.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

const STRIPES_BITS: u32 = 5;
const STRIPES: usize = 1 << STRIPES_BITS;

/// Counters of which each thread uses its own stripe.
///
/// They are bumped by a load and a store instead of an atomic addition, which would be a tenth of a hit. Two threads
/// that fall on the same stripe may in rare moments lose a count; nothing is ever counted twice.
pub(crate) struct ReadCounters {
    stripes: [CachePadded<Stripe>; STRIPES],
}

#[derive(Default)]
struct Stripe {
    hits: AtomicU64,
    misses: AtomicU64,
}

thread_local! {
    /// Only its address is used: it differs between threads, and costs nothing to find.
    static ANCHOR: u8 = const { 0 };
}

impl ReadCounters {
    pub(crate) fn new() -> Self {
        Self {
            stripes: std::array::from_fn(|_| CachePadded::default()),
        }
    }

    #[inline]
    pub(crate) fn count(&self, hit: bool) {
        let anchor = ANCHOR.with(|a| std::ptr::from_ref(a).addr()) as u64;
        let stripe = anchor.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - STRIPES_BITS);
        let stripe = &self.stripes[stripe as usize];
        let counter = if hit { &stripe.hits } else { &stripe.misses };
        counter.store(
            counter.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    }

    /// Hits and misses so far.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.stripes.iter().fold((0, 0), |(hits, misses), stripe| {
            (
                hits + stripe.hits.load(Ordering::Relaxed),
                misses + stripe.misses.load(Ordering::Relaxed),
            )
        })
    }
}
