//! Load by `redis-benchmark`, the generator that comes with Redis: the same for both servers.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::servers::Server;

/// One load: what is asked, by how many connections, how deeply pipelined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// `get` or `set`.
    pub(crate) command: &'static str,
    /// Connections at a time.
    pub(crate) connections: u32,
    /// Commands each sends before it waits for the replies.
    pub(crate) pipeline: u32,
    /// Commands in all.
    pub(crate) requests: u64,
    /// Different keys.
    pub(crate) keys: u64,
    /// Length of a value, in bytes.
    pub(crate) value_bytes: u32,
}

/// What one load cost and got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// CPU seconds of the server for a million commands.
    pub(crate) cpu_s_per_million: f64,
    /// Commands per second.
    pub(crate) per_second: f64,
    /// Median latency of a command, in milliseconds.
    pub(crate) p50_ms: f64,
    /// Latency that 99 of 100 commands stay below, in milliseconds.
    pub(crate) p99_ms: f64,
}

/// The key `redis-benchmark` uses for the number `i`.
pub(crate) fn key(i: u64) -> Vec<u8> {
    format!("key:{i:012}").into_bytes()
}

impl Load {
    /// Puts the load on `server` and measures.
    ///
    /// # Errors
    /// When `redis-benchmark` is not there or reports errors of the server.
    pub(crate) fn run(&self, server: &Server) -> anyhow::Result<Sample> {
        let before = server.cpu()?;
        let output = Command::new("redis-benchmark")
            .args(["-h", "127.0.0.1", "-p", &server.port().to_string(), "--csv"])
            .args(["-t", self.command, "-c", &self.connections.to_string()])
            .args([
                "-n",
                &self.requests.to_string(),
                "-P",
                &self.pipeline.to_string(),
            ])
            .args([
                "-r",
                &self.keys.to_string(),
                "-d",
                &self.value_bytes.to_string(),
            ])
            .output()
            .context("starting redis-benchmark")?;
        let used = server.cpu()?.saturating_sub(before);
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "redis-benchmark failed: {text}{errors}"
        );
        let figures = parse(&text, self.command)
            .with_context(|| format!("redis-benchmark printed {text:?} {errors:?}"))?;
        Ok(Sample {
            cpu_s_per_million: cpu_per_million(used, self.requests),
            ..figures
        })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of requests are far below 2^52"
)]
fn cpu_per_million(used: Duration, requests: u64) -> f64 {
    used.as_secs_f64() * 1e6 / requests as f64
}

/// Reads the line of `command`: `"GET","81000.00","0.3","0.1","0.3","0.5","0.8","1.2"`, whose columns
/// are name, rate, then average, minimum, p50, p95, p99 and maximum in milliseconds.
fn parse(csv: &str, command: &str) -> Option<Sample> {
    let name = command.to_ascii_uppercase();
    let line = csv
        .lines()
        .find(|line| line.starts_with(&format!("\"{name}\",")))?;
    let columns: Vec<&str> = line
        .split(',')
        .map(|column| column.trim_matches('"'))
        .collect();
    let figure = |index: usize| columns.get(index)?.parse::<f64>().ok();
    Some(Sample {
        cpu_s_per_million: f64::NAN,
        per_second: figure(1)?,
        p50_ms: figure(4)?,
        p99_ms: figure(6)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_command_is_read() -> anyhow::Result<()> {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
                   \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                   \"GET\",\"81000.50\",\"0.300\",\"0.100\",\"0.311\",\"0.500\",\"0.799\",\"1.2\"\n";
        let sample = parse(csv, "get").context("the line was not found")?;
        assert_eq!(
            (sample.per_second, sample.p50_ms, sample.p99_ms),
            (81000.5, 0.311, 0.799)
        );
        assert!(parse(csv, "set").is_none());
        Ok(())
    }
}
