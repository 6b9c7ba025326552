//! The coherence audit, as metrics.
//!
//! Of up to [`PEERS_TOLD_MAX`] peers each has series of its own; of more, one set tells of all together, so that a large cluster does not
//! make thousands of series a node.

use std::fmt;
use std::sync::Arc;

use nearcache_protocol::probe::audit::{AuditReport, Propagation, Verdicts, WITHIN};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::cache::CachePort;

/// Peers that have series of their own.
const PEERS_TOLD_MAX: usize = 64;

/// The label of all peers together.
const ALL: &str = "all";

/// One peer, or all.
type Row = (String, [Verdicts; WITHIN.len()], Propagation);

fn rows(report: &AuditReport) -> Vec<Row> {
    if report.peers.len() > PEERS_TOLD_MAX {
        return vec![(ALL.to_owned(), report.within(), report.took)];
    }
    let peers = report.peers.iter();
    peers
        .map(|peer| (peer.peer.to_string(), peer.within, peer.took))
        .collect()
}

/// What the caches that are audited saw of their peers.
pub(super) fn encode(
    caches: &[Arc<dyn CachePort>],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let reports = caches
        .iter()
        .map(|cache| (cache.name(), cache.audit_report()));
    let reports: Vec<_> = reports
        .filter(|(_, report)| report.probed.is_some())
        .collect();
    let counter = |count: u64| ConstCounter::new(count);
    let kind = counter(0).metric_type();
    let mut metric = encoder.encode_descriptor("audit_probes", "Probes written", None, kind)?;
    for (cache, report) in &reports {
        counter(report.probes).encode(metric.encode_family(&[("cache", *cache)])?)?;
    }
    let help = "Probes that could not be written";
    let mut metric = encoder.encode_descriptor("audit_skipped", help, None, kind)?;
    for (cache, report) in &reports {
        counter(report.skipped).encode(metric.encode_family(&[("cache", *cache)])?)?;
    }
    let help = "What each peer had of the probes after some seconds; with many peers all together";
    let mut metric = encoder.encode_descriptor("audit_verdicts", help, None, kind)?;
    for (cache, peer, verdicts, _) in told(&reports) {
        for (verdicts, within) in verdicts.iter().zip(WITHIN) {
            for (verdict, count) in [
                ("coherent", verdicts.coherent),
                ("late", verdicts.late),
                ("stale", verdicts.stale),
                ("silent", verdicts.silent),
                ("unknown", verdicts.unknown),
            ] {
                let labels = [
                    ("cache", cache.to_owned()),
                    ("peer", peer.clone()),
                    ("seconds", within.as_secs().to_string()),
                    ("verdict", verdict.to_owned()),
                ];
                counter(count).encode(metric.encode_family(&labels)?)?;
            }
        }
    }
    let float = |value: f64| ConstGauge::new(value);
    let help = "Since the last probe was written, or since the first was to be; the other figures of the audit are of no later time";
    let since = float(0.0).metric_type();
    let mut metric = encoder.encode_descriptor("audit_since_probe_seconds", help, None, since)?;
    for (cache, report) in &reports {
        let Some(probed) = report.probed else {
            continue;
        };
        float(probed.as_secs_f64()).encode(metric.encode_family(&[("cache", *cache)])?)?;
    }
    let help = "Share of probes that were coherent within so many seconds, in nines";
    let kind = float(0.0).metric_type();
    let mut metric = encoder.encode_descriptor("audit_nines", help, None, kind)?;
    for (cache, report) in &reports {
        for (verdicts, within) in report.within().iter().zip(WITHIN) {
            let labels = [
                ("cache", (*cache).to_owned()),
                ("seconds", within.as_secs().to_string()),
            ];
            float(verdicts.nines()).encode(metric.encode_family(&labels)?)?;
        }
    }
    let help = "How long probes took until each peer was known to have them; an hour or more: not within a minute; with many peers to any";
    let mut metric = encoder.encode_descriptor("audit_propagation_seconds", help, None, kind)?;
    for (cache, peer, _, took) in told(&reports) {
        for (quantile, took) in [("0.5", took.p50), ("0.99", took.p99), ("0.999", took.p999)] {
            let Some(took) = took else { continue };
            let labels = [
                ("cache", cache.to_owned()),
                ("peer", peer.clone()),
                ("quantile", quantile.to_owned()),
            ];
            float(took.as_secs_f64()).encode(metric.encode_family(&labels)?)?;
        }
    }
    encode_covered(&reports, encoder)
}

fn encode_covered(
    reports: &[(&str, AuditReport)],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let gauge = |count: usize| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
    let kind = gauge(0).metric_type();
    let help = "Members other than this node that are to be asked about probes";
    let mut metric = encoder.encode_descriptor("audit_members", help, None, kind)?;
    for (cache, report) in reports {
        gauge(report.members).encode(metric.encode_family(&[("cache", *cache)])?)?;
    }
    let help = "Those of them that have answered about a probe within the last hour";
    let mut metric = encoder.encode_descriptor("audit_members_covered", help, None, kind)?;
    for (cache, report) in reports {
        gauge(report.covered).encode(metric.encode_family(&[("cache", *cache)])?)?;
    }
    Ok(())
}

fn told<'a>(
    reports: &'a [(&'a str, AuditReport)],
) -> impl Iterator<Item = (&'a str, String, [Verdicts; WITHIN.len()], Propagation)> {
    reports.iter().flat_map(|(cache, report)| {
        let rows = rows(report).into_iter();
        rows.map(|(peer, verdicts, took)| (*cache, peer, verdicts, took))
    })
}

#[cfg(test)]
mod tests {
    use nearcache_protocol::probe::audit::PeerAudit;
    use nearcache_store::NodeId;

    use super::*;

    fn report(peers: u64) -> AuditReport {
        let coherent = Verdicts {
            coherent: 2,
            ..Verdicts::default()
        };
        let peer = |id| PeerAudit {
            peer: NodeId::from_u64(id),
            member: true,
            within: [coherent; WITHIN.len()],
            took: Propagation::default(),
            answered: None,
        };
        AuditReport {
            peers: (1..=peers).map(peer).collect(),
            ..AuditReport::default()
        }
    }

    #[test]
    fn the_series_of_an_audit_are_bounded_however_many_peers_there_are() {
        assert_eq!(rows(&report(64)).len(), 64);
        let all = rows(&report(1_024));
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].0.as_str(), all[0].1[0].coherent), (ALL, 2_048));
    }
}
