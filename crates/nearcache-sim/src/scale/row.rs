//! What came of one size: figures with names, lines of a table, JSON.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use super::Scale;
use crate::meter::Kind;

/// What came of one size.
#[derive(Debug, Clone)]
pub struct Row {
    pub(super) scale: Scale,
    /// When everybody knew everybody.
    pub(super) settled: Duration,
    /// How much later sessions were as they stay.
    pub(super) calm: Duration,
    /// Idle, under load, under load while nodes fail.
    pub(super) phases: [Phase; 3],
    /// The worst freshness of any node at the end of the load without faults.
    pub(super) freshness: Option<Duration>,
    /// How long after the faults all nodes held the same; nothing if they did not in time.
    pub(super) healed: Option<Duration>,
}

/// One phase.
#[derive(Debug, Clone, Default)]
pub(super) struct Phase {
    /// Sessions of a node, mean and most.
    pub(super) links: (f64, usize),
    /// Sessions opened, per node and second.
    pub(super) sessions: f64,
    /// Short-lived connections opened, per node and second.
    pub(super) connections: f64,
    /// What was sent, by what it is for.
    pub(super) sent: [Cost; 4],
    /// Updates handed on, per node and update; only what goes along the tree is counted.
    pub(super) relayed: f64,
    /// Updates sent again because they were asked for, per node and update.
    pub(super) replayed: f64,
    pub(super) delays: [Duration; 3],
    pub(super) hops: [u8; 3],
    /// Of all pairs of an update and another node, those that were there half a second after the phase.
    pub(super) reached: f64,
}

/// Messages and bytes of one kind that a node sends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Per second.
    pub(super) messages: f64,
    pub(super) bytes: f64,
    /// Per update of the whole cluster.
    pub(super) messages_per_update: f64,
    pub(super) bytes_per_update: f64,
}

impl Phase {
    const NAMES: [&str; 3] = ["idle", "load", "faults"];

    fn per_second(&self, of: impl Fn(&Cost) -> f64) -> f64 {
        self.sent.iter().map(of).sum()
    }

    /// All of it in one line, for who waits.
    pub(super) fn in_short(&self, name: &str) -> String {
        let (messages, bytes) = (|cost: &Cost| cost.messages, |cost: &Cost| cost.bytes);
        format!(
            "{name}: {:.1} sessions, {:.0} messages/s and {:.0} bytes/s of a node",
            self.links.0,
            self.per_second(messages),
            self.per_second(bytes)
        )
    }

    /// Its figures, each with its name and unit.
    fn figures(&self) -> Vec<(String, f64)> {
        let ms = |delay: Duration| delay.as_secs_f64() * 1e3;
        let mut figures = vec![
            ("links mean".to_owned(), self.links.0),
            ("links most".to_owned(), self.links.1 as f64),
            ("sessions opened per s".to_owned(), self.sessions),
            (
                "short-lived connections opened per s".to_owned(),
                self.connections,
            ),
            (
                "messages per s".to_owned(),
                self.per_second(|cost| cost.messages),
            ),
            ("bytes per s".to_owned(), self.per_second(|cost| cost.bytes)),
            ("visibility p50 ms".to_owned(), ms(self.delays[0])),
            ("visibility p99 ms".to_owned(), ms(self.delays[1])),
            ("visibility max ms".to_owned(), ms(self.delays[2])),
            ("hops p50".to_owned(), f64::from(self.hops[0])),
            ("hops p99".to_owned(), f64::from(self.hops[1])),
            ("hops max".to_owned(), f64::from(self.hops[2])),
            ("relayed per update".to_owned(), self.relayed),
            ("replayed per update".to_owned(), self.replayed),
            ("reached".to_owned(), self.reached),
        ];
        for kind in Kind::ALL {
            let (name, cost) = (kind.name(), self.sent[kind as usize]);
            figures.extend([
                (format!("{name} messages per s"), cost.messages),
                (format!("{name} bytes per s"), cost.bytes),
                (
                    format!("{name} messages per update"),
                    cost.messages_per_update,
                ),
                (format!("{name} bytes per update"), cost.bytes_per_update),
            ]);
        }
        figures
    }
}

impl Row {
    /// The columns of [`Display`](fmt::Display), as the head of a table in Markdown.
    pub const HEAD: &str = "\
| nodes | links mean, max | messages, bytes per s | payload | control | repair | membership | p50, p99, max ms | hops p50, p99, max |
|---|---|---|---|---|---|---|---|---|";

