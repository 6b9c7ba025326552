//! Keeps up with the files, and warns before a certificate expires.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::distrust::Rough;
use super::error::PeerTlsError;
use super::files::Contents;
use super::material::Material;
use super::{EXPIRY_WARNING, PeerTls};

/// Looking at the files more often than this would keep a processor busy.
const RELOAD_LEAST: Duration = Duration::from_millis(10);

/// A session lasts for at least so long.
const REAUTHENTICATE_LEAST: Duration = Duration::from_secs(1);

/// And at most.
const REAUTHENTICATE_MOST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How often a failure to reload, or an expiry that has come, is repeated in the log.
const REPEAT_FAILURE: Duration = Duration::from_secs(60);

/// How often an expiry that comes nearer is repeated in the log.
const REPEAT_EXPIRY: Duration = Duration::from_secs(60 * 60);

/// What a node's connections are secured with, now and after the next change of the files.
#[derive(Debug)]
pub(crate) struct PeerSecurity {
    settings: PeerTls,
    cluster: String,
    current: ArcSwap<Material>,
}

impl PeerSecurity {
    /// Loads the files for the first time. Blocks for a few small reads.
    pub(crate) fn load(settings: PeerTls, cluster: &str) -> Result<Self, PeerTlsError> {
        let material = Material::load(&settings, cluster)?;
        Ok(Self {
            settings,
            cluster: cluster.to_owned(),
            current: ArcSwap::from_pointee(material),
        })
    }

    /// Checks that the certificate is for the node that is called `name`.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), PeerTlsError> {
        self.current()
            .check_name(&self.settings.files, &self.cluster, name)
    }

    /// What new connections use.
    pub(crate) fn current(&self) -> Arc<Material> {
        self.current.load_full()
    }

    /// How long a session may last.
    pub(crate) fn reauthenticate_after(&self) -> Duration {
        (self.settings.reauthenticate_after).clamp(REAUTHENTICATE_LEAST, REAUTHENTICATE_MOST)
    }

    /// How long the certificate is valid from now on.
    pub(crate) fn valid_for(&self) -> Duration {
        self.current().valid_for()
    }

    /// Looks at the files again and again until the node, called `name`, stops.
    pub(crate) async fn keep_up(self: Arc<Self>, name: String, stopped: CancellationToken) {
        let name: Arc<str> = name.into();
        let mut told = Told::default();
        self.warn_of_expiry(&mut told);
        let watching = async {
            loop {
                tokio::time::sleep(self.settings.reload_every.max(RELOAD_LEAST)).await;
                let (this, name) = (Arc::clone(&self), Arc::clone(&name));
                // Reading files may block for as long as their file system likes.
                match tokio::task::spawn_blocking(move || this.look(&name)).await {
                    Ok(outcome) => self.take(outcome, &mut told),
                    Err(error) => tracing::error!(%error, "looking at the certificates failed"),
                }
                self.warn_of_expiry(&mut told);
            }
        };
        let _: Option<()> = stopped.run_until_cancelled(watching).await;
    }

    /// Reads the files; new material if they have changed. Blocks.
    fn look(&self, name: &str) -> Result<Option<Material>, PeerTlsError> {
        let contents = Contents::read(&self.settings)?;
        if self.current.load().is_of(&contents) {
            return Ok(None);
        }
        let material = Material::from_contents(&self.settings, &self.cluster, &contents)?;
        material.check_name(&self.settings.files, &self.cluster, name)?;
        Ok(Some(material))
    }

    fn take(&self, looked: Result<Option<Material>, PeerTlsError>, told: &mut Told) {
        match looked {
            Ok(None) => told.failure = None,
            Ok(Some(material)) => {
                tracing::info!(
                    valid_for = %Rough(material.valid_for()),
                    secrets = %material.secrets.ids(),
                    "certificates and secret reloaded: used for connections from now on"
                );
                self.current.store(Arc::new(material));
                *told = Told::default();
            }
            Err(error) => told.failure(&error),
        }
    }

    fn warn_of_expiry(&self, told: &mut Told) {
        let left = self.valid_for();
        let is_told = told.expiry.is_some_and(|at| at.elapsed() < REPEAT_EXPIRY);
        if left > EXPIRY_WARNING || (is_told && !left.is_zero()) {
            return;
        }
        let path = self.settings.files.certificate.display();
        if !left.is_zero() {
            told.expiry = Some(Instant::now());
            tracing::warn!(
                "the certificate {path} expires in {}: replace the file, a restart is not needed",
                Rough(left)
            );
        } else if told.expired.is_none_or(|at| at.elapsed() >= REPEAT_FAILURE) {
            told.expired = Some(Instant::now());
            tracing::error!(
                "the certificate {path} has expired: peers refuse new connections; replace the \
                 file, a restart is not needed"
            );
        }
    }
}

/// What was said so far, and when.
#[derive(Debug, Default)]
struct Told {
    failure: Option<(String, Instant)>,
    expiry: Option<Instant>,
    expired: Option<Instant>,
}

impl Told {
    fn failure(&mut self, error: &PeerTlsError) {
        let text = error.to_string();
        let is_told = self
            .failure
            .as_ref()
            .is_some_and(|(told, at)| *told == text && at.elapsed() < REPEAT_FAILURE);
        if !is_told {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "the changed certificates cannot be used: going on with those from before"
            );
            self.failure = Some((text, Instant::now()));
        }
    }
}
