//! What can only be judged once every setting is known: limits that contradict each other, listeners
//! that collide, and protected mode.

use std::time::Duration;

use nearcache::limits::{
    FETCH_BYTES_PER_SECOND_MIN, INLINE_LIMIT_MIN, MEMBER_LIMIT_MAX, PROBE_CONNECTIONS_MAX,
    VALUE_LEN_MAX,
};
use nearcache::{OnDisconnect, PeerTlsError, PeerTlsFile};

use super::model::{CacheConfig, CacheMode, Config};
use super::problem::{Place, Problem};
use super::{Places, units};
use crate::failure::chain;
use crate::limits::LimitsError;
use crate::protected;

/// The smallest bound of a cache that makes sense.
const CACHE_BYTES_MIN: u64 = 1 << 20;

pub(super) fn validate(config: &Config, places: &Places<'_>, problems: &mut Vec<Problem>) {
    limits(config, places, problems);
    listeners(config, places, problems);
    members(config, places, problems);
    caches(config, places, problems);
    peers_tls(config, places, problems);
    if let Err(refusals) = protected::check(config) {
        problems.extend(refusals.into_iter().map(|refusal| {
            Problem::new(places.of(refusal.setting), refusal.message).suggest(refusal.remedy)
        }));
    }
}

fn limits(config: &Config, places: &Places<'_>, problems: &mut Vec<Problem>) {
    let shown = |name: &str, value: usize| {
        if name.ends_with("_bytes") {
            units::show_size(value as u64)
        } else {
            value.to_string()
        }
    };
    match config.limits.validate() {
        Ok(()) => {}
        Err(LimitsError::OutOfRange {
            name,
            got,
            min,
            max,
        }) => problems.push(
            Problem::new(
                places.of(&format!("limits.{name}")),
                format!("`limits.{name}` is {}, out of range", shown(name, got)),
            )
            .suggest(format!(
                "allowed are {} to {}",
                shown(name, min),
                shown(name, max)
            )),
        ),
        Err(LimitsError::Contradiction {
            smaller,
            smaller_value,
            larger,
            larger_value,
        }) => {
            let place = places.of(&format!("limits.{smaller}"));
            let place = if place == Place::Default {
                places.of(&format!("limits.{larger}"))
            } else {
                place
            };
            problems.push(
                Problem::new(
                    place,
                    format!(
                        "`limits.{smaller}` ({}) is more than `limits.{larger}` ({})",
                        shown(smaller, smaller_value),
                        shown(larger, larger_value)
                    ),
                )
                .suggest(format!(
                    "lower `limits.{smaller}` or raise `limits.{larger}`"
                )),
            );
        }
    }
}

/// How many nodes there may be, and how they are connected.
fn members(config: &Config, places: &Places<'_>, problems: &mut Vec<Problem>) {
    let peers = &config.peers;
    for (key, value, max) in [
        ("mesh_max", peers.mesh_max, MEMBER_LIMIT_MAX),
        ("member_limit", peers.member_limit, MEMBER_LIMIT_MAX),
        (
            "probe_connections",
            peers.probe_connections,
            PROBE_CONNECTIONS_MAX,
        ),
    ] {
        if !(1..=max).contains(&value) {
            let path = format!("peers.{key}");
            problems.push(
                Problem::new(
                    places.of(&path),
                    format!("`{path}` is {value}, out of range"),
                )
                .suggest(format!("allowed are 1 to {max}")),
            );
        }
    }
}

fn listeners(config: &Config, places: &Places<'_>, problems: &mut Vec<Problem>) {
    let mut listeners = vec![("peers.listen", config.peers.listen)];
    if config.resp.enabled {
        listeners.push(("resp.listen", config.resp.listen));
    }
    if config.http.enabled {
        listeners.push(("http.listen", config.http.listen));
    }
    for (index, (path, address)) in listeners.iter().enumerate() {
        let taken = listeners.iter().take(index).find(|(_, other)| {
            other.port() != 0
                && other.port() == address.port()
                && (other.ip() == address.ip()
                    || other.ip().is_unspecified()
                    || address.ip().is_unspecified())
        });
        if let Some((other, _)) = taken {
            problems.push(
                Problem::new(
                    places.of(path),
                    format!("`{path}` and `{other}` are both on port {}", address.port()),
                )
                .suggest("give each listener a port of its own"),
            );
        }
    }
    for name in &config.resp.databases {
        if !config.caches.contains_key(name) {
            problems.push(
                Problem::new(
                    places.of("resp.databases"),
                    format!("`resp.databases` names the cache `{name}`, which does not exist"),
                )
                .suggest(format!("add a section [caches.{name}]")),
            );
        }
    }
    if config.resp.enabled && config.resp.databases.is_empty() {
        problems.push(
            Problem::new(places.of("resp.databases"), "`resp.databases` is empty")
                .suggest("write [\"default\"], or set `resp.enabled = false`"),
        );
    }
}