    /// How many nodes.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.scale.nodes
    }

    /// Whether every node is connected to every other.
    pub(super) const fn is_mesh(&self) -> bool {
        self.scale.nodes <= self.scale.mesh_max
    }

    /// Its figures, by names such as `idle: messages per s`. Per node where nothing else is said.
    #[must_use]
    pub fn figures(&self) -> Vec<(String, f64)> {
        let seconds = |time: Option<Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64());
        let mut figures = vec![
            ("together after s".to_owned(), seconds(Some(self.settled))),
            (
                "links calm after s more".to_owned(),
                seconds(Some(self.calm)),
            ),
            ("worst freshness s".to_owned(), seconds(self.freshness)),
            ("equal after s".to_owned(), seconds(self.healed)),
        ];
        for (phase, name) in self.phases.iter().zip(Phase::NAMES) {
            let of_phase = phase.figures().into_iter();
            figures.extend(of_phase.map(|(what, figure)| (format!("{name}: {what}"), figure)));
        }
        figures
    }

    /// One of them; not a number if there is none of this name.
    #[must_use]
    pub fn figure(&self, name: &str) -> f64 {
        let figures = self.figures().into_iter();
        let mut named = figures.filter(|(what, _)| what == name);
        named.next().map_or(f64::NAN, |(_, figure)| figure)
    }
}

/// The rows as a JSON document: an object with the nodes and the named figures for each.
#[must_use]
pub fn to_json(rows: &[Row]) -> String {
    let mut text = "{\n  \"name\": \"scale\",\n  \"rows\": [".to_owned();
    for (n, row) in rows.iter().enumerate() {
        let comma = if n > 0 { "," } else { "" };
        let _ = write!(text, "{comma}\n    {{\n      \"nodes\": {}", row.nodes());
        for (name, figure) in row.figures() {
            // No name needs to be escaped. What there is no figure for is null.
            let _ = match figure.is_finite() {
                true => write!(text, ",\n      \"{name}\": {figure}"),
                false => write!(text, ",\n      \"{name}\": null"),
            };
        }
        text.push_str("\n    }");
    }
    text.push_str("\n  ]\n}\n");
    text
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.is_mesh() { "mesh" } else { "tree" };
        let nodes = self.scale.nodes;
        for (phase, what) in self.phases.iter().zip(Phase::NAMES) {
            let idle = what == "idle";
            let per = |kind: Kind| {
                let cost = phase.sent[kind as usize];
                if idle {
                    return "".to_owned();
                }
                format!(
                    "{:.2} msg, {:.0} B",
                    cost.messages_per_update, cost.bytes_per_update
                )
            };
            let (delays, hops) = if idle {
                (String::new(), String::new())
            } else {
                let ms = phase
                    .delays
                    .map(|delay| format!("{:.1}", delay.as_secs_f64() * 1e3));
                (
                    ms.join(", "),
                    phase.hops.map(|hops| hops.to_string()).join(", "),
                )
            };
            writeln!(
                f,
                "| {nodes} {name}, {what} | {:.1}, {} | {:.0}, {:.0} | {} | {} | {} | {} | {delays} | {hops} |",
                phase.links.0,
                phase.links.1,
                phase.per_second(|cost| cost.messages),
                phase.per_second(|cost| cost.bytes),
                per(Kind::Payload),
                per(Kind::Control),
                per(Kind::Repair),
                per(Kind::Membership),
            )?;
        }
        let [_, load, faults] = &self.phases;
        let healed = self.healed.map_or("NOT EQUAL".to_owned(), |after| {
            format!("equal {after:?} later")
        });
        let freshness = self.freshness.map_or("unknown".to_owned(), |age| {
            format!("{:.1} s", age.as_secs_f64())
        });
        write!(
            f,
            "<!-- {nodes} {name}, {} s of each phase: together after {:?}, links calm {:?} later; worst freshness {freshness}; reached {:.4} under load, \
             {:.4} with faults, {healed}; asked for again {:.4} and {:.4} of each update; with faults {:.2} sessions and {:.2} short-lived connections \
             opened per node and s -->",
            self.scale.seconds,
            self.settled,
            self.calm,
            load.reached,
            faults.reached,
            load.replayed,
            faults.replayed,
            faults.sessions,
            faults.connections,
        )
    }
}
