//! The command line: what can be asked of the binary, and who answers.
//!
//! Every mistake in it ends in one line on standard error and exit code 2.

mod certs;
mod check;
mod client;
mod serve;
mod shutdown;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub(crate) use shutdown::StopSignals;

use crate::dev::{self, DevArgs};
use crate::failure::{EXIT_MISUSE, Failure};

/// A cache inside every instance of a service, kept in sync among them.
///
/// Without a command, `nearcache` starts a cluster to try: three nodes in this process, with a short
/// tour. With `serve` it runs one node for services to use.
#[derive(Debug, Parser)]
#[command(
    name = "nearcache",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  nearcache                                     three nodes and a tour
  nearcache serve --config nearcache.toml       one node, as configured
  nearcache check --config nearcache.toml       what is wrong with a configuration, and where
  nearcache certs --cluster shop node-1 node-2  certificates for peers beyond this machine
  nearcache put greeting hello --ttl 1m         write through node 1 ...
  nearcache get greeting --url http://127.0.0.1:8002   ... and read from node 2
  nearcache audit --for 10s                     how soon writes reach the other nodes
  nearcache inspect greeting                    what every node has of a key"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    dev: DevArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster to try, in this process, with a short tour [the default]
    Dev(DevArgs),
    /// Run one node
    ///
    /// Settings come from the file, then NEARCACHE_* variables, then flags; the later wins. Stops on
    /// SIGTERM or Ctrl-C: lets requests finish, leaves the cluster, exits with 0.
    Serve(ServeArgs),
    /// Say what is wrong with a configuration, with line and column
    ///
    /// Judges the file together with NEARCACHE_* variables and flags, as `serve` would, and starts
    /// nothing. Exit code 0 if `serve` would start, 2 if not.
    Check(ConfigArgs),
    /// Make certificates and a cluster secret to try mutual TLS among peers with
    ///
    /// Makes an authority, a secret, and for each node a certificate and its key, with permissions that
    /// keep what is secret to its owner, and prints what to do next. Run again for more nodes: what is
    /// there is used and not replaced.
    Certs(certs::CertsArgs),
    /// Read an entry: its value to standard output, its time to live to standard error
    ///
    /// Exit code 1 if there is none.
    Get(client::GetArgs),
    /// Write an entry
    Put(client::PutArgs),
    /// Remove an entry on every node
    ///
    /// Exit code 1 if the node that was asked had none; the removal goes out all the same.
    Del(client::DelArgs),
    /// Show a node and its caches
    Info(client::InfoArgs),
    /// Show the members of the cluster, as one node sees them
    Members(client::MembersArgs),
    /// Tell how surely and how soon writes reach the other nodes
    ///
    /// A node writes probes, which no client sees, and asks the others for them 1, 5 and 60 s later: what it
    /// told the asked node is shown per other node, with the time until each was known to have it. Times are
    /// of the writer's clock, the way back included, so that nothing is told better than it was. For each probe up
    /// to 16 nodes are asked in turn, beyond a full mesh 32; the last line tells how many have answered of how
    /// many there are. Exit code 1 if some look did not find the probe in time, or none was made.
    Audit(client::AuditArgs),
    /// Show how one key stands on every node, and whether they agree
    ///
    /// Asks every member, for 1 s at most, beyond a full mesh for 10 s; who does not answer is told with the
    /// reason. Exit code 1 if they do not agree, or if some node does not answer.
    Inspect(client::InspectArgs),
}

/// Where settings come from.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file (TOML); without one, defaults, variables and flags apply
    #[arg(long, short, value_name = "FILE", env = "NEARCACHE_CONFIG")]
    config: Option<PathBuf>,
    /// A setting by its path in the file, for example --set http.listen=127.0.0.1:8001; repeatable
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Name of the node, unique in the cluster (node.name)
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where RESP listens (resp.listen); port 0 lets the system choose
    #[arg(long, value_name = "IP:PORT")]
    resp_listen: Option<String>,
    /// Where HTTP listens (http.listen); port 0 lets the system choose
    #[arg(long, value_name = "IP:PORT")]
    http_listen: Option<String>,
    /// Where peers connect (peers.listen); port 0 lets the system choose
    #[arg(long, value_name = "IP:PORT")]
    peer_listen: Option<String>,
    /// A node to join (peers.seeds); repeatable
    #[arg(long = "join", value_name = "HOST:PORT")]
    join: Vec<String>,
    /// Lowest level logged: error, warn, info, debug, trace (log.level)
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Shape of log lines: text or json (log.format)
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write the addresses listened on to this file as JSON, once clients can connect
    #[arg(long, value_name = "FILE")]
    addresses: Option<PathBuf>,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let outcome = match cli.command {
        None => dev::run(&cli.dev),
        Some(Command::Dev(args)) => dev::run(&args),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Certs(args)) => certs::run(&args),
        Some(Command::Get(args)) => client::get(&args),
        Some(Command::Put(args)) => client::put(&args),
        Some(Command::Del(args)) => client::del(&args),
        Some(Command::Info(args)) => client::info(&args),
        Some(Command::Members(args)) => client::members(&args),
        Some(Command::Audit(args)) => client::audit(&args),
        Some(Command::Inspect(args)) => client::inspect(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.exit_code)
        }
    }
}

/// Help and version as clap writes them; a mistake in one line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let line = lines.join("; ").replace(":; ", ": ");
    let line = line.trim_start_matches("error: ").replace("tip: ", "");
    Failure {
        exit_code: EXIT_MISUSE,
        lines: vec![format!("{line} (see --help)")],
    }
    .report();
    ExitCode::from(EXIT_MISUSE)
}

/// A runtime for the commands that need the network.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("nearcache")
        .build()
        .map_err(|error| Failure::no_threads(&error))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
