//! The coherence audit and inspection, as JSON.
//!
//! ```text
//! GET  /v1/audit                          what this node's probes saw, per cache and peer
//! POST /v1/audit?every=1s&for=30s         write probes for so long; &cache=NAME for one cache
//! GET  /v1/caches/{cache}/inspect/{key}   how a key stands on every node
//! ```

use std::time::Duration;

use http::{Response, StatusCode};
use nearcache::{
    AUDIT_COVERED_WITHIN, AUDITED_WITHIN, AuditReport, Held, Mode, NoAnswer, NodeId, Propagation,
    Verdicts,
};
use serde::Serialize;

use super::problem::Problem;
use super::{Body, Context, describe, path, refusal, version_tag};
use crate::caches::RawCache;
use crate::config::units;

/// How often probes are written if the request does not say.
const EVERY_DEFAULT: Duration = Duration::from_secs(1);
/// The longest that an audit lasts that was asked for; one in the configuration has no end.
const FOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// One cache of `GET /v1/audit`.
#[derive(Debug, Serialize)]
pub(super) struct AuditDocument {
    cache: String,
    /// How often a probe is written; absent while none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    /// How long ago the last probe was written, or, while none has been, since they were to be; absent if none were ever to be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    probed_ms_ago: Option<u64>,
    probes: u64,
    skipped: u64,
    /// Members other than this node.
    members: usize,
    /// Those of them that have answered about a probe within the last `covered_within_s` seconds.
    covered: usize,
    covered_within_s: u64,
    within: Vec<WithinDocument>,
    /// To any peer.
    propagation_us: Option<PropagationDocument>,
    peers: Vec<PeerDocument>,
}

/// What was found so many seconds after the probes were written.
#[derive(Debug, Serialize)]
struct WithinDocument {
    seconds: u64,
    coherent: u64,
    late: u64,
    stale: u64,
    silent: u64,
    unknown: u64,
    /// Nines of the share that was coherent, with one failure more than there was.
    nines: f64,
}

/// What one peer had of this node's probes.
#[derive(Debug, Serialize)]
struct PeerDocument {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Whether it is a member still.
    member: bool,
    within: Vec<WithinDocument>,
    /// Until the peer was known to have the probe, the way back included. Absent if none was seen yet;
    /// `null` in a share of which some were not seen within a minute.
    propagation_us: Option<PropagationDocument>,
    /// How long ago it has last answered about a probe; absent if it never has.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_ms_ago: Option<u64>,
}

#[derive(Debug, Serialize)]
struct PropagationDocument {
    p50: Option<u64>,
    p99: Option<u64>,
    p999: Option<u64>,
}

/// One node of `GET …/inspect/{key}`.
#[derive(Debug, Serialize)]
struct CopyDocument {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// `entry`, `removed`, `absent` or `no answer`.
    state: &'static str,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The newest version of this key that is known there, as an entity tag without its quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// How long ago that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u32>,
    /// The same for the same value, on all nodes of this cluster; absent where a long value is not fetched yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// Whether the node serves what it has; without a lease (mode `invalidation`) it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    served: Option<bool>,
}

#[derive(Debug, Serialize)]
struct InspectDocument {
    agree: bool,
    /// Members, this node included.
    members: usize,
    /// Those that have told how the key stands there.
    answered: usize,
    nodes: Vec<CopyDocument>,
}

/// Answers `GET /v1/audit`.
pub(super) fn reports(context: &Context) -> Vec<AuditDocument> {
    let audited = context
        .caches
        .iter()
        .filter(|cache| cache.mode() != Mode::Local);
    audited
        .map(|cache| report(context, cache.name(), &cache.audit_report()))
        .collect()
}

fn report(context: &Context, cache: &str, report: &AuditReport) -> AuditDocument {
    let peers = report.peers.iter().map(|peer| PeerDocument {
        id: peer.peer.to_string(),
        name: context.node.name_of(peer.peer),
        member: peer.member,
        within: within(&peer.within),
        propagation_us: propagation(&peer.took),
        answered_ms_ago: peer.answered.map(millis),
    });
    AuditDocument {
        cache: cache.to_owned(),
        every_ms: report.every.map(millis),
        probed_ms_ago: report.probed.map(millis),
        probes: report.probes,
        skipped: report.skipped,
        members: report.members,
        covered: report.covered,
        covered_within_s: AUDIT_COVERED_WITHIN.as_secs(),
        within: within(&report.within()),
        propagation_us: propagation(&report.took),
        peers: peers.collect(),
    }
}

