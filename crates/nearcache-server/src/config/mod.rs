//! Configuration: one TOML file, overridden by `NEARCACHE_*` variables, overridden by flags.
//!
//! ```text
//! file ─ document ─┐
//! variables ───────┼─ settings table ─ Config ─ validate (limits, protected mode) ─ server
//! flags ───────────┘        │          │             │
//!                           │       shares of the machine's memory
//!                           └──── Problem ───────────┴──── nearcache check
//! ```
//!
//! Loading finds as many problems as it can before it gives up, each with its place and, where there
//! is a likely one, its remedy. A configuration with a problem starts nothing.

mod document;
pub(crate) mod fuzzing;
mod model;
mod problem;
mod settings;
pub(crate) mod shares;
mod suggest;
pub mod units;
mod validate;
mod value;

use std::collections::HashMap;
use std::path::Path;

pub use model::{
    AuthConfig, CacheConfig, CacheMode, Config, DEFAULT_CACHE, HttpConfig, LogConfig, LogFormat,
    NodeConfig, PeersConfig, PeersTlsConfig, RespConfig,
};
pub use problem::{Place, Problem};
pub use shares::Shares;
use value::{Rejection, Value};

use crate::machine::memory::Memory;

/// A configuration and what is remarkable about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration, valid as a whole.
    pub config: Config,
    /// What does not keep the server from starting but deserves a line in its log.
    pub warnings: Vec<Problem>,
    /// What the machine's memory decided, and why.
    pub shares: Shares,
}

/// Where settings come from, weakest first.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// The file's path, for messages, and its text.
    pub file: Option<(&'a Path, &'a str)>,
    /// Environment variables; those that do not start with `NEARCACHE_` are skipped.
    pub variables: Vec<(String, String)>,
    /// Flags: the flag as typed, the setting's path and its value.
    pub flags: Vec<(String, String, String)>,
    /// The memory that defaults are a share of.
    pub memory: Memory,
}

/// Reads all sources, then checks the result as a whole, protected mode included.
///
/// Reads the files of `[peers.tls]`, nothing else of the system; blocks for as long as that takes.
///
/// # Errors
/// Every problem found, in the order of the sources; never an empty list.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, Vec<Problem>> {
    let mut loader = Loader::default();
    if let Some((path, source)) = sources.file {
        loader.file(path, source);
    }
    for (name, text) in &sources.variables {
        loader.variable(name, text);
    }
    for (flag, path, text) in &sources.flags {
        loader.apply(path, &Value::Loose(text.clone()), Place::Flag(flag.clone()));
    }
    let shares = Shares::choose(&mut loader.config, &Places(&loader.places), &sources.memory);
    if loader.problems.is_empty() {
        validate::validate(
            &loader.config,
            &Places(&loader.places),
            &mut loader.problems,
        );
    }
    if loader.problems.is_empty() {
        Ok(Loaded {
            config: loader.config,
            warnings: loader.warnings,
            shares,
        })
    } else {
        Err(loader.problems)
    }
}

/// Where each setting was last set, for problems found after all are known.
#[derive(Debug)]
struct Places<'a>(&'a HashMap<String, Place>);

impl Places<'_> {
    fn of(&self, path: &str) -> Place {
        self.0.get(path).cloned().unwrap_or(Place::Default)
    }
}

/// Settings as far as they are read.
#[derive(Default)]
struct Loader {
    config: Config,
    places: HashMap<String, Place>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Variables with our prefix that are not settings.
const OTHER_VARIABLES: &[&str] = &[
    "NEARCACHE_CONFIG",
    "NEARCACHE_URL",
    "NEARCACHE_TOKEN_FILE",
    "NEARCACHE_CACHE",
];

impl Loader {
    fn file(&mut self, path: &Path, source: &str) {
        let items = match document::items(path, source) {
            Ok(items) => items,
            Err(problem) => return self.problems.push(problem),
        };
        for item in items {
            let keys: Vec<&str> = item.path.iter().map(String::as_str).collect();
            let dotted = keys.join(".");
            let known = match keys.as_slice() {
                [section] => settings::sections().contains(section),
                ["caches", name] => {
                    match settings::check_cache_name(name) {
                        Ok(()) => {
                            self.config.caches.entry((*name).to_owned()).or_default();
                        }
                        Err(rejection) => self.reject(rejection, item.key_place.clone(), ""),
                    }
                    true
                }
                ["caches", _, key] => settings::find_cache(key).is_some(),
                ["caches", ..] => continue,
                [section @ .., _] if is_section(&section.join(".")) => {
                    settings::find(&dotted).is_some() || is_section(&dotted)
                }
                // Below something that is unknown already: one line about it is enough.
                _ => continue,
            };
            let section_expected =
                keys.len() == 1 || is_section(&dotted) || matches!(keys.as_slice(), ["caches", _]);
            // A table with one key is a section where one is due, and elsewhere a value that a
            // setting may take: `on_disconnect = { serve_stale = "30s" }`.
            let is_table = match item.value {
                Value::Other(kind) => kind == "a table",
                Value::Field(..) => section_expected,
                _ => false,
            };
            if !known {
                self.problems.push(unknown_key(&keys, item.key_place));
            } else if section_expected != is_table {
                let what = if section_expected {
                    "a section"
                } else {
                    "a value"
                };
                let problem = Problem::new(item.value_place, format!("`{dotted}` must be {what}"));
                self.problems.push(if section_expected {
                    problem.suggest(format!("start it with [{dotted}]"))
                } else {
                    problem
                });
            } else if !is_table {
                self.apply(&dotted, &item.value, item.value_place);
            }
        }
    }

