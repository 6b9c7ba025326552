//! The caches of a run: one for each promise that is looked at, all of them on the same nodes.

use std::fmt;
use std::str::FromStr;

/// A cache, by what it promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cache {
    /// Mode `replicated`, both sides of a netsplit go on.
    #[default]
    Replicated,
    /// Mode `replicated`, `split = "read-only"`.
    ReadOnly,
    /// Mode `replicated`, `split = "flush"`.
    Flush,
    /// Mode `invalidation`, `on_disconnect = "bypass"`.
    Bypass,
    /// Mode `invalidation`, `on_disconnect = "flush"`.
    Dropped,
    /// Mode `invalidation`, `on_disconnect = { serve_stale = … }`.
    Stale,
}

/// For how long copies may be served after this node last had all of every peer's invalidations, in milliseconds.
const LEASE_MS: u64 = 3_000;
/// The same where stale copies are served on purpose.
const STALE_MS: u64 = 4_000;

impl Cache {
    /// All, in the order of their databases.
    pub(crate) const ALL: [Self; 6] = [
        Self::Replicated,
        Self::ReadOnly,
        Self::Flush,
        Self::Bypass,
        Self::Dropped,
        Self::Stale,
    ];
    /// Those in mode `invalidation`.
    pub(crate) const COPIES: [Self; 3] = [Self::Bypass, Self::Dropped, Self::Stale];
    /// Those for which it matters who is with most of the cluster.
    pub(crate) const SPLIT: [Self; 2] = [Self::ReadOnly, Self::Flush];

    /// Its name in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Replicated => "default",
            Self::ReadOnly => "guarded",
            Self::Flush => "emptied",
            Self::Bypass => "bypass",
            Self::Dropped => "dropped",
            Self::Stale => "stale",
        }
    }

    /// The number for `SELECT`.
    pub(crate) fn database(self) -> String {
        let place = Self::ALL.iter().position(|cache| *cache == self);
        place.unwrap_or_default().to_string()
    }

    /// Whether it is in mode `invalidation`.
    pub(crate) fn is_copies(self) -> bool {
        Self::COPIES.contains(&self)
    }

    /// How long after a change was acknowledged an older copy may still be served by who hears nothing, in microseconds.
    pub(crate) fn lease_us(self) -> u64 {
        match self {
            Self::Stale => STALE_MS * 1_000,
            _ => LEASE_MS * 1_000,
        }
    }

    fn settings(self) -> String {
        match self {
            Self::Replicated => "mode = \"replicated\"".to_owned(),
            Self::ReadOnly => "mode = \"replicated\"\nsplit = \"read-only\"".to_owned(),
            Self::Flush => "mode = \"replicated\"\nsplit = \"flush\"".to_owned(),
            Self::Bypass => "mode = \"invalidation\"\non_disconnect = \"bypass\"".to_owned(),
            Self::Dropped => "mode = \"invalidation\"\non_disconnect = \"flush\"".to_owned(),
            Self::Stale => format!(
                "mode = \"invalidation\"\non_disconnect = {{ serve_stale = \"{STALE_MS}ms\" }}"
            ),
        }
    }

    /// What a node's configuration says of all of them.
    pub(crate) fn configuration() -> String {
        let names: Vec<String> = Self::ALL
            .iter()
            .map(|cache| format!("\"{}\"", cache.name()))
            .collect();
        let mut text = format!("[resp]\ndatabases = [{}]\n", names.join(", "));
        for cache in Self::ALL {
            text += &format!(
                "\n[caches.{}]\nmax_bytes = \"16MiB\"\n{}\n",
                cache.name(),
                cache.settings()
            );
        }
        text
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Cache {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.into_iter().find(|cache| cache.name() == name);
        found.ok_or_else(|| anyhow::anyhow!("no cache {name}"))
    }
}
