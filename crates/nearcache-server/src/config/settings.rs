//! The table of settings: each one's path, kind, meaning and how it enters the [`Config`].
//!
//! The file, the environment and the flags all go through this table, so a setting exists in all
//! three or in none. `NEARCACHE_` and the path in capitals is the variable: `http.listen` is
//! `NEARCACHE_HTTP_LISTEN`, `caches.users.mode` is `NEARCACHE_CACHES_USERS_MODE`.

use std::time::Duration;

use nearcache::{OnDisconnect, SplitPolicy};

use super::model::{CacheConfig, CacheMode, Config, LogFormat};
use super::value::{Rejection, Value};
use super::{suggest, units};

/// One setting of the server.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Dotted path in the file.
    pub(crate) path: &'static str,
    /// Puts a value into the configuration; on a rejection nothing has changed.
    pub(crate) set: fn(&mut Config, &Value) -> Result<(), Rejection>,
}

/// One setting of a cache, below `caches.<name>`.
#[derive(Debug)]
pub(crate) struct CacheSetting {
    /// The key below the cache's name.
    pub(crate) key: &'static str,
    /// Puts a value into the cache's configuration; on a rejection nothing has changed.
    pub(crate) set: fn(&mut CacheConfig, &Value) -> Result<(), Rejection>,
}

macro_rules! settings {
    ($kind:ident, $name:ident: $($path:literal => $set:expr,)*) => {
        &[$($kind { $name: $path, set: $set }),*]
    };
}

/// Every setting but those of caches, in the order of the example configuration.
pub(crate) const SETTINGS: &[Setting] = settings! { Setting, path:
    "node.name" => |c, v| { c.node.name = Some(name(v)?); Ok(()) },
    "node.cluster" => |c, v| { c.node.cluster = name(v)?; Ok(()) },
    "peers.listen" => |c, v| { c.peers.listen = v.address()?; Ok(()) },
    "peers.advertise" => |c, v| { c.peers.advertise = Some(v.address()?); Ok(()) },
    "peers.seeds" => |c, v| { c.peers.seeds = hosts_with_port(v)?; Ok(()) },
    "peers.dns" => |c, v| { c.peers.dns = Some(host_with_port(&v.text()?)?); Ok(()) },
    "peers.allow_insecure_network" => |c, v| { c.peers.allow_insecure_network = v.flag()?; Ok(()) },
    "peers.mesh_max" => |c, v| { c.peers.mesh_max = v.count()?; Ok(()) },
    "peers.member_limit" => |c, v| { c.peers.member_limit = v.count()?; Ok(()) },
    "peers.probe_connections" => |c, v| { c.peers.probe_connections = v.count()?; Ok(()) },
    "peers.tls.certificate_file" => |c, v| { c.peers.tls.certificate_file = Some(v.text()?.into()); Ok(()) },
    "peers.tls.key_file" => |c, v| { c.peers.tls.key_file = Some(v.text()?.into()); Ok(()) },
    "peers.tls.ca_file" => |c, v| { c.peers.tls.ca_file = Some(v.text()?.into()); Ok(()) },
    "peers.tls.secret_file" => |c, v| { c.peers.tls.secret_file = Some(v.text()?.into()); Ok(()) },
    "peers.tls.allowed_names" => |c, v| { c.peers.tls.allowed_names = v.list()?; Ok(()) },
    "peers.tls.reload_every" => |c, v| { c.peers.tls.reload_every = within(v.duration()?, SECOND, DAY)?; Ok(()) },
    "peers.tls.reauthenticate_after" => |c, v| { c.peers.tls.reauthenticate_after = within(v.duration()?, SECOND * 10, DAY * 30)?; Ok(()) },
    "resp.enabled" => |c, v| { c.resp.enabled = v.flag()?; Ok(()) },
    "resp.listen" => |c, v| { c.resp.listen = v.address()?; Ok(()) },
    "resp.databases" => |c, v| { c.resp.databases = v.list()?; Ok(()) },
    "http.enabled" => |c, v| { c.http.enabled = v.flag()?; Ok(()) },
    "http.listen" => |c, v| { c.http.listen = v.address()?; Ok(()) },
    "http.hosts" => |c, v| { c.http.hosts = v.list()?; Ok(()) },
    "http.origins" => |c, v| { c.http.origins = v.list()?; Ok(()) },
    "auth.token_file" => |c, v| { c.auth.token_file = Some(v.text()?.into()); Ok(()) },
    "auth.allow_plaintext" => |c, v| { c.auth.allow_plaintext = v.flag()?; Ok(()) },
    "limits.client_connections" => |c, v| { c.limits.client_connections = v.count()?; Ok(()) },
    "limits.unauthenticated_connections" => |c, v| { c.limits.unauthenticated_connections = v.count()?; Ok(()) },
    "limits.connections_per_address" => |c, v| { c.limits.connections_per_address = v.count()?; Ok(()) },
    "limits.key_bytes" => |c, v| { c.limits.key_bytes = v.size_usize()?; Ok(()) },
    "limits.value_bytes" => |c, v| { c.limits.value_bytes = v.size_usize()?; Ok(()) },
    "limits.request_bytes" => |c, v| { c.limits.request_bytes = v.size_usize()?; Ok(()) },
    "limits.request_arguments" => |c, v| { c.limits.request_arguments = v.count()?; Ok(()) },
    "limits.header_bytes" => |c, v| { c.limits.header_bytes = v.size_usize()?; Ok(()) },
    "limits.headers" => |c, v| { c.limits.headers = v.count()?; Ok(()) },
    "limits.requests_in_flight" => |c, v| { c.limits.requests_in_flight = v.count()?; Ok(()) },
    "limits.output_soft_bytes" => |c, v| { c.limits.output_soft_bytes = v.size_usize()?; Ok(()) },
    "limits.output_soft_for" => |c, v| { c.limits.output_soft_for = v.duration()?; Ok(()) },
    "limits.output_hard_bytes" => |c, v| { c.limits.output_hard_bytes = v.size_usize()?; Ok(()) },
    "limits.in_flight_bytes" => |c, v| { c.limits.in_flight_bytes = v.size_usize()?; Ok(()) },
    "limits.authentication_timeout" => |c, v| { c.limits.authentication_timeout = v.duration()?; Ok(()) },
    "limits.authentication_failures_per_address" => |c, v| {
        let failures = v.count()?;
        if failures == 0 {
            return Err(Rejection::new("must be more than zero"));
        }
        c.limits.authentication_failures_per_address = u32::try_from(failures).unwrap_or(u32::MAX);
        Ok(())
    },
    "limits.authentication_lockout" => |c, v| { c.limits.authentication_lockout = v.duration()?; Ok(()) },
    "limits.header_timeout" => |c, v| { c.limits.header_timeout = v.duration()?; Ok(()) },
    "limits.body_timeout" => |c, v| { c.limits.body_timeout = v.duration()?; Ok(()) },
    "limits.idle_timeout" => |c, v| { c.limits.idle_timeout = v.duration()?; Ok(()) },
    "limits.drain_timeout" => |c, v| { c.limits.drain_timeout = v.duration()?; Ok(()) },
    "log.level" => |c, v| { c.log.level = level(v)?; Ok(()) },
    "log.format" => |c, v| {
        c.log.format = choice(v, &[("text", LogFormat::Text), ("json", LogFormat::Json)])?;
        Ok(())
    },
};

