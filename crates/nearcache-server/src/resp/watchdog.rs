//! Looks at all connections a few times a second and closes those that break a rule of time.
//!
//! One task for all connections instead of timers for each: what a connection does is noted in plain
//! cells (see [`Client`](super::clients::Client)), and a deadline is met to within a quarter of itself
//! or half a second, whichever is shorter.

use std::{sync::Arc, time::Duration};

use crate::limits::Limits;

use super::{Server, clients::TimeRules, metrics::CloseReason};

const ROUND_MIN: Duration = Duration::from_millis(5);
const ROUND_MAX: Duration = Duration::from_millis(500);

/// Looks after the connections of `server`; runs until it is dropped.
pub(super) async fn watch(server: Arc<Server>) {
    let limits = &server.context.limits;
    let needs_authentication = server.context.auth.is_some();
    let rules = rules(limits, needs_authentication);
    let mut round = tokio::time::interval(round(&rules));
    round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        let now_ms = server.time.advance();
        let clients = server.clients.all();
        for client in &clients {
            if let Some(reason) = client.overdue(now_ms, &rules) {
                client.close(reason);
            }
        }
        if needs_authentication {
            let strangers: Vec<_> = clients
                .iter()
                .filter(|client| !client.is_authenticated())
                .collect();
            let too_many = strangers
                .len()
                .saturating_sub(limits.unauthenticated_connections);
            // They are listed oldest first.
            for client in strangers.into_iter().take(too_many) {
                client.close(CloseReason::Unauthenticated);
            }
        }
    }
}

fn rules(limits: &Limits, needs_authentication: bool) -> TimeRules {
    TimeRules {
        output_soft_bytes: limits.output_soft_bytes,
        output_soft_for: limits.output_soft_for,
        body_timeout: limits.body_timeout,
        body_bytes_per_second: limits.body_bytes_per_second,
        idle_timeout: limits.idle_timeout,
        authentication_timeout: needs_authentication.then_some(limits.authentication_timeout),
    }
}

/// A quarter of the shortest deadline, within bounds.
fn round(rules: &TimeRules) -> Duration {
    let deadlines = [
        Some(rules.output_soft_for),
        Some(rules.body_timeout),
        Some(rules.idle_timeout).filter(|timeout| !timeout.is_zero()),
        rules.authentication_timeout,
    ];
    let shortest = deadlines.into_iter().flatten().min().unwrap_or(ROUND_MAX);
    (shortest / 4).clamp(ROUND_MIN, ROUND_MAX)
}
