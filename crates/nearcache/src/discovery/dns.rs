//! Addresses behind a DNS name, such as a headless service of Kubernetes.

use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use tokio::sync::OnceCell;

use super::{Discovery, DiscoveryError, Lookup};

/// All A and AAAA records of one name, each with the same port.
///
/// Records are cached for as long as their time to live says, so a changed service is noticed at
/// the pace its DNS allows. The resolver is configured by `/etc/resolv.conf`, read at first use.
pub struct Dns {
    host: String,
    port: u16,
    resolver: OnceCell<TokioResolver>,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dns({}:{})", self.host, self.port)
    }
}

impl Dns {
    /// Looks `host_and_port` up, for example `"nearcache.default.svc:7400"`.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`] when it is not a name followed by a colon and a port.
    pub fn new(host_and_port: &str) -> Result<Self, DiscoveryError> {
        let malformed = || DiscoveryError::new(host_and_port, "expected HOST:PORT");
        let (host, port) = host_and_port.rsplit_once(':').ok_or_else(malformed)?;
        let port = port.parse().map_err(|_| malformed())?;
        if host.is_empty() {
            return Err(malformed());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            resolver: OnceCell::new(),
        })
    }

    async fn resolver(&self) -> Result<&TokioResolver, DiscoveryError> {
        self.resolver
            .get_or_try_init(|| async {
                TokioResolver::builder_tokio()
                    .and_then(hickory_resolver::ResolverBuilder::build)
                    .map_err(|error| DiscoveryError::new("resolv.conf", error))
            })
            .await
    }
}

impl Discovery for Dns {
    fn lookup(&self) -> Lookup<'_> {
        Box::pin(async move {
            let found = self
                .resolver()
                .await?
                .lookup_ip(self.host.as_str())
                .await
                .map_err(|error| DiscoveryError::new(format!("{self:?}"), error))?;
            Ok(found
                .iter()
                .map(|address| SocketAddr::new(address, self.port))
                .collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_port_is_refused() {
        assert!(Dns::new("nearcache").is_err());
        assert!(Dns::new(":7400").is_err());
        assert!(Dns::new("nearcache:seventy").is_err());
        assert!(Dns::new("nearcache.default.svc:7400").is_ok());
    }
}
