//! `nearcache serve` against Redis over the Redis protocol: perf-A6, A7 and A8.
//!
//! Both servers hold the same 100,000 entries and get the same load from the same generator, in turn.
//! Generator and server share the machine's processors, so that the server's CPU time is the fairest
//! figure; throughput and latencies stand beside it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use anyhow::Context as _;

use crate::latency::Latencies;
use crate::redis_benchmark::{Load, Sample, key};
use crate::resp_client::Client;
use crate::rounds::{DEFAULT_ROUNDS, Rounds, interleave};
use crate::servers::{Server, free_port, redis_version};
use crate::table::{Bound, Row, Table};

/// Length of a value, in bytes.
const VALUE_BYTES: u32 = 100;

/// Different keys, all present.
const KEYS: u64 = 100_000;

/// Options of `bench resp`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pairs of interleaved rounds.
    #[arg(long, default_value_t = DEFAULT_ROUNDS)]
    rounds: usize,
    /// Commands in a round without pipelining; pipelined rounds send more.
    #[arg(long, default_value_t = 300_000)]
    requests: u64,
    /// Measure Redis against itself: shows the spread of the machine.
    #[arg(long)]
    redis_only: bool,
}

/// Measures and returns the table.
///
/// # Errors
/// When a server cannot be started or the generator fails.
pub(crate) fn run(args: &Args) -> anyhow::Result<Table> {
    let ours = if args.redis_only {
        Server::redis(&[])?
    } else {
        single_node()?
    };
    let peer = Server::redis(&[])?;
    for server in [&ours, &peer] {
        Client::connect(server.port())?.fill(KEYS, key, &[b'x'; VALUE_BYTES as usize])?;
    }
    let mut table = Table::new("resp");
    for pipeline in [1, 16, 64] {
        for command in ["get", "set"] {
            let load = Load {
                command,
                connections: 50,
                pipeline,
                requests: args.requests * if pipeline == 1 { 1 } else { 5 },
                keys: KEYS,
                value_bytes: VALUE_BYTES,
            };
            let name = format!("{command}, {pipeline} pipelined");
            let rounds = interleave(&name, args.rounds, || load.run(&ours), || load.run(&peer))?;
            add_rows(&mut table, &name, pipeline, &rounds);
        }
    }
    let rounds = interleave(
        "round trip",
        args.rounds,
        || round_trip_us(ours.port()),
        || round_trip_us(peer.port()),
    )?;
    let pairs = rounds.pairs(|us| *us);
    let row = Row::compared(
        "perf-A8",
        "get round trip, 1 connection, p50",
        "µs",
        "redis",
        &pairs,
    );
    table.push(row.goal(Bound::AtMost(1.0)));

    table.note(format!(
        "{}; 50 connections by redis-benchmark on the same processors, {KEYS} keys, {VALUE_BYTES} byte values",
        redis_version()
    ));
    table.note(format!(
        "bare TCP ping-pong on loopback, p50: {:.1} µs",
        ping_pong_us()?
    ));
    Ok(table)
}

fn add_rows(table: &mut Table, name: &str, pipeline: u32, rounds: &Rounds<Sample>) {
    let unpipelined = pipeline == 1;
    let id = if unpipelined { "perf-A6" } else { "perf-A7" };
    let row = |what: &str, unit: &str, pick: fn(&Sample) -> f64| {
        Row::compared(
            id,
            format!("{name}: {what}"),
            unit,
            "redis",
            &rounds.pairs(pick),
        )
    };
    let (cpu, throughput) = if unpipelined { (0.85, 1.2) } else { (0.6, 1.5) };
    let cpu_row = row("server CPU", "s/M ops", |sample| sample.cpu_s_per_million);
    table.push(cpu_row.goal(Bound::AtMost(cpu)));
    let throughput_row = row("throughput", "ops/s", |sample| sample.per_second);
    table.push(throughput_row.goal(Bound::AtLeast(throughput)));
    table.push(row("p50", "ms", |sample| sample.p50_ms));
    let p99 = row("p99", "ms", |sample| sample.p99_ms);
    table.push(if unpipelined {
        p99.goal(Bound::AtMost(1.0))
    } else {
        p99
    });
}

/// One node without peers, on free ports.
///
/// # Errors
/// When the server is not built or does not answer.
pub(crate) fn single_node() -> anyhow::Result<Server> {
    let port = free_port()?;
    let toml = format!(
        "[node]\nname = \"bench\"\n[peers]\nlisten = \"127.0.0.1:0\"\n\
         [resp]\nlisten = \"127.0.0.1:{port}\"\n[http]\nenabled = false\n\
         [caches.default]\nmode = \"local\"\nmax_bytes = \"1GiB\"\n"
    );
    Server::nearcache(port, &toml)
}

/// Round trips in one measurement of a latency.
const ROUND_TRIPS: u64 = 20_000;

/// Median round trip of a GET on one connection, in microseconds.
fn round_trip_us(port: u16) -> anyhow::Result<f64> {
    let mut client = Client::connect(port)?;
    median_us(|i| client.expect_ok(&[b"GET", &key(i * 7919 % KEYS)]).map(drop))
}

/// Median round trip of as many bytes between two threads of this process: the limit.
fn ping_pong_us() -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let echo = std::thread::spawn(move || {
        let mut request = [0; 36];
        while server.read_exact(&mut request).is_ok() && server.write_all(&[0; 108]).is_ok() {}
    });
    let mut reply = [0; 108];
    let median = median_us(|_| {
        client.write_all(&[0; 36])?;
        client.read_exact(&mut reply).context("reading the echo")
    });
    drop(client);
    let _ = echo.join();
    median
}

fn median_us(mut once: impl FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut latencies = Latencies::new()?;
    for i in 0..ROUND_TRIPS {
        let started = Instant::now();
        once(i)?;
        latencies.record(started.elapsed())?;
    }
    Ok(latencies.quantile_us(0.5))
}