/// Every setting of a cache.
pub(crate) const CACHE_SETTINGS: &[CacheSetting] = settings! { CacheSetting, key:
    "mode" => |c, v| { c.mode = mode(v)?; Ok(()) },
    "max_bytes" => |c, v| { c.max_bytes = v.size()?; Ok(()) },
    "inline_limit" => |c, v| { c.inline_limit = v.size_usize()?; Ok(()) },
    "fetch_bytes_per_second" => |c, v| { c.fetch_bytes_per_second = v.size()?; Ok(()) },
    "time_to_live" => |c, v| { c.time_to_live = Some(v.duration()?); Ok(()) },
    "time_to_idle" => |c, v| { c.time_to_idle = Some(v.duration()?); Ok(()) },
    "split" => |c, v| {
        c.split = choice(v, &[
            ("serve", SplitPolicy::Serve),
            ("read-only", SplitPolicy::ReadOnly),
            ("flush", SplitPolicy::Flush),
        ])?;
        Ok(())
    },
    "on_disconnect" => |c, v| { c.on_disconnect = on_disconnect(v)?; Ok(()) },
    "link_timeout" => |c, v| { c.link_timeout = v.duration()?; Ok(()) },
    "dead_counts_for" => |c, v| { c.dead_counts_for = v.duration()?; Ok(()) },
    "transfer_bytes_per_second" => |c, v| { c.transfer_bytes_per_second = v.size()?; Ok(()) },
    "audit_every" => |c, v| { c.audit_every = Some(v.duration()?); Ok(()) },
};

/// The setting with this path.
pub(crate) fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.path == path)
}

/// The cache setting with this key.
pub(crate) fn find_cache(key: &str) -> Option<&'static CacheSetting> {
    CACHE_SETTINGS.iter().find(|setting| setting.key == key)
}

/// What stands before the last dot of all paths, `caches` among them.
pub(crate) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = SETTINGS
        .iter()
        .filter_map(|s| s.path.rsplit_once('.'))
        .map(|(section, _)| section)
        .collect();
    sections.push("caches");
    sections.dedup();
    sections
}

