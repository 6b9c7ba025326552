//! Who may use the listeners: one token, read from a file, presented by RESP `AUTH` or HTTP `Bearer`.
//!
//! The token comes from a file that only its owner can read, never from the command line, where every
//! user of the machine sees it. It goes nowhere: not into logs, errors, metrics or `Debug`.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Shortest token accepted from a file; a guess per microsecond would take longer than the sun has.
pub const TOKEN_BYTES_MIN: usize = 16;
/// Longest token accepted from a file.
pub const TOKEN_BYTES_MAX: usize = 1_024;

/// The secret that clients present.
pub struct Credentials {
    secret: Box<[u8]>,
}

/// Why a token file is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("cannot read the token file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Others than the owner have access.
    #[error(
        "the token file {} has mode {mode:04o}, others can read it; run: chmod 600 {}",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The first line is too short or too long, or has bytes a header cannot carry.
    #[error(
        "the token in {} must be {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} visible ASCII characters; \
         make one with: (umask 077; head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n' > {})",
        path.display(), path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
    },
}

impl Credentials {
    /// Credentials with this secret, of any length but zero in earnest use.
    #[must_use]
    pub fn new(secret: impl Into<Box<[u8]>>) -> Self {
        Self {
            secret: secret.into(),
        }
    }

    /// Reads the first line of `path`. Blocks for one small read.
    ///
    /// # Errors
    /// [`TokenFileError`] when the file cannot be read, when others may read or write it, and when
    /// its first line is no usable token.
    pub fn from_file(path: &Path) -> Result<Self, TokenFileError> {
        let unreadable = |source| TokenFileError::Unreadable {
            path: path.to_owned(),
            source,
        };
        // One open file for both questions: the name may point elsewhere a moment later.
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(TokenFileError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Vec::new();
        file.take(TOKEN_BYTES_MAX as u64 + 2)
            .read_to_end(&mut text)
            .map_err(unreadable)?;
        let line = text
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        let usable = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&line.len())
            && line.iter().all(u8::is_ascii_graphic);
        if usable {
            Ok(Self::new(line))
        } else {
            Err(TokenFileError::Unusable {
                path: path.to_owned(),
            })
        }
    }

    /// Whether a client that presents `user` and `secret` may come in.
    ///
    /// There is one user, `default`, which is also meant when none is named. The time taken depends on
    /// the length of what was presented and on nothing else.
    #[must_use]
    pub fn verify(&self, user: Option<&[u8]>, secret: &[u8]) -> bool {
        let known_user = user.is_none_or(|user| user == b"default");
        let known_secret = equal_in_constant_time(&self.secret, secret);
        known_user & known_secret
    }

    /// The secret, for the client that has to present it.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.secret
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("secret", &"<redacted>")
            .finish()
    }
}

/// Compares every presented byte whatever the outcome; a wrong length is one more difference.
fn equal_in_constant_time(expected: &[u8], presented: &[u8]) -> bool {
    let mut difference = u8::from(expected.len() != presented.len());
    for (index, byte) in presented.iter().enumerate() {
        let other = expected
            .get(index % expected.len().max(1))
            .copied()
            .unwrap_or(0);
        difference = std::hint::black_box(difference | (byte ^ other));
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn only_the_whole_secret_of_the_known_user_is_let_in() {
        let credentials = Credentials::new(*b"0123456789abcdef");
        assert!(credentials.verify(None, b"0123456789abcdef"));
        assert!(credentials.verify(Some(b"default"), b"0123456789abcdef"));
        assert!(!credentials.verify(Some(b"admin"), b"0123456789abcdef"));
        let twice = b"0123456789abcdef0123456789abcdef";
        for wrong in [
            &b""[..],
            b"0",
            b"0123456789abcdeF",
            b"0123456789abcdef0",
            &twice[..],
        ] {
            assert!(!credentials.verify(None, wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        for mode in [0o640, 0o604, 0o644, 0o620, 0o666] {
            let (_directory, path) = file("0123456789abcdef\n", mode);
            let error = Credentials::from_file(&path).unwrap_err();
            assert!(
                matches!(error, TokenFileError::Exposed { .. }),
                "{mode:o}: {error}"
            );
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        for mode in [0o600, 0o400] {
            let (_directory, path) = file("0123456789abcdef\nnot this\n", mode);
            assert!(
                Credentials::from_file(&path)
                    .unwrap()
                    .verify(None, b"0123456789abcdef")
            );
        }
    }

    #[test]
    fn a_short_empty_or_unprintable_token_is_refused_without_being_shown() {
        for text in [
            "",
            "\n",
            "short",
            "0123456789abcde",
            "0123456789abcdef\u{7}",
            "with a space in it!",
        ] {
            let (_directory, path) = file(text, 0o600);
            let error = Credentials::from_file(&path).unwrap_err();
            assert!(matches!(error, TokenFileError::Unusable { .. }), "{text:?}");
            assert!(text.len() < 5 || !error.to_string().contains(text.trim()));
        }
    }

    #[test]
    fn the_secret_is_not_in_its_debug_output() {
        assert!(!format!("{:?}", Credentials::new(*b"canary-canary-canary")).contains("canary"));
    }
}