    fn variable(&mut self, name: &str, text: &str) {
        let Some(rest) = name.strip_prefix("NEARCACHE_") else {
            return;
        };
        if OTHER_VARIABLES.contains(&name) || rest.starts_with("TEST_") || is_kubernetes_link(rest)
        {
            return;
        }
        let place = Place::Variable(name.to_owned());
        let value = Value::Loose(text.to_owned());
        if let Some(setting) = settings::SETTINGS
            .iter()
            .find(|setting| variable_name(setting.path) == rest)
        {
            return self.apply(setting.path, &value, place);
        }
        let cache = settings::CACHE_SETTINGS.iter().find_map(|setting| {
            let name = rest.strip_prefix("CACHES_")?;
            let name = name
                .strip_suffix(&setting.key.to_ascii_uppercase())?
                .strip_suffix('_')?;
            Some(format!(
                "caches.{}.{}",
                name.to_ascii_lowercase(),
                setting.key
            ))
        });
        if let Some(path) = cache {
            return self.apply(&path, &value, place);
        }
        let names: Vec<_> = settings::SETTINGS
            .iter()
            .map(|s| variable_name(s.path))
            .collect();
        let warning = Problem::new(place, "is not a setting and has no effect");
        self.warnings.push(
            match suggest::nearest(rest, names.iter().map(String::as_str)) {
                Some(near) => warning.suggest(format!("did you mean NEARCACHE_{near}?")),
                None => warning,
            },
        );
    }

    /// Sets one setting; a value that it does not take becomes a problem.
    fn apply(&mut self, path: &str, value: &Value, place: Place) {
        let keys: Vec<&str> = path.split('.').collect();
        let outcome = if let ["caches", name, key] = keys.as_slice() {
            let Some(setting) = settings::find_cache(key) else {
                return self.problems.push(unknown_key(&keys, place));
            };
            settings::check_cache_name(name).and_then(|()| {
                (setting.set)(
                    self.config.caches.entry((*name).to_owned()).or_default(),
                    value,
                )
            })
        } else if let Some(setting) = settings::find(path) {
            (setting.set)(&mut self.config, value)
        } else {
            return self.problems.push(unknown_key(&keys, place));
        };
        match outcome {
            Ok(()) => {
                self.places.insert(path.to_owned(), place);
            }
            Err(rejection) => self.reject(rejection, place, path),
        }
    }

    fn reject(&mut self, rejection: Rejection, place: Place, path: &str) {
        let message = if path.is_empty() {
            rejection.message
        } else {
            format!("`{path}`: {}", rejection.message)
        };
        self.problems.push(Problem {
            place,
            message,
            suggestion: rejection.suggestion,
        });
    }
}

fn variable_name(path: &str) -> String {
    path.replace('.', "_").to_ascii_uppercase()
}

fn is_section(path: &str) -> bool {
    settings::sections().contains(&path)
}

/// Kubernetes describes a service called `nearcache` to every pod in variables that begin like ours.
fn is_kubernetes_link(rest: &str) -> bool {
    let tail = rest.strip_prefix("SERVICE_").unwrap_or(rest);
    rest.starts_with("SERVICE_HOST")
        || rest.starts_with("SERVICE_PORT")
        || (tail.starts_with("PORT") && (tail == "PORT" || tail.starts_with("PORT_")))
}

fn unknown_key(keys: &[&str], place: Place) -> Problem {
    let (section, key, candidates): (String, &str, Vec<&str>) = match keys {
        ["caches", name, key, ..] => (
            format!("[caches.{name}]"),
            key,
            settings::CACHE_SETTINGS
                .iter()
                .map(|setting| setting.key)
                .collect(),
        ),
        [section @ .., key] if is_section(&section.join(".")) => {
            let section = section.join(".");
            let candidates = settings::keys_of(&section).collect();
            (format!("[{section}]"), key, candidates)
        }
        [first, ..] => ("the configuration".to_owned(), first, settings::sections()),
        [] => ("the configuration".to_owned(), "", Vec::new()),
    };
    let problem = Problem::new(place, format!("unknown key `{key}` in {section}"));
    if let Some(near) = suggest::nearest(key, candidates.iter().copied()) {
        return problem.suggest(format!("did you mean `{near}`?"));
    }
    // The right key in the wrong section is the other common slip.
    match settings::SETTINGS
        .iter()
        .find(|s| s.path.rsplit_once('.').is_some_and(|(_, k)| k == key))
    {
        Some(elsewhere) => problem.suggest(format!("it belongs to `{}`", elsewhere.path)),
        None => problem.suggest(format!("known are: {}", candidates.join(", "))),
    }
}

#[cfg(test)]
mod tests;
