//! `INFO`: the state of this node, under the names Redis uses where it has a name.

use std::fmt::Write as _;

use super::{
    super::{IDENTITY, error::CommandError},
    Call, CommandId, Outcome,
};

/// Sections in the order they are shown; the last is shown only when asked for by name.
const SECTIONS: [&str; 8] = [
    "server",
    "clients",
    "memory",
    "stats",
    "replication",
    "freshness",
    "keyspace",
    "commandstats",
];
const SECTIONS_BY_DEFAULT: usize = 7;

pub(super) fn info(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let mut text = String::new();
    for (place, section) in SECTIONS.into_iter().enumerate() {
        let is_wanted = if call.args.len() == 1 {
            place < SECTIONS_BY_DEFAULT
        } else {
            call.args.from(1).any(|word| {
                let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
                is(section)
                    || is("all")
                    || is("everything")
                    || is("default") && place < SECTIONS_BY_DEFAULT
            })
        };
        if is_wanted {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            write_section(&mut text, call, section);
        }
    }
    call.reply.verbatim(&text);
    Ok(Outcome::Done)
}

/// One section: its heading, and `name:value` lines.
fn write_section(text: &mut String, call: &Call<'_>, section: &'static str) {
    let mut heading = section.to_owned();
    if let Some(first) = heading.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let lines = match section {
        "server" => server(call),
        "clients" => clients(call),
        "memory" => memory(call),
        "stats" => stats(call),
        "replication" => replication(call),
        "freshness" => freshness(call),
        "keyspace" => keyspace(call),
        _ => command_stats(call),
    };
    // Writing to a string cannot fail.
    let _ = write!(text, "# {heading}\r\n");
    for (name, value) in lines {
        let _ = write!(text, "{name}:{value}\r\n");
    }
}

type Lines = Vec<(String, String)>;

fn line(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

fn server(call: &Call<'_>) -> Lines {
    let (server, node) = (&call.session.server, &call.session.context().node);
    let uptime_s = server.time.now_ms() / 1_000;
    vec![
        line("redis_version", IDENTITY.redis_version),
        line("redis_mode", "standalone"),
        line("nearcache_version", IDENTITY.version),
        line("nearcache_cluster", node.cluster()),
        line("nearcache_node", node.name()),
        line("nearcache_node_id", node.id()),
        line("os", std::env::consts::OS),
        line("arch_bits", usize::BITS),
        line("process_id", std::process::id()),
        line("run_id", format!("{:0>40}", format!("{}", node.id()))),
        line("tcp_port", server.port),
        line("server_time_usec", call.now_ms() * 1_000),
        line("uptime_in_seconds", uptime_s),
        line("uptime_in_days", uptime_s / 86_400),
    ]
}

fn clients(call: &Call<'_>) -> Lines {
    let context = call.session.context();
    vec![
        line("connected_clients", call.session.server.clients.len()),
        line("maxclients", context.limits.client_connections),
        line("blocked_clients", 0),
    ]
}

fn memory(call: &Call<'_>) -> Lines {
    let databases = || call.session.context().databases.iter();
    let used: u64 = databases()
        .map(|database| database.stats().store.weight_bytes)
        .sum();
    let max: u64 = databases().map(crate::caches::RawCache::max_bytes).sum();
    vec![
        line("used_memory", used),
        line("maxmemory", max),
        line("maxmemory_policy", "allkeys-lru"),
        line(
            "in_flight_bytes",
            call.session.context().memory.held_bytes(),
        ),
    ]
}

fn stats(call: &Call<'_>) -> Lines {
    let context = call.session.context();
    let totals = context.metrics.totals();
    let (mut hits, mut misses, mut evicted, mut expired) = (0, 0, 0, 0);
    for database in context.databases.iter() {
        let store = database.stats().store;
        hits += store.hits;
        misses += store.misses;
        evicted += store.evictions;
        expired += store.expirations;
    }
    vec![
        line("total_connections_received", context.metrics.accepted.get()),
        line("total_commands_processed", totals.commands),
        line("total_net_input_bytes", totals.received_bytes),
        line("total_net_output_bytes", totals.sent_bytes),
        line("rejected_connections", context.metrics.refused()),
        line("expired_keys", expired),
        line("evicted_keys", evicted),
        line("keyspace_hits", hits),
        line("keyspace_misses", misses),
    ]
}

fn replication(call: &Call<'_>) -> Lines {
    let node = &call.session.context().node;
    let peers = node.members().len().saturating_sub(1);
    let links = node.links();
    // The worst of all databases.
    let databases = call.session.context().databases.iter();
    let state = databases.map(crate::caches::RawCache::status).max();
    let state = state.map_or("", nearcache::Status::as_str);
    vec![
        // To a client library every node takes writes.
        line("role", "master"),
        line("connected_slaves", 0),
        line("nearcache_peers", peers),
        line("nearcache_peer_sessions", links.sessions),
        line("nearcache_by_tree", u8::from(links.by_tree)),
        line(
            "nearcache_clock_skew_ms",
            node.clock_skew().map_or(0, |skew| skew.peers_ahead_ms),
        ),
        line("nearcache_ready", u8::from(node.is_ready())),
        line("nearcache_state", state),
    ]
}

/// Per database how far behind this node may be, in all and per peer.
fn freshness(call: &Call<'_>) -> Lines {
    let ms = |age: Option<std::time::Duration>| {
        age.map_or_else(
            || "unknown".to_owned(),
            |age| nearcache::age_ms(age).to_string(),
        )
    };
    let databases = call.session.context().databases.iter().enumerate();
    let mut lines = Lines::new();
    for (index, database) in databases {
        let freshness = database.freshness();
        let peers = freshness.per_peer.len();
        let worst = ms(freshness.worst);
        lines.push(line(
            &format!("freshness_db{index}"),
            format!("age_ms={worst},peers={peers}"),
        ));
        for peer in freshness.per_peer {
            lines.push(line(
                &format!("freshness_db{index}_peer_{}", peer.peer),
                format!(
                    "age_ms={},missing={},unacknowledged={}",
                    ms(peer.age),
                    peer.missing,
                    peer.unacknowledged
                ),
            ));
        }
    }
    lines
}

fn keyspace(call: &Call<'_>) -> Lines {
    let databases = call.session.context().databases.iter().enumerate();
    let mut lines = Lines::new();
    for (index, database) in databases {
        if !database.is_empty() {
            lines.push(line(
                &format!("db{index}"),
                format!("keys={}", database.len()),
            ));
        }
    }
    lines
}

fn command_stats(call: &Call<'_>) -> Lines {
    let metrics = &call.session.context().metrics;
    let called = CommandId::all().map(|id| (id.command().name, metrics.calls(id)));
    called
        .filter(|(_, calls)| *calls > 0)
        .map(|(name, calls)| line(&format!("cmdstat_{name}"), format!("calls={calls}")))
        .collect()
}