/// The keys of one section, and of the sections in it their names.
pub(crate) fn keys_of<'a>(section: &'a str) -> impl Iterator<Item = &'static str> + 'a {
    let keys = SETTINGS
        .iter()
        .filter_map(|setting| setting.path.rsplit_once('.'))
        .filter(move |(within, _)| *within == section)
        .map(|(_, key)| key);
    let inner = sections()
        .into_iter()
        .filter_map(|path| path.rsplit_once('.'))
        .filter(move |(within, _)| *within == section)
        .map(|(_, name)| name);
    keys.chain(inner)
}

/// Whether a cache may have this name: it appears in addresses and metrics.
pub(crate) fn check_cache_name(name: &str) -> Result<(), Rejection> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        return Err(Rejection::new(format!("`{name}` cannot name a cache"))
            .suggest("use at most 64 letters, digits, `-`, `_` and `.`"));
    }
    Ok(())
}

fn name(value: &Value) -> Result<String, Rejection> {
    let text = value.text()?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
    if text.len() > 128 || !text.chars().all(allowed) {
        return Err(Rejection::new(format!("`{text}` is not a name"))
            .suggest("use at most 128 letters, digits, `-`, `_`, `.`, `:` and `/`"));
    }
    Ok(text)
}

fn hosts_with_port(value: &Value) -> Result<Vec<String>, Rejection> {
    value
        .list()?
        .iter()
        .map(|text| host_with_port(text))
        .collect()
}

fn host_with_port(text: &str) -> Result<String, Rejection> {
    let port = text.rsplit_once(':').and_then(|(host, port)| {
        port.parse::<u16>()
            .ok()
            .filter(|port| *port != 0 && !host.is_empty())
    });
    match port {
        Some(_) => Ok(text.to_owned()),
        None => Err(
            Rejection::new(format!("`{text}` is not a host with a port")).suggest(format!(
                "write for example \"{}:7801\"",
                text.trim_end_matches(':')
            )),
        ),
    }
}

fn level(value: &Value) -> Result<String, Rejection> {
    let text = value.text()?;
    match text.parse::<tracing_subscriber::filter::Targets>() {
        Ok(_) => Ok(text),
        Err(_) => Err(Rejection::new(format!("`{text}` is not a log level"))
            .suggest("use error, warn, info, debug or trace")),
    }
}

/// Modes that are part of the design and not of this version yet.
const LATER_MODES: &[&str] = &["partitioned", "leader", "strong"];

fn mode(value: &Value) -> Result<CacheMode, Rejection> {
    let text = value.text()?;
    if LATER_MODES.contains(&text.as_str()) {
        return Err(
            Rejection::new(format!("mode `{text}` is not in this version yet"))
                .suggest("use \"local\", \"invalidation\" or \"replicated\""),
        );
    }
    choice(
        value,
        &[
            ("local", CacheMode::Local),
            ("replicated", CacheMode::Replicated),
            ("invalidation", CacheMode::Invalidation),
        ],
    )
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A duration from `least` to `most`.
fn within(duration: Duration, least: Duration, most: Duration) -> Result<Duration, Rejection> {
    if (least..=most).contains(&duration) {
        return Ok(duration);
    }
    let [duration, least, most] = [duration, least, most].map(units::show_duration);
    let allowed = format!("allowed are {least} to {most}");
    Err(Rejection::new(format!("is {duration}")).suggest(allowed))
}

/// `"bypass"`, `"flush"` or `{ serve_stale = "30s" }`, which the environment writes as `serve_stale=30s`.
fn on_disconnect(value: &Value) -> Result<OnDisconnect, Rejection> {
    if let Some(max) = value.only_field("serve_stale") {
        let max = max.duration()?;
        return Ok(OnDisconnect::ServeStale { max });
    }
    choice(
        value,
        &[
            ("bypass", OnDisconnect::Bypass),
            ("flush", OnDisconnect::Flush),
        ],
    )
    .map_err(|rejection| match value.text().as_deref() {
        Ok("serve_stale") => Rejection::new("`serve_stale` needs to know for how long")
            .suggest("write { serve_stale = \"30s\" }"),
        _ => rejection,
    })
}

fn choice<T: Copy>(value: &Value, known: &[(&str, T)]) -> Result<T, Rejection> {
    let text = value.text()?;
    if let Some((_, chosen)) = known.iter().find(|(word, _)| *word == text) {
        return Ok(*chosen);
    }
    let words: Vec<_> = known.iter().map(|(word, _)| *word).collect();
    let rejection = Rejection::new(format!("unknown value `{text}`"));
    Err(match suggest::nearest(&text, words.iter().copied()) {
        Some(word) => rejection.suggest(format!("did you mean \"{word}\"?")),
        None => rejection.suggest(format!("use one of: {}", words.join(", "))),
    })
}
