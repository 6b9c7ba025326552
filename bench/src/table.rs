//! What a measurement hands back: rows of ours against a peer, printed as a table on stdout and
//! written as JSON by [`crate::json`].
//!
//! A measurement builds a [`Table`] from [`Pairs`] (see [`crate::rounds`]); nothing here measures.

use std::fmt::Write as _;

use serde::Serialize;

use crate::rounds::Pairs;

/// Bound on the ratio ours / peer that a row of the goals asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "bound", content = "ratio", rename_all = "snake_case")]
pub(crate) enum Bound {
    /// Smaller is better: the ratio must not exceed this.
    AtMost(f64),
    /// Larger is better: the ratio must reach this.
    AtLeast(f64),
}

impl Bound {
    /// Whether `ratio` keeps the bound. A ratio that is not a number never does.
    pub(crate) fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(limit) => ratio <= limit,
            Self::AtLeast(limit) => ratio >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {limit:.2}"),
            Self::AtLeast(limit) => format!("≥ {limit:.2}"),
        }
    }
}

/// One measured comparison.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// The row of the goals this belongs to, such as `perf-A1`; empty for rows without a goal.
    pub(crate) id: String,
    /// What was measured, with its parameters.
    pub(crate) what: String,
    /// Unit of `ours` and `peer`.
    pub(crate) unit: String,
    /// Median of our rounds.
    pub(crate) ours: f64,
    /// Who we are compared with; empty when there is nobody.
    pub(crate) peer_name: String,
    /// Median of the peer's rounds; not a number when there is no peer.
    pub(crate) peer: f64,
    /// Median of the per-round ratios ours / peer.
    pub(crate) ratio: f64,
    /// Smallest and largest per-round ratio.
    pub(crate) spread: (f64, f64),
    /// Required now.
    pub(crate) must: Option<Bound>,
    /// Aimed at.
    pub(crate) goal: Option<Bound>,
}

impl Row {
    /// A row that compares `pairs` of rounds with the peer called `peer_name`.
    pub(crate) fn compared(
        id: &str,
        what: impl Into<String>,
        unit: &str,
        peer_name: &str,
        pairs: &Pairs,
    ) -> Self {
        Self {
            id: id.to_owned(),
            what: what.into(),
            unit: unit.to_owned(),
            ours: pairs.ours_median(),
            peer_name: peer_name.to_owned(),
            peer: pairs.peer_median(),
            ratio: pairs.ratio_median(),
            spread: pairs.ratio_spread(),
            must: None,
            goal: None,
        }
    }

    /// A row of our own figure alone, for what no peer offers.
    pub(crate) fn alone(id: &str, what: impl Into<String>, unit: &str, ours: f64) -> Self {
        Self {
            id: id.to_owned(),
            what: what.into(),
            unit: unit.to_owned(),
            ours,
            peer_name: String::new(),
            peer: f64::NAN,
            ratio: f64::NAN,
            spread: (f64::NAN, f64::NAN),
            must: None,
            goal: None,
        }
    }

    /// Sets what is required now.
    #[must_use]
    pub(crate) fn must(mut self, bound: Bound) -> Self {
        self.must = Some(bound);
        self
    }

    /// Sets what is aimed at.
    #[must_use]
    pub(crate) fn goal(mut self, bound: Bound) -> Self {
        self.goal = Some(bound);
        self
    }

    /// `met`, `missed`, or nothing where the row has no bound: first for the must, then the goal.
    fn verdict(&self) -> String {
        let one = |label: &str, bound: Option<Bound>| {
            bound.map(|bound| {
                let word = if bound.is_met(self.ratio) {
                    "met"
                } else {
                    "MISSED"
                };
                format!("{label} {} {word}", bound.text())
            })
        };
        [one("must", self.must), one("goal", self.goal)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// Everything one `cargo xtask bench NAME` found out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Table {
    /// Name of the measurement, which is also the name of its JSON file.
    pub(crate) name: String,
    /// Rows in the order they are printed.
    pub(crate) rows: Vec<Row>,
    /// Remarks a reader needs to judge the figures: versions, parameters, what holds a row back.
    pub(crate) notes: Vec<String>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds a remark, printed below the rows.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// The table as text with aligned columns.
    pub(crate) fn render(&self) -> String {
        let header = [
            "row", "what", "unit", "ours", "peer", "", "ratio", "spread", "bounds",
        ];
        let mut lines: Vec<[String; 9]> = vec![header.map(str::to_owned)];
        lines.extend(self.rows.iter().map(cells));
        let widths: [usize; 9] = std::array::from_fn(|column| {
            lines
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0)
        });
        let mut text = String::new();
        for line in &lines {
            let mut row = String::new();
            for (column, cell) in line.iter().enumerate() {
                let width = widths[column];
                let is_number = matches!(column, 3 | 4 | 6);
                let _ = if is_number {
                    write!(row, "{cell:>width$}  ")
                } else {
                    write!(row, "{cell:<width$}  ")
                };
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }
}

fn cells(row: &Row) -> [String; 9] {
    let (low, high) = row.spread;
    let spread = if low.is_nan() {
        String::new()
    } else {
        format!("{low:.2}–{high:.2}")
    };
    [
        row.id.clone(),
        row.what.clone(),
        row.unit.clone(),
        figure(row.ours),
        figure(row.peer),
        row.peer_name.clone(),
        if row.ratio.is_nan() {
            String::new()
        } else {
            format!("{:.3}", row.ratio)
        },
        spread,
        row.verdict(),
    ]
}

/// Four significant digits or so, without an exponent; nothing for what is not a number.
fn figure(value: f64) -> String {
    if value.is_nan() {
        String::new()
    } else if value.abs() >= 1000.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_met_at_its_limit_and_never_by_a_missing_ratio() {
        assert!(Bound::AtMost(1.0).is_met(1.0));
        assert!(!Bound::AtMost(1.0).is_met(1.01));
        assert!(Bound::AtLeast(1.2).is_met(1.2));
        assert!(!Bound::AtLeast(1.2).is_met(1.19));
        assert!(!Bound::AtMost(1.0).is_met(f64::NAN));
    }

    #[test]
    fn a_missed_goal_is_printed_as_missed() {
        let mut pairs = Pairs::default();
        pairs.push(2.0, 1.0);
        let mut table = Table::new("sample");
        table.push(
            Row::compared("perf-A0", "read", "ns", "peer", &pairs)
                .must(Bound::AtMost(2.5))
                .goal(Bound::AtMost(1.0)),
        );
        let text = table.render();
        assert!(
            text.contains("must ≤ 2.50 met; goal ≤ 1.00 MISSED"),
            "{text}"
        );
    }
}
