//! Reads the files of [`PeerTlsFiles`]: bounded, and refusing secrets that others can read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::error::{PeerTlsError, PeerTlsFile};
use super::{PeerTls, PeerTlsFiles};

/// The most any of the files may have; chains and bundles of authorities are far below it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the files held at one moment.
pub(super) struct Contents {
    pub(super) certificate: Zeroizing<Vec<u8>>,
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) ca: Zeroizing<Vec<u8>>,
    pub(super) secret: Zeroizing<Vec<u8>>,
}

/// Tells contents apart without keeping them: a SHA-256 hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<u8>);

impl Contents {
    /// Reads all four. Blocks.
    pub(super) fn read(settings: &PeerTls) -> Result<Self, PeerTlsError> {
        let PeerTlsFiles {
            certificate,
            key,
            ca,
            secret,
        } = &settings.files;
        Ok(Self {
            certificate: read(PeerTlsFile::Certificate, certificate)?,
            key: read(PeerTlsFile::Key, key)?,
            ca: read(PeerTlsFile::Ca, ca)?,
            secret: read(PeerTlsFile::Secret, secret)?,
        })
    }

    /// The same for the same contents.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut context = Context::new(&SHA256);
        for part in [&self.certificate, &self.key, &self.ca, &self.secret] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        Fingerprint(context.finish().as_ref().to_vec())
    }
}

fn read(file: PeerTlsFile, path: &Path) -> Result<Zeroizing<Vec<u8>>, PeerTlsError> {
    let unreadable = |source| PeerTlsError::Unreadable {
        file,
        path: path.to_owned(),
        source,
    };
    // One open file for both questions: the name may point elsewhere a moment later.
    let opened = File::open(path).map_err(unreadable)?;
    let metadata = opened.metadata().map_err(unreadable)?;
    let mode = metadata.mode() & 0o7777;
    let is_secret = matches!(file, PeerTlsFile::Key | PeerTlsFile::Secret);
    if is_secret && mode & 0o077 != 0 {
        return Err(PeerTlsError::Exposed {
            file,
            path: path.to_owned(),
            mode,
        });
    }
    // Room for all of it from the start: a buffer that grows would leave copies of a key behind.
    let room = usize::try_from(metadata.len().min(FILE_BYTES_MAX)).unwrap_or_default() + 1;
    let mut contents = Zeroizing::new(Vec::with_capacity(room));
    opened
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut contents)
        .map_err(unreadable)?;
    if contents.len() as u64 > FILE_BYTES_MAX {
        return Err(PeerTlsError::TooLarge {
            file,
            path: path.to_owned(),
            limit_bytes: FILE_BYTES_MAX,
        });
    }
    Ok(contents)
}