/// Certificates and secret: all there, readable by nobody else, and such that peers believe them.
fn peers_tls(config: &Config, places: &Places<'_>, problems: &mut Vec<Problem>) {
    let tls = &config.peers.tls;
    let Some(settings) = tls.settings() else {
        let mut files = tls.files().into_iter();
        let Some((named, _)) = files.find(|(_, file)| file.is_some()) else {
            return;
        };
        let missing = tls.files().into_iter().filter(|(_, file)| file.is_none());
        for (setting, _) in missing {
            problems.push(
                Problem::new(
                    places.of(named),
                    format!("`{setting}` is missing: peers prove who they are with all four files"),
                )
                .suggest("add it, or take out [peers.tls]; `nearcache certs` makes a set to try"),
            );
        }
        return;
    };
    let cluster = &config.node.cluster;
    let error = match (settings.check(cluster), &config.node.name) {
        (Ok(Some(certified)), Some(name)) if certified != *name => PeerTlsError::OtherName {
            certificate: tls.certificate_file.clone().unwrap_or_default(),
            certified,
            named: name.clone(),
            cluster: cluster.clone(),
        },
        (Ok(_), _) => return,
        (Err(error), _) => error,
    };
    let setting = match error.file() {
        Some(PeerTlsFile::Certificate) => "peers.tls.certificate_file",
        Some(PeerTlsFile::Key) => "peers.tls.key_file",
        Some(PeerTlsFile::Ca) => "peers.tls.ca_file",
        Some(PeerTlsFile::Secret) => "peers.tls.secret_file",
        None => "node.cluster",
    };
    problems.push(Problem::new(places.of(setting), chain(&error)));
}

fn caches(config: &Config, places: &Places<'_>, problems: &mut Vec<Problem>) {
    for (name, cache) in &config.caches {
        let path = |key: &str| format!("caches.{name}.{key}");
        if cache.max_bytes < CACHE_BYTES_MIN {
            problems.push(
                Problem::new(
                    places.of(&path("max_bytes")),
                    format!(
                        "`{}` is {}",
                        path("max_bytes"),
                        units::show_size(cache.max_bytes)
                    ),
                )
                .suggest(format!(
                    "give it at least {}",
                    units::show_size(CACHE_BYTES_MIN)
                )),
            );
        } else if config.limits.value_bytes as u64 > cache.max_bytes {
            problems.push(
                Problem::new(
                    places.of(&path("max_bytes")),
                    format!(
                        "`limits.value_bytes` ({}) is more than `{}` ({})",
                        units::show_size(config.limits.value_bytes as u64),
                        path("max_bytes"),
                        units::show_size(cache.max_bytes)
                    ),
                )
                .suggest(
                    "a value that large could never be kept: lower the one or raise the other",
                ),
            );
        }
        leases(cache, &path, places, problems);
        long_values(cache, &path, places, problems);
        if let (Some(live), Some(idle)) = (cache.time_to_live, cache.time_to_idle)
            && idle > live
        {
            problems.push(
                Problem::new(
                    places.of(&path("time_to_idle")),
                    format!(
                        "`{}` ({}) is more than `{}` ({}) and would never have an effect",
                        path("time_to_idle"),
                        units::show_duration(idle),
                        path("time_to_live"),
                        units::show_duration(live)
                    ),
                )
                .suggest("shorten it or remove it"),
            );
        }
    }
}

/// The settings of long values.
fn long_values(
    cache: &CacheConfig,
    path: &dyn Fn(&str) -> String,
    places: &Places<'_>,
    problems: &mut Vec<Problem>,
) {
    let mut refuse = |key: &str, shown: u64, remedy: &str| {
        let message = format!("`{}` is {}", path(key), units::show_size(shown));
        problems.push(Problem::new(places.of(&path(key)), message).suggest(remedy));
    };
    if !(INLINE_LIMIT_MIN..=VALUE_LEN_MAX).contains(&cache.inline_limit) {
        let remedy = "allowed are 1KiB to 64MiB";
        refuse("inline_limit", cache.inline_limit as u64, remedy);
    }
    let rate = cache.fetch_bytes_per_second;
    if (1..FETCH_BYTES_PER_SECOND_MIN).contains(&rate) {
        refuse(
            "fetch_bytes_per_second",
            rate,
            "give it at least 64KiB, or 0 for no limit",
        );
    }
}

/// The settings that belong to one mode.
fn leases(
    cache: &CacheConfig,
    path: &dyn Fn(&str) -> String,
    places: &Places<'_>,
    problems: &mut Vec<Problem>,
) {
    let mut refuse = |key: &str, shown: Duration, remedy: &str| {
        let message = format!("`{}` is {}", path(key), units::show_duration(shown));
        problems.push(Problem::new(places.of(&path(key)), message).suggest(remedy));
    };
    let timeouts = Duration::from_secs(1)..=Duration::from_secs(600);
    if !timeouts.contains(&cache.link_timeout) {
        refuse("link_timeout", cache.link_timeout, "allowed are 1s to 10m");
    }
    let audits = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
    if let Some(every) = cache.audit_every.filter(|every| !audits.contains(every)) {
        refuse(
            "audit_every",
            every,
            "allowed are 1s to 1d; leave it out for never",
        );
    }
    if let OnDisconnect::ServeStale { max } = cache.on_disconnect
        && (max < cache.link_timeout || max > Duration::from_secs(24 * 60 * 60))
    {
        let remedy = "serve_stale may be from `link_timeout` (3s unless set) to 1d";
        refuse("on_disconnect", max, remedy);
    }
    let mut without_effect = |key: &str, mode: &str| {
        let place = places.of(&path(key));
        if place != Place::Default {
            let message = format!(
                "`{}` has no effect in mode `{}`",
                path(key),
                cache.mode.as_str()
            );
            let remedy = format!("remove it, or set mode = \"{mode}\"");
            problems.push(Problem::new(place, message).suggest(remedy));
        }
    };
    if cache.mode != CacheMode::Replicated {
        without_effect("split", CacheMode::Replicated.as_str());
    }
    if cache.mode != CacheMode::Invalidation {
        for key in ["on_disconnect", "link_timeout", "dead_counts_for"] {
            without_effect(key, CacheMode::Invalidation.as_str());
        }
    }
}
