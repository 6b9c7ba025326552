//! `nearcache check`, and the reading of a configuration that `serve` shares with it.

use std::io::IsTerminal;

use nearcache::{OnDisconnect, SplitPolicy};

use super::ConfigArgs;
use crate::config::{self, CacheMode, Loaded, Problem, Sources, units};
use crate::failure::{EXIT_MISUSE, Failure};
use crate::machine::memory::Memory;

/// A configuration that was read, or what is wrong with it and the text it is wrong in.
pub(super) enum Reading {
    Valid(Box<Loaded>),
    Wrong {
        problems: Vec<Problem>,
        source: String,
    },
}

/// Says what is wrong with the configuration, or sums it up.
pub(super) fn run(args: &ConfigArgs) -> Result<(), Failure> {
    match read(args)? {
        Reading::Valid(loaded) => {
            for warning in &loaded.warnings {
                eprintln!("nearcache: warning: {warning}");
            }
            if let Some(path) = &loaded.config.auth.token_file {
                crate::auth::Credentials::from_file(path).map_err(Failure::misuse)?;
            }
            print(&summary(&loaded));
            Ok(())
        }
        Reading::Wrong { problems, source } => {
            if !std::io::stderr().is_terminal() {
                return Err(failure(&problems));
            }
            for problem in &problems {
                eprintln!("nearcache: {problem}");
                eprint!("{}", problem.excerpt(&source));
            }
            Err(Failure {
                exit_code: EXIT_MISUSE,
                lines: Vec::new(),
            })
        }
    }
}

/// The configuration `serve` starts with.
pub(super) fn load(args: &ConfigArgs) -> Result<Loaded, Failure> {
    match read(args)? {
        Reading::Valid(loaded) => Ok(*loaded),
        Reading::Wrong { problems, .. } => Err(failure(&problems)),
    }
}

fn read(args: &ConfigArgs) -> Result<Reading, Failure> {
    let source = match &args.config {
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            Failure::misuse(format!(
                "cannot read the configuration {}: {error}",
                path.display()
            ))
        })?,
        None => String::new(),
    };
    let sources = Sources {
        file: args.config.as_deref().map(|path| (path, source.as_str())),
        // A variable that is not text cannot be one of ours with a sensible value.
        variables: std::env::vars_os()
            .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)))
            .collect(),
        flags: flags(args)?,
        memory: Memory::of_this_process(),
    };
    Ok(match config::load(&sources) {
        Ok(loaded) => Reading::Valid(Box::new(loaded)),
        Err(problems) => Reading::Wrong { problems, source },
    })
}

fn flags(args: &ConfigArgs) -> Result<Vec<(String, String, String)>, Failure> {
    let mut flags = Vec::new();
    let mut add = |flag: &str, path: &str, value: &Option<String>| {
        if let Some(value) = value {
            flags.push((flag.to_owned(), path.to_owned(), value.clone()));
        }
    };
    add("--name", "node.name", &args.name);
    add("--resp-listen", "resp.listen", &args.resp_listen);
    add("--http-listen", "http.listen", &args.http_listen);
    add("--peer-listen", "peers.listen", &args.peer_listen);
    add("--log-level", "log.level", &args.log_level);
    add("--log-format", "log.format", &args.log_format);
    let join = (!args.join.is_empty()).then(|| args.join.join(","));
    add("--join", "peers.seeds", &join);
    for assignment in &args.set {
        let Some((path, value)) = assignment.split_once('=') else {
            return Err(Failure::misuse(format!(
                "--set {assignment}: expected PATH=VALUE, for example http.listen=127.0.0.1:8001"
            )));
        };
        flags.push((
            format!("--set {path}"),
            path.trim().to_owned(),
            value.trim().to_owned(),
        ));
    }
    Ok(flags)
}

fn failure(problems: &[Problem]) -> Failure {
    Failure {
        exit_code: EXIT_MISUSE,
        lines: problems.iter().map(ToString::to_string).collect(),
    }
}

fn summary(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut text = String::from("The configuration is valid.\n");
    let listens = |enabled: bool, address: std::net::SocketAddr| match enabled {
        true => address.to_string(),
        false => "off".to_owned(),
    };
    text += &format!(
        "  resp    {}\n",
        listens(config.resp.enabled, config.resp.listen)
    );
    text += &format!(
        "  http    {}\n",
        listens(config.http.enabled, config.http.listen)
    );
    let secured = match config.peers.tls.settings() {
        Some(_) => ", mutual TLS",
        None => "",
    };
    text += &format!("  peers   {}{secured}\n", config.peers.listen);
    for (name, cache) in &config.caches {
        text += &format!(
            "  cache   {name}: {}, {}",
            cache.mode.as_str(),
            units::show_size(cache.max_bytes)
        );
        if let Some(ttl) = cache.time_to_live {
            text += &format!(", time to live {}", units::show_duration(ttl));
        }
        if let Some(idle) = cache.time_to_idle {
            text += &format!(", time to idle {}", units::show_duration(idle));
        }
        if cache.mode == CacheMode::Replicated {
            text += match cache.split {
                SplitPolicy::Serve => "",
                SplitPolicy::ReadOnly => ", read-only 2s after most nodes were last heard",
                SplitPolicy::Flush => ", empty 2s after most nodes were last heard",
            };
        }
        if cache.mode == CacheMode::Invalidation {
            text += &match cache.on_disconnect {
                OnDisconnect::Bypass => format!(
                    ", copies not served {} after a peer was last heard",
                    units::show_duration(cache.link_timeout)
                ),
                OnDisconnect::Flush => format!(
                    ", copies dropped {} after a peer was last heard",
                    units::show_duration(cache.link_timeout)
                ),
                OnDisconnect::ServeStale { max } => format!(
                    ", copies served up to {} after a peer was last heard",
                    units::show_duration(max)
                ),
            };
        }
        if let Some(why) = loaded.shares.why_cache(name) {
            text += &format!(" ({why})");
        }
        text.push('\n');
    }
    text += &format!(
        "  requests in flight: {}",
        units::show_size(config.limits.in_flight_bytes as u64)
    );
    if let Some(why) = loaded.shares.why_in_flight() {
        text += &format!(" ({why})");
    }
    text.push('\n');
    text
}

fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