fn propagation(took: &Propagation) -> Option<PropagationDocument> {
    let us = |took: Option<Duration>| {
        let took = took.filter(|took| *took < Duration::from_secs(60 * 60))?;
        u64::try_from(took.as_micros()).ok()
    };
    took.p50.map(|_| PropagationDocument {
        p50: us(took.p50),
        p99: us(took.p99),
        p999: us(took.p999),
    })
}

fn within(verdicts: &[Verdicts]) -> Vec<WithinDocument> {
    let document = |(verdicts, within): (&Verdicts, Duration)| WithinDocument {
        seconds: within.as_secs(),
        coherent: verdicts.coherent,
        late: verdicts.late,
        stale: verdicts.stale,
        silent: verdicts.silent,
        unknown: verdicts.unknown,
        nines: (verdicts.nines() * 100.0).floor() / 100.0,
    };
    verdicts.iter().zip(AUDITED_WITHIN).map(document).collect()
}

/// Answers `POST /v1/audit`: every cache but the local ones, or one, writes probes from now on.
pub(super) fn start(context: &Context, query: &str) -> Result<Response<Body>, Problem> {
    let (mut every, mut lasts, mut only) = (EVERY_DEFAULT, None, None);
    for (name, value) in path::query_pairs(query).ok_or_else(refusal::broken_encoding)? {
        let text = String::from_utf8_lossy(&value).into_owned();
        let duration = |least: Duration| match units::parse_duration(&text) {
            Ok(duration) if (least..=FOR_MAX).contains(&duration) => Ok(duration),
            _ => Err(refusal::bad_request(
                "InvalidDuration",
                "every and for are durations of 1s to 1d",
            )),
        };
        match name.as_str() {
            "every" => every = duration(Duration::from_secs(1))?,
            "for" => lasts = Some(duration(Duration::from_secs(1))?),
            "cache" => only = Some(text),
            _ => {
                return Err(refusal::bad_request(
                    "UnknownParameter",
                    "an audit takes the parameters every, for and cache",
                ));
            }
        }
    }
    let Some(lasts) = lasts else {
        return Err(refusal::bad_request(
            "InvalidDuration",
            "say for how long: POST /v1/audit?for=30s; caches.NAME.audit_every in the configuration has no end",
        ));
    };
    if let Some(name) = &only {
        context
            .caches
            .get(name)
            .ok_or_else(|| refusal::no_cache(name))?;
    }
    let is_meant = |cache: &&RawCache| {
        cache.mode() != Mode::Local && only.as_ref().is_none_or(|only| only == cache.name())
    };
    for cache in context.caches.iter().filter(is_meant) {
        cache.audit(every, Some(lasts));
    }
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Answers `GET /v1/caches/{cache}/inspect/{key}`.
pub(super) async fn inspect(
    context: &Context,
    cache: &RawCache,
    key: &[u8],
) -> Result<Response<Body>, Problem> {
    let inspection = cache.inspect(key).await.map_err(refusal::of_read)?;
    let now_ms = context.node.clock().now_ms();
    let nodes = inspection.nodes.iter();
    let nodes = nodes.map(|(id, held)| copy(*id, context.node.name_of(*id), *held, now_ms));
    let answered = inspection.nodes.values().filter(|held| held.is_ok());
    Ok(describe::json(&InspectDocument {
        agree: inspection.agrees(),
        members: inspection.nodes.len(),
        answered: answered.count(),
        nodes: nodes.collect(),
    }))
}

fn copy(
    id: NodeId,
    name: Option<String>,
    held: Result<Held, NoAnswer>,
    now_ms: u64,
) -> CopyDocument {
    let reason = held.err().map(|reason| reason.to_string());
    let held = held.ok();
    let known = held
        .map(|held| held.known)
        .filter(|known| known.time.millis() > 0);
    let entry = held.and_then(|held| held.entry);
    let expires = entry
        .map(|entry| entry.expiry)
        .filter(|expiry| !expiry.is_never());
    CopyDocument {
        id: id.to_string(),
        name,
        state: match held {
            None => "no answer",
            Some(held) if held.entry.is_some() => "entry",
            Some(held) if held.removed => "removed",
            Some(_) => "absent",
        },
        reason,
        version: known.map(|known| version_tag::tag(known).trim_matches('"').to_owned()),
        age_ms: known.map(|known| now_ms.saturating_sub(known.time.millis())),
        expires_in_ms: expires.map(|expiry| expiry.as_millis().saturating_sub(now_ms)),
        bytes: entry.map(|entry| entry.value_bytes),
        value: entry
            .and_then(|entry| entry.value_hash)
            .map(|hash| format!("{hash:016x}")),
        served: held.map(|held| held.leased),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
