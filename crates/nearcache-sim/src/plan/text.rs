//! A plan as text, one thing a line: what a failing run prints, and what is kept as a regression test.
//!
//! ```text
//! plan 1
//! seed 42
//! mode replicated
//! ...
//! fault 3200 cut groups until 4000 0>1 1>0
//! op 1000 2 put 3 ttl 500 tags 0,2 ack local shape plain
//! ```
//!
//! Times are milliseconds of the run, unless a name says otherwise. Lines that begin with `#` say where a plan comes from.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use nearcache_protocol::announce::{ModeKind, SplitPolicy};
use nearcache_protocol::config::OnDisconnect;
use nearcache_protocol::mode::Ack;
use nearcache_protocol::time::Time;

use crate::long::Long;

use super::{After, Chaos, Cut, Fault, Garbage, Operation, Plan, Rest, Shape, Tail, Weather};

/// Version of the format.
const FORMAT: u32 = 1;

/// Words for the variants of a type, both ways.
macro_rules! words {
    ($($type:ty { $($variant:ident = $word:literal),* $(,)? })*) => { $(
        impl Word for $type {
            fn word(&self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            fn of(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    )* };
}

trait Word: Sized {
    fn word(&self) -> &'static str;
    fn of(word: &str) -> Option<Self>;
}

words! {
    ModeKind { Local = "local", Replicated = "replicated", Invalidation = "invalidation" }
    SplitPolicy { Serve = "serve", ReadOnly = "read-only", Flush = "flush" }
    Cut { Groups = "groups", OneWay = "one-way", Mesh = "mesh", Bridge = "bridge", Swizzle = "swizzle" }
    Garbage { TooLong = "too-long", Version = "version", Kind = "kind", Short = "short", Random = "random" }
    Shape { Plain = "plain", Empty = "empty", Binary = "binary", Long = "long" }
    Rest {
        Dead = "dead", Hung = "hung", CutOff = "cut-off", Mute = "mute", Deaf = "deaf", Bridged = "bridged", Dozing = "dozing",
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "plan {FORMAT}\nseed {}\nmode {}",
            self.seed,
            self.mode.word()
        )?;
        writeln!(f, "split {}\nnodes {}", self.split.word(), self.nodes)?;
        match self.on_disconnect {
            OnDisconnect::Bypass => {}
            OnDisconnect::Flush => writeln!(f, "on_disconnect flush")?,
            OnDisconnect::ServeStale { max } => {
                writeln!(f, "on_disconnect serve-stale {}", max.as_millis())?;
            }
        }
        writeln!(f, "mesh_max {}\nloads {}", self.mesh_max, self.loads)?;
        writeln!(f, "mesh_grace_ms {}", self.mesh_grace.as_millis())?;
        writeln!(f, "clock_offset_ms {}", list(&self.clock_offset_ms))?;
        writeln!(f, "clock_ppm {}", list(&self.clock_ppm))?;
        writeln!(f, "replay_updates_max {}", self.replay_updates_max)?;
        writeln!(f, "transfer_chunk_bytes {}", self.transfer_chunk_bytes)?;
        writeln!(f, "checks {}", self.checks)?;
        writeln!(f, "tombstone_ttl_ms {}", self.tombstone_ttl_ms)?;
        writeln!(
            f,
            "store_bytes {}\nvalue_bytes {}",
            self.store_bytes, self.value_bytes
        )?;
        let (min, max) = (self.weather.delay_min, self.weather.delay_max);
        writeln!(f, "delay_us {},{}", min.as_micros(), max.as_micros())?;
        writeln!(f, "window {}", self.weather.window)?;
        if let Some(chaos) = self.weather.chaos {
            writeln!(
                f,
                "chaos {},{},{}",
                chaos.loss, chaos.duplicate, chaos.reorder
            )?;
        }
        if let Some(tail) = self.weather.tail {
            writeln!(f, "tail {} {}", tail.share, tail.most.as_millis())?;
        }
        if self.weather.membership_astray {
            writeln!(f, "membership_astray true")?;
        }
        if let Some(long) = &self.long {
            let (inline, most) = (long.inline_limit, long.bytes_max);
            let (rate, room) = (long.bytes_per_second, long.room_bytes);
            writeln!(f, "long {inline} {most} {rate} {room}")?;
        }
        for (at, fault) in &self.faults {
            write!(f, "fault {} ", at.as_millis())?;
            put_fault(f, fault)?;
        }
        for (at, node, operation) in &self.operations {
            write!(f, "op {} {node} ", at.as_millis())?;
            put_operation(f, operation)?;
        }
        for (host, at) in &self.late {
            writeln!(f, "late {host} {}", at.as_millis())?;
        }
        if let Some(at) = self.rolling_from {
            writeln!(f, "rolling_from {}", at.as_millis())?;
        }
        writeln!(f, "heal {}", self.heal.as_millis())?;
        match &self.after {
            After::Whole => writeln!(f, "after whole"),
            After::Mesh(a, b) => writeln!(f, "after mesh {a} {b}"),
            After::Core(outside) => {
                write!(f, "after core")?;
                for (node, how) in outside {
                    write!(f, " {node} {}", how.word())?;
                }
                writeln!(f)
            }
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() {
        "-".to_owned()
    } else {
        items.join(",")
    }
}

fn put_fault(f: &mut fmt::Formatter<'_>, fault: &Fault) -> fmt::Result {
    match fault {
        Fault::Cut {
            shape,
            links,
            until,
        } => {
            write!(f, "cut {} until {}", shape.word(), until.as_millis())?;
            for (from, to) in links {
                write!(f, " {from}>{to}")?;
            }
            writeln!(f)
        }
        Fault::Crash {
            node,
            silent,
            restart,
            clock_offset_ms,
        } => {
            let restart = restart.map_or("never".to_owned(), |at| at.as_millis().to_string());
            writeln!(
                f,
                "crash {node} silent {silent} restart {restart} offset {clock_offset_ms}"
            )
        }
        Fault::Pause { node, until } => writeln!(f, "pause {node} until {}", until.as_millis()),
        Fault::Doze {
            node,
            run,
            pause,
            until,
        } => {
            let (run, pause) = (run.as_millis(), pause.as_millis());
            writeln!(
                f,
                "doze {node} run {run} pause {pause} until {}",
                until.as_millis()
            )
        }
        Fault::Slow { node, delay, until } => {
            writeln!(
                f,
                "slow {node} delay {} until {}",
                delay.as_millis(),
                until.as_millis()
            )
        }
        Fault::Lag {
            from,
            to,
            delay,
            until,
        } => {
            let (delay, until) = (delay.as_millis(), until.as_millis());
            writeln!(f, "lag {from} {to} delay {delay} until {until}")
        }
        Fault::Narrow {
            node,
            bytes_per_second,
            until,
        } => {
            let until = until.as_millis();
            writeln!(f, "narrow {node} to {bytes_per_second} until {until}")
        }
        Fault::Leave { node, down } => writeln!(f, "leave {node} down {}", down.as_millis()),
        Fault::ClockAhead { node } => writeln!(f, "clock-ahead {node}"),
        Fault::Diverge { node, key, remove } => {
            writeln!(f, "diverge {node} key {key} remove {remove}")
        }
        Fault::Reset { a, b } => writeln!(f, "reset {a} {b}"),
        Fault::Garble { from, to, how } => writeln!(f, "garble {from} {to} {}", how.word()),
    }
}

fn ack_word(ack: Ack) -> String {
    match ack {
        Ack::Local => "local".to_owned(),
        Ack::Peers(n) => n.to_string(),
        Ack::All => "all".to_owned(),
    }
}

fn put_operation(f: &mut fmt::Formatter<'_>, operation: &Operation) -> fmt::Result {
    match operation {
        Operation::Put {
            key,
            ttl_ms,
            tags,
            ack,
            shape,
        } => {
            let ttl = ttl_ms.map_or("never".to_owned(), |ttl| ttl.to_string());
            let (tags, ack) = (list(tags), ack_word(*ack));
            writeln!(
                f,
                "put {key} ttl {ttl} tags {tags} ack {ack} shape {}",
                shape.word()
            )
        }
        Operation::Remove { key, ack } => writeln!(f, "remove {key} ack {}", ack_word(*ack)),
        Operation::Touch { key, ttl_ms } => writeln!(f, "touch {key} ttl {ttl_ms}"),
        Operation::InvalidateTag(tag) => writeln!(f, "invalidate-tag {tag}"),
        Operation::InvalidatePrefix(prefix) => writeln!(f, "invalidate-prefix {prefix}"),
        Operation::Clear => writeln!(f, "clear"),
        Operation::SetAbsent { key } => writeln!(f, "set-absent {key}"),
        Operation::Find { key } => writeln!(f, "find {key}"),
        Operation::Add { key, delta } => writeln!(f, "add {key} delta {delta}"),
        Operation::Take { key } => writeln!(f, "take {key}"),
    }
}

/// The words of one line.
struct Line<'a> {
    number: usize,
    words: std::str::SplitWhitespace<'a>,
}

type Read<T> = Result<T, String>;

impl<'a> Line<'a> {
    fn wrong(&self, what: &str) -> String {
        format!("line {}: {what}", self.number)
    }

    fn next(&mut self) -> Read<&'a str> {
        self.words
            .next()
            .ok_or_else(|| self.wrong("ends too early"))
    }

    fn value<T: FromStr>(&mut self) -> Read<T> {
        let word = self.next()?;
        word.parse()
            .map_err(|_| self.wrong(&format!("cannot read {word:?}")))
    }

    fn word<T: Word>(&mut self) -> Read<T> {
        let word = self.next()?;
        T::of(word).ok_or_else(|| self.wrong(&format!("no such word: {word:?}")))
    }

    /// The word `name`, then a value.
    fn named<T: FromStr>(&mut self, name: &str) -> Read<T> {
        self.name(name)?;
        self.value()
    }

    fn name(&mut self, name: &str) -> Read<()> {
        let word = self.next()?;
        if word == name {
            Ok(())
        } else {
            Err(self.wrong(&format!("{name:?} is due, not {word:?}")))
        }
    }

    fn time(&mut self) -> Read<Time> {
        Ok(Time::from_millis(self.value()?))
    }

    fn until(&mut self) -> Read<Time> {
        self.name("until")?;
        self.time()
    }

    /// Nothing if the word is `never`.
    fn or_never<T: FromStr>(&mut self) -> Read<Option<T>> {
        if self.words.clone().next() == Some("never") {
            self.next()?;
            return Ok(None);
        }
        self.value().map(Some)
    }

    fn list<T: FromStr>(&mut self) -> Read<Vec<T>> {
        let word = self.next()?;
        if word == "-" {
            return Ok(Vec::new());
        }
        let items = word.split(',').map(str::parse);
        items
            .collect::<Result<_, _>>()
            .map_err(|_| self.wrong(&format!("cannot read {word:?}")))
    }

    fn millis(&mut self, name: &str) -> Read<Duration> {
        self.named(name).map(Duration::from_millis)
    }

    fn ack(&mut self) -> Read<Ack> {
        self.name("ack")?;
        match self.words.clone().next() {
            Some("local") => self.next().map(|_| Ack::Local),
            Some("all") => self.next().map(|_| Ack::All),
            _ => self.value().map(Ack::Peers),
        }
    }

    fn fault(&mut self) -> Read<Fault> {
        Ok(match self.next()? {
            "cut" => {
                let (shape, until, mut links) = (self.word()?, self.until()?, Vec::new());
                for word in self.words.by_ref() {
                    let link = word.split_once('>');
                    let link =
                        link.and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
                    links.push(
                        link.ok_or_else(|| format!("line {}: no link: {word:?}", self.number))?,
                    );
                }
                Fault::Cut {
                    shape,
                    links,
                    until,
                }
            }
            "crash" => {
                let (node, silent) = (self.value()?, self.named("silent")?);
                self.name("restart")?;
                let restart = self.or_never()?.map(Time::from_millis);
                Fault::Crash {
                    node,
                    silent,
                    restart,
                    clock_offset_ms: self.named("offset")?,
                }
            }
            "pause" => Fault::Pause {
                node: self.value()?,
                until: self.until()?,
            },
            "doze" => Fault::Doze {
                node: self.value()?,
                run: self.millis("run")?,
                pause: self.millis("pause")?,
                until: self.until()?,
            },
            "slow" => Fault::Slow {
                node: self.value()?,
                delay: self.millis("delay")?,
                until: self.until()?,
            },
            "lag" => Fault::Lag {
                from: self.value()?,
                to: self.value()?,
                delay: self.millis("delay")?,
                until: self.until()?,
            },
            "narrow" => Fault::Narrow {
                node: self.value()?,
                bytes_per_second: self.named("to")?,
                until: self.until()?,
            },
            "leave" => Fault::Leave {
                node: self.value()?,
                down: self.millis("down")?,
            },
            "clock-ahead" => Fault::ClockAhead {
                node: self.value()?,
            },
            "diverge" => Fault::Diverge {
                node: self.value()?,
                key: self.named("key")?,
                remove: self.named("remove")?,
            },
            "reset" => Fault::Reset {
                a: self.value()?,
                b: self.value()?,
            },
            "garble" => Fault::Garble {
                from: self.value()?,
                to: self.value()?,
                how: self.word()?,
            },
            other => return Err(self.wrong(&format!("no fault: {other:?}"))),
        })
    }

    fn operation(&mut self) -> Read<Operation> {
        Ok(match self.next()? {
            "put" => {
                let key = self.value()?;
                self.name("ttl")?;
                let ttl_ms = self.or_never()?;
                self.name("tags")?;
                let (tags, ack) = (self.list()?, self.ack()?);
                self.name("shape")?;
                Operation::Put {
                    key,
                    ttl_ms,
                    tags,
                    ack,
                    shape: self.word()?,
                }
            }
            "remove" => Operation::Remove {
                key: self.value()?,
                ack: self.ack()?,
            },
            "touch" => Operation::Touch {
                key: self.value()?,
                ttl_ms: self.named("ttl")?,
            },
            "invalidate-tag" => Operation::InvalidateTag(self.value()?),
            "invalidate-prefix" => Operation::InvalidatePrefix(self.value()?),
            "clear" => Operation::Clear,
            "set-absent" => Operation::SetAbsent { key: self.value()? },
            "find" => Operation::Find { key: self.value()? },
            "add" => Operation::Add {
                key: self.value()?,
                delta: self.named("delta")?,
            },
            "take" => Operation::Take { key: self.value()? },
            other => return Err(self.wrong(&format!("no operation: {other:?}"))),
        })
    }

    fn on_disconnect(&mut self) -> Read<OnDisconnect> {
        Ok(match self.next()? {
            "bypass" => OnDisconnect::Bypass,
            "flush" => OnDisconnect::Flush,
            "serve-stale" => OnDisconnect::ServeStale {
                max: Duration::from_millis(self.value()?),
            },
            other => return Err(self.wrong(&format!("copies cannot {other:?}"))),
        })
    }

    fn after(&mut self) -> Read<After> {
        Ok(match self.next()? {
            "whole" => After::Whole,
            "mesh" => After::Mesh(self.value()?, self.value()?),
            "core" => {
                let mut outside = Vec::new();
                while self.words.clone().next().is_some() {
                    outside.push((self.value()?, self.word()?));
                }
                After::Core(outside)
            }
            other => return Err(self.wrong(&format!("nothing that lasts: {other:?}"))),
        })
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Read<Self> {
        let mut plan = Self::draw(0, ModeKind::Replicated, false);
        (plan.operations, plan.faults, plan.weather.chaos) = (Vec::new(), Vec::new(), None);
        (plan.rolling_from, plan.long, plan.late) = (None, None, Vec::new());
        (plan.weather.tail, plan.weather.membership_astray) = (None, false);
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let mut line = Line {
                number: index + 1,
                words: line.split_whitespace(),
            };
            let line = &mut line;
            match line.next()? {
                "plan" if line.value::<u32>()? == FORMAT => {}
                "plan" => return Err(line.wrong("another version of the format")),
                "seed" => plan.seed = line.value()?,
                "mode" => plan.mode = line.word()?,
                "split" => plan.split = line.word()?,
                "on_disconnect" => plan.on_disconnect = line.on_disconnect()?,
                "nodes" => plan.nodes = line.value()?,
                "mesh_max" => plan.mesh_max = line.value()?,
                "mesh_grace_ms" => plan.mesh_grace = Duration::from_millis(line.value()?),
                "clock_offset_ms" => plan.clock_offset_ms = line.list()?,
                "clock_ppm" => plan.clock_ppm = line.list()?,
                "replay_updates_max" => plan.replay_updates_max = line.value()?,
                "transfer_chunk_bytes" => plan.transfer_chunk_bytes = line.value()?,
                "checks" => plan.checks = line.value()?,
                "tombstone_ttl_ms" => plan.tombstone_ttl_ms = line.value()?,
                "store_bytes" => plan.store_bytes = line.value()?,
                "value_bytes" => plan.value_bytes = line.value()?,
                "delay_us" => {
                    let [min, max] = line.list()?[..] else {
                        return Err(line.wrong("two delays are due"));
                    };
                    let (delay_min, delay_max) =
                        (Duration::from_micros(min), Duration::from_micros(max));
                    plan.weather = Weather {
                        delay_min,
                        delay_max,
                        ..plan.weather
                    };
                }
                "window" => plan.weather.window = line.value()?,
                "chaos" => {
                    let [loss, duplicate, reorder] = line.list()?[..] else {
                        return Err(line.wrong("three probabilities are due"));
                    };
                    plan.weather.chaos = Some(Chaos {
                        loss,
                        duplicate,
                        reorder,
                    });
                }
                "tail" => {
                    plan.weather.tail = Some(Tail {
                        share: line.value()?,
                        most: Duration::from_millis(line.value()?),
                    });
                }
                "membership_astray" => plan.weather.membership_astray = line.value()?,
                "fault" => plan.faults.push((line.time()?, line.fault()?)),
                "op" => plan
                    .operations
                    .push((line.time()?, line.value()?, line.operation()?)),
                "long" => {
                    plan.long = Some(Long {
                        inline_limit: line.value()?,
                        bytes_max: line.value()?,
                        bytes_per_second: line.value()?,
                        room_bytes: line.value()?,
                    });
                }
                "loads" => plan.loads = line.value()?,
                "late" => plan.late.push((line.value()?, line.time()?)),
                "rolling_from" => plan.rolling_from = Some(line.time()?),
                "heal" => plan.heal = line.time()?,
                "after" => plan.after = line.after()?,
                other => return Err(line.wrong(&format!("no such thing: {other:?}"))),
            }
            if line.words.next().is_some() {
                return Err(line.wrong("goes on too long"));
            }
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_is_read_as_it_was_written() {
        for mode in [ModeKind::Replicated, ModeKind::Invalidation] {
            for seed in 0..300 {
                for full in [false, true] {
                    for plan in [
                        Plan::draw(seed, mode, full),
                        Plan::draw_tree(seed, mode, full),
                    ] {
                        assert_eq!(plan.to_string().parse(), Ok(plan), "seed {seed}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_plan_is_refused_with_its_line() {
        for (text, expected) in [
            ("plan 2", "line 1: another version"),
            ("plan 1\nseed x", "line 2: cannot read"),
            ("# from somewhere\nfault 1 crush 2", "line 2: no fault"),
            ("nodes 3 4", "line 1: goes on too long"),
        ] {
            let read: Result<Plan, String> = text.parse();
            assert!(
                read.clone().is_err_and(|why| why.starts_with(expected)),
                "{read:?}"
            );
        }
    }
}
