//! Where a configured node looks for its cluster: addresses, names, and one name with many addresses.

use std::net::SocketAddr;

use nearcache::{Discovery, DiscoveryError, Dns};

use crate::config::PeersConfig;

/// The addresses and names of `[peers]`, asked together.
#[derive(Debug, Default)]
pub(crate) struct Seeds {
    addresses: Vec<SocketAddr>,
    names: Vec<Dns>,
}

impl Seeds {
    /// Sorts what is configured into addresses and names.
    ///
    /// # Errors
    /// When one is neither; configuration has checked that.
    pub(crate) fn new(config: &PeersConfig) -> Result<Self, DiscoveryError> {
        let mut seeds = Self::default();
        for seed in config.seeds.iter().chain(&config.dns) {
            match seed.parse() {
                Ok(address) => seeds.addresses.push(address),
                Err(_) => seeds.names.push(Dns::new(seed)?),
            }
        }
        Ok(seeds)
    }
}

impl Discovery for Seeds {
    /// What could be found; a failure only if nothing could.
    fn lookup(&self) -> nearcache::discovery::Lookup<'_> {
        Box::pin(async {
            let mut found = self.addresses.clone();
            let mut failure = None;
            for name in &self.names {
                match name.lookup().await {
                    Ok(addresses) => found.extend(addresses),
                    Err(error) => failure = Some(error),
                }
            }
            match failure {
                Some(error) if found.is_empty() => Err(error),
                _ => Ok(found),
            }
        })
    }

    fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.names.is_empty()
    }
}
