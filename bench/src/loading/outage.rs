//! A system of record that stops answering under a stream of misses, and comes back (O11).
//!
//! Misses of keys that nobody has come at a fixed rate, whatever becomes of those before. While the source is down its calls hang, as
//! those to a database do that has lost its network, and who has given them up after [`PATIENCE`] gets an error. Counted are the calls in flight,
//! how long those wait who never got to call, and how many calls meet the source when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::{Args, local};
use crate::rounds::Pairs;
use crate::table::{Bound, Row, Table};

/// How long a call takes while all is well.
const TAKES: Duration = Duration::from_millis(5);
/// When a call is given up: what nearcache does by itself, and what callers of the others do.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long misses go on after the source is back: the longest that the breaker stays open, a probe of before that hangs, the ramp.
const RECOVERY: Duration = Duration::from_secs(50);
/// Time slices after the source is back.
const SLICE: Duration = Duration::from_millis(100);
const SLICES: usize = 500;

/// The system of record.
struct Source {
    started: Instant,
    is_down: AtomicBool,
    /// Calls that hang, because they came while it was down.
    hanging: AtomicUsize,
    most_hanging: AtomicUsize,
    /// Calls that will be answered.
    serving: AtomicUsize,
    calls: AtomicUsize,
    /// Longest that somebody waited, in microseconds, without that his call was made.
    waited_us: AtomicU64,
    /// When it was back and when it first answered then, in microseconds of its own clock.
    back_us: AtomicU64,
    answered_us: AtomicU64,
    /// Most calls in flight in each slice of the time since the first answer.
    since_answer: Vec<AtomicUsize>,
    /// Most calls in flight in the first second after it is back.
    herd: AtomicUsize,
}

/// A call, counted there until it ends in whatever way.
struct Call<'a>(&'a AtomicUsize);

