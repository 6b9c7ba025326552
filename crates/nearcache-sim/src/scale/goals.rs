//! What the figures of one size, and of one and the next, are held against.
//!
//! Of one size: perf-B5. Of one and the next: no cost of a node grows faster than the logarithm of the number of nodes, so from 200 to 1,000 by
//! ln 1000 / ln 200 = 1.30 at most.

use std::fmt;

use super::row::Row;

/// Payload messages per node and update (perf-B5).
const PAYLOAD_MAX: f64 = 1.1;
/// Control messages per node and update (perf-B5).
const CONTROL_MAX: f64 = 0.5;
/// The last delivery, in latencies of one link (perf-B5, for 1,000 nodes).
const LAST_LATENCIES: f64 = 20.0;
/// One link, in the mean, in milliseconds.
const LATENCY_MS: f64 = 0.75;
/// Sessions of a node, in binary logarithms of the number of nodes; twice as many in one direction or the other, and the next two on the ring.
const LINKS_LOGS: f64 = 2.0;
/// Sessions beside those.
const LINKS_MORE: f64 = 4.0;

/// Costs that may not grow faster than the logarithm, each with what is too little to matter: a growth below it is none.
const GROWS: [(&str, f64); 16] = [
    ("idle: links mean", 1.0),
    ("idle: messages per s", 1.0),
    ("idle: bytes per s", 100.0),
    ("load: payload messages per update", 0.02),
    ("load: payload bytes per update", 10.0),
    ("load: control messages per update", 0.02),
    ("load: control bytes per update", 10.0),
    ("load: repair messages per update", 0.02),
    ("faults: links mean", 1.0),
    ("faults: messages per s", 1.0),
    ("faults: bytes per s", 100.0),
    ("faults: control messages per update", 0.02),
    ("faults: control bytes per update", 10.0),
    ("faults: repair messages per update", 0.02),
    ("faults: repair bytes per update", 10.0),
    ("faults: membership bytes per update", 10.0),
];

/// Of fewer nodes so many are away at any time that what they cost under faults is nothing to compare with: of ten, four.
const FAULTS_FROM: usize = 50;

/// What a figure is held against.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Which figure, of what.
    pub what: String,
    /// What it is.
    pub is: f64,
    /// What it may be at most.
    pub at_most: f64,
    /// A word on the figure.
    pub note: String,
}

impl Verdict {
    /// Whether it is met. What there is no figure of never is.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.is <= self.at_most
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_met() { "PASS" } else { "MISS" };
        let Self {
            what,
            is,
            at_most,
            note,
        } = self;
        write!(f, "{word} {what}: {is:.2}, at most {at_most:.2}{note}")
    }
}

/// Holds rows, from few nodes to many, against the goals.
#[must_use]
pub fn judge(rows: &[Row]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for row in rows {
        of_one(row, &mut verdicts);
    }
    for pair in rows.windows(2) {
        if let [few, many] = pair
            && few.nodes() > 1
            && few.nodes() < many.nodes()
        {
            of_two(few, many, &mut verdicts);
        }
    }
    verdicts
}

fn of_one(row: &Row, verdicts: &mut Vec<Verdict>) {
    let nodes = row.nodes();
    let mut hold = |name: &str, at_most: f64| {
        verdicts.push(Verdict {
            what: format!("{nodes} nodes, {name}"),
            is: row.figure(name),
            at_most,
            note: String::new(),
        });
    };
    hold("load: payload messages per update", PAYLOAD_MAX);
    hold("load: control messages per update", CONTROL_MAX);
    hold("load: visibility max ms", LAST_LATENCIES * LATENCY_MS);
    if !row.is_mesh() {
        let links = LINKS_LOGS * (nodes as f64).log2() + LINKS_MORE;
        hold("idle: links mean", links);
        hold("faults: links mean", links);
        hold("faults: links most", 2.0 * links);
    }
    hold("equal after s", 5.0);
}

fn of_two(few: &Row, many: &Row, verdicts: &mut Vec<Verdict>) {
    let logarithm = (many.nodes() as f64).ln() / (few.nodes() as f64).ln();
    let compares = |name: &str| few.nodes() >= FAULTS_FROM || !name.starts_with("faults");
    for (name, too_little) in GROWS.into_iter().filter(|(name, _)| compares(name)) {
        let (before, after) = (few.figure(name), many.figure(name));
        let growth = if after - before <= too_little {
            (after / before).min(1.0)
        } else {
            after / before
        };
        verdicts.push(Verdict {
            what: format!("{} to {} nodes, {name}, growth", few.nodes(), many.nodes()),
            is: growth,
            at_most: logarithm,
            note: format!(" ({before:.2} to {after:.2})"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(is: f64) -> Verdict {
        Verdict {
            what: "cost".to_owned(),
            is,
            at_most: 1.3,
            note: String::new(),
        }
    }

    #[test]
    fn a_goal_is_met_at_its_bound_and_never_without_a_figure() {
        assert!(verdict(1.3).is_met());
        assert!(!verdict(1.31).is_met());
        assert!(!verdict(f64::NAN).is_met());
        assert_eq!(verdict(1.5).to_string(), "MISS cost: 1.50, at most 1.30");
    }
}