impl<'a> Call<'a> {
    /// The call, and how many there are with it.
    fn begin(count: &'a AtomicUsize) -> (Self, usize) {
        let count_now = count.fetch_add(1, Ordering::SeqCst) + 1;
        (Self(count), count_now)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Source {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            is_down: AtomicBool::new(false),
            hanging: AtomicUsize::new(0),
            most_hanging: AtomicUsize::new(0),
            serving: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            waited_us: AtomicU64::new(0),
            back_us: AtomicU64::new(0),
            answered_us: AtomicU64::new(0),
            since_answer: (0..SLICES).map(|_| AtomicUsize::new(0)).collect(),
            herd: AtomicUsize::new(0),
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    async fn read(&self, key: u64) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.is_down.load(Ordering::SeqCst) {
            let (_call, hanging) = Call::begin(&self.hanging);
            self.most_hanging.fetch_max(hanging, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        let (_call, serving) = Call::begin(&self.serving);
        self.note(serving);
        tokio::time::sleep(TAKES).await;
        let is_back = self.back_us.load(Ordering::SeqCst) > 0;
        if is_back && self.answered_us.load(Ordering::SeqCst) == 0 {
            self.answered_us.store(self.now_us(), Ordering::SeqCst);
        }
        key
    }

    /// So many calls are being served now.
    fn note(&self, serving: usize) {
        let (back_us, now_us) = (self.back_us.load(Ordering::SeqCst), self.now_us());
        if back_us == 0 {
            return;
        }
        if now_us.saturating_sub(back_us) < 1_000_000 {
            self.herd.fetch_max(serving, Ordering::SeqCst);
        }
        let answered_us = self.answered_us.load(Ordering::SeqCst);
        let since = Duration::from_micros(now_us.saturating_sub(answered_us));
        let slice = usize::try_from(since.as_millis() / SLICE.as_millis());
        let slice = slice.ok().and_then(|at| self.since_answer.get(at));
        if let Some(slice) = slice.filter(|_| answered_us > 0) {
            slice.fetch_max(serving, Ordering::SeqCst);
        }
    }

    /// Most calls in flight between these times after the first answer.
    fn most_between(&self, from: Duration, to: Duration) -> usize {
        let slices = |time: Duration| usize::try_from(time.as_millis() / SLICE.as_millis());
        let (from, to) = (slices(from).unwrap_or(0), slices(to).unwrap_or(0));
        let range = self.since_answer.get(from..to).unwrap_or_default();
        range
            .iter()
            .map(|slice| slice.load(Ordering::SeqCst))
            .max()
            .unwrap_or(0)
    }
}

/// Who is asked.
#[derive(Clone)]
enum Side {
    Ours(super::Numbers),
    Moka(moka::future::Cache<u64, u64>),
}

impl Side {
    async fn miss(self, source: Arc<Source>, key: u64) {
        let called = Arc::new(AtomicBool::new(false));
        let load = {
            let (source, called) = (Arc::clone(&source), Arc::clone(&called));
            async move {
                called.store(true, Ordering::SeqCst);
                Ok::<u64, String>(source.read(key).await)
            }
        };
        let began = Instant::now();
        match self {
            Self::Ours(cache) => {
                let _ = cache.get_or_load(&key, move |_| load).await;
            }
            Self::Moka(cache) => {
                let _ = tokio::time::timeout(PATIENCE, cache.try_get_with(key, load)).await;
            }
        }
        if !called.load(Ordering::SeqCst) {
            let waited_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            source.waited_us.fetch_max(waited_us, Ordering::SeqCst);
        }
    }
}

pub(super) async fn measure(args: &Args, table: &mut Table) -> anyhow::Result<()> {
    if args.outage_s == 0 {
        return Ok(());
    }
    let (node, cache) = local(None).await?;
    let ours = outage(args, "nearcache", Side::Ours(cache)).await;
    node.shutdown().await;
    let peer = outage(args, "moka", Side::Moka(moka::future::Cache::new(100_000))).await;

    let figure = |pick: &dyn Fn(&Source) -> usize| {
        #[expect(clippy::cast_precision_loss, reason = "a table for people")]
        let pairs = Pairs::of(pick(&ours) as f64, pick(&peer) as f64);
        pairs
    };
    let in_flight = figure(&|source| source.most_hanging.load(Ordering::SeqCst));
    let down = format!("{} misses/s, source down {} s", args.misses, args.outage_s);
    let bound = |ours: f64, bound: f64| Pairs::of(ours, bound);
    let row =
        |what: String, unit, peer, pairs: &Pairs| Row::compared("O11", what, unit, peer, pairs);
    let what = format!("{down}: most calls in flight");
    table.push(row(what.clone(), "calls", "moka", &in_flight));
    let most = bound(in_flight.ours_median(), 64.0);
    table.push(row(what, "calls", "bound", &most).must(Bound::AtMost(1.0)));
    #[expect(clippy::cast_precision_loss, reason = "a table for people")]
    let waited_s = ours.waited_us.load(Ordering::SeqCst) as f64 / 1e6;
    // A deadline may be missed by 0.1 s (C10).
    let what = format!("{down}: longest wait of who never got to call");
    table.push(row(what, "s", "bound", &bound(waited_s, 5.1)).must(Bound::AtMost(1.0)));
    let herd = figure(&|source| source.herd.load(Ordering::SeqCst));
    let what = "it is back: most calls in flight in the first second".to_owned();
    table.push(row(what, "calls", "moka", &herd));
    let second = Duration::from_secs(1);
    for (from, to) in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 8)] {
        let most = figure(&|source| source.most_between(from * second, to * second));
        let most = most.ours_median();
        // In proportion over 5 s, from one to all 64.
        let allowed = f64::from((64 * to / 5).clamp(1, 64));
        let what = format!("{from} to {to} s after its first answer: most calls in flight");
        table.push(
            row(what, "calls", "ramp of 5 s", &bound(most, allowed)).must(Bound::AtMost(1.0)),
        );
    }
    #[expect(clippy::cast_precision_loss, reason = "a table for people")]
    let first_s = |source: &Source| {
        let back_us = source.back_us.load(Ordering::SeqCst);
        source
            .answered_us
            .load(Ordering::SeqCst)
            .saturating_sub(back_us) as f64
            / 1e6
    };
    let first = Pairs::of(first_s(&ours), first_s(&peer));
    let what = "it is back: until its first answer".to_owned();
    table.push(row(what, "s", "moka", &first));
    let calls = figure(&|source| source.calls.load(Ordering::Relaxed));
    table.push(row("calls in all".to_owned(), "calls", "moka", &calls));
    table.note("O11: once, not interleaved, one node; calls hang while the source is down, and are given up after 10 s");
    Ok(())
}

/// A second of health, an outage, and what follows.
async fn outage(args: &Args, name: &str, side: Side) -> Arc<Source> {
    let source = Arc::new(Source::new());
    let down_for = Duration::from_secs(args.outage_s);
    let second = Duration::from_secs(1);
    eprintln!(
        "  outage of {} s, {name}: takes {} s",
        args.outage_s,
        (second + down_for + RECOVERY).as_secs()
    );
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let started = Instant::now();
    let (mut key, mut is_back) = (0_u64, false);
    while started.elapsed() < second + down_for + RECOVERY {
        ticks.tick().await;
        let elapsed = started.elapsed();
        source.is_down.store(
            elapsed >= second && elapsed < second + down_for,
            Ordering::SeqCst,
        );
        if elapsed >= second + down_for && !is_back {
            is_back = true;
            source.back_us.store(source.now_us(), Ordering::SeqCst);
        }
        for _ in 0..args.misses / 1_000 {
            key += 1;
            tokio::spawn(side.clone().miss(Arc::clone(&source), key));
        }
        let answered_us = source.answered_us.load(Ordering::SeqCst);
        if answered_us > 0 && source.now_us() - answered_us > 8_500_000 {
            break;
        }
    }
    source
}
