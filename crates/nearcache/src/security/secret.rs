//! The cluster's secret, and proofs that a peer knows it.
//!
//! The challenge is the exporter value of the TLS connection (RFC 8446, section 7.5): both ends
//! contribute to it, no other connection has it, and nobody in the middle of two connections can
//! have the same on both. A proof is the HMAC-SHA-256 of it; the secret itself never travels.
//!
//! A secret has an id, derived from it, that tells which of two is meant while one replaces the
//! other. The side that dials uses the first of its secrets, the side that accepts answers with the
//! same one, so nodes agree as long as each knows the first secret of all others.

use std::fmt;

use ring::hmac;

/// Shortest secret, in bytes (reliability specification, 4.3).
const SECRET_BYTES_MIN: usize = 32;

/// Longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 1_024;

/// Secrets a cluster may have at one time: the one in use and its predecessor or successor.
const SECRETS_MAX: usize = 2;

/// Bytes of a proof's key id.
const KEY_ID_BYTES: usize = 8;

/// Bytes of a proof's HMAC.
const TAG_BYTES: usize = 32;

/// Bytes of a proof as it travels: key id, then HMAC.
pub(crate) const PROOF_BYTES: usize = KEY_ID_BYTES + TAG_BYTES;

/// Bytes of the exporter value that proofs are bound to.
pub(crate) const CHALLENGE_BYTES: usize = 32;

/// The label of the exporter value (RFC 5705, section 4).
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-nearcache-peer";

/// What is unique to one TLS connection and known to both ends of it.
pub(crate) type Challenge = [u8; CHALLENGE_BYTES];

/// Which end of a connection proves something, so that neither can send the other's proof back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Dialer,
    Acceptor,
}

/// Tells which of several secrets is meant, without telling anything of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyId([u8; KEY_ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The secrets of the cluster that this node knows; never empty.
pub(crate) struct Secrets {
    first: Secret,
    second: Option<Secret>,
}

struct Secret {
    id: KeyId,
    key: hmac::Key,
}

/// Why a proof is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProofError {
    /// It is not as long as a proof.
    Malformed,
    /// It is made with a secret that is not known here.
    UnknownKey(KeyId),
    /// It names a secret that is known here and was not made with it.
    Wrong(KeyId),
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.ids())
    }
}

impl Secrets {
    /// Reads secrets, one on each line that is not blank; `None` if they are too few, too many, too
    /// short, too long, or have bytes that are not visible.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
        let usable = |line: &&[u8]| {
            (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&line.len())
                && line.iter().all(u8::is_ascii_graphic)
        };
        if lines.len() > SECRETS_MAX || !lines.iter().all(usable) {
            return None;
        }
        let mut secrets = lines.into_iter().map(Secret::new);
        Some(Self {
            first: secrets.next()?,
            second: secrets.next(),
        })
    }

    /// The ids of all, for people.
    pub(crate) fn ids(&self) -> String {
        match &self.second {
            Some(second) => format!("{} and {}", self.first.id, second.id),
            None => self.first.id.to_string(),
        }
    }

    /// The id of the secret that this node uses when it dials.
    pub(crate) const fn id_in_use(&self) -> KeyId {
        self.first.id
    }

    /// Proves to the other end of the connection with this challenge that this node knows the
    /// secret `id`; nothing if it does not.
    pub(crate) fn prove(
        &self,
        id: KeyId,
        role: Role,
        challenge: &Challenge,
    ) -> Option<[u8; PROOF_BYTES]> {
        let secret = self.find(id)?;
        let tag = hmac::sign(&secret.key, &proven(role, challenge));
        let mut proof = [0; PROOF_BYTES];
        let (head, tail) = proof.split_at_mut(KEY_ID_BYTES);
        head.copy_from_slice(&id.0);
        tail.copy_from_slice(tag.as_ref());
        Some(proof)
    }

    /// Checks the proof of the other end, which has the role `role`. Returns which secret it used.
    /// Takes the same time wherever the HMAC differs.
    pub(crate) fn check(
        &self,
        role: Role,
        challenge: &Challenge,
        proof: &[u8],
    ) -> Result<KeyId, ProofError> {
        let proof: &[u8; PROOF_BYTES] = proof.try_into().map_err(|_| ProofError::Malformed)?;
        let (id, tag) = proof
            .split_first_chunk::<KEY_ID_BYTES>()
            .ok_or(ProofError::Malformed)?;
        let id = KeyId(*id);
        let secret = self.find(id).ok_or(ProofError::UnknownKey(id))?;
        hmac::verify(&secret.key, &proven(role, challenge), tag)
            .map_err(|_| ProofError::Wrong(id))?;
        Ok(id)
    }

    fn find(&self, id: KeyId) -> Option<&Secret> {
        [Some(&self.first), self.second.as_ref()]
            .into_iter()
            .flatten()
            .find(|secret| secret.id == id)
    }
}

impl Secret {
    fn new(bytes: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let tag = hmac::sign(&key, b"nearcache key id");
        let mut id = [0; KEY_ID_BYTES];
        for (to, from) in id.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        Self { id: KeyId(id), key }
    }
}

/// What a proof's HMAC is of.
fn proven(role: Role, challenge: &Challenge) -> Vec<u8> {
    let role = match role {
        Role::Dialer => 0,
        Role::Acceptor => 1,
    };
    [&b"nearcache peer proof 1"[..], &[role], challenge].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const TWO: &str = "canary-canary-canary-canary-canary";

    fn secrets(lines: &[&str]) -> Secrets {
        Secrets::parse(lines.join("\n").as_bytes()).unwrap()
    }

    #[test]
    fn golden_proof_is_key_id_and_hmac() {
        let secrets = secrets(&[ONE]);
        let proof = secrets
            .prove(secrets.id_in_use(), Role::Dialer, &[7; CHALLENGE_BYTES])
            .unwrap();
        let hex: String = proof.iter().map(|byte| format!("{byte:02x}")).collect();
        // Computed with Python's hmac module.
        assert_eq!(
            hex,
            "f4f6daf0e9744d0c30eae49f40c91462fbed17e9acf1a80f8fa23048c883a97a35dc2b6bf8a7d350"
        );
    }

    #[test]
    fn a_proof_holds_for_its_connection_its_end_and_its_secret_alone() {
        let (ours, theirs) = (secrets(&[ONE]), secrets(&[TWO]));
        let (here, elsewhere) = ([1; CHALLENGE_BYTES], [2; CHALLENGE_BYTES]);
        let id = ours.id_in_use();
        let proof = ours.prove(id, Role::Dialer, &here).unwrap();
        assert_eq!(ours.check(Role::Dialer, &here, &proof), Ok(id));
        let wrong = Err(ProofError::Wrong(id));
        assert_eq!(ours.check(Role::Dialer, &elsewhere, &proof), wrong);
        assert_eq!(ours.check(Role::Acceptor, &here, &proof), wrong);
        let unknown = Err(ProofError::UnknownKey(id));
        assert_eq!(theirs.check(Role::Dialer, &here, &proof), unknown);
        for length in [0, 39, 41] {
            let cut = vec![0; length];
            assert_eq!(
                ours.check(Role::Dialer, &here, &cut),
                Err(ProofError::Malformed)
            );
        }
        for at in KEY_ID_BYTES..PROOF_BYTES {
            let mut flipped = proof;
            flipped[at] ^= 1;
            assert_eq!(ours.check(Role::Dialer, &here, &flipped), wrong, "{at}");
        }
    }

    #[test]
    fn a_secret_is_replaced_in_three_steps_without_a_moment_of_disagreement() {
        let steps = [&[ONE][..], &[ONE, TWO], &[TWO, ONE], &[TWO]].map(secrets);
        let challenge = [3; CHALLENGE_BYTES];
        for pair in steps.windows(2) {
            for (dialer, acceptor) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                let id = dialer.id_in_use();
                let proof = dialer.prove(id, Role::Dialer, &challenge).unwrap();
                let used = acceptor.check(Role::Dialer, &challenge, &proof).unwrap();
                let answer = acceptor.prove(used, Role::Acceptor, &challenge).unwrap();
                assert_eq!(dialer.check(Role::Acceptor, &challenge, &answer), Ok(id));
            }
        }
    }

    #[test]
    fn unusable_secrets_are_refused_and_usable_ones_not_shown() {
        let short = &ONE[..31];
        for text in [
            "",
            "\n\n",
            short,
            "with a blank inside it, which is no secret",
        ] {
            assert!(Secrets::parse(text.as_bytes()).is_none(), "{text:?}");
        }
        let three = [ONE, TWO, "fedcba9876543210fedcba9876543210"].join("\n");
        assert!(Secrets::parse(three.as_bytes()).is_none());
        let long = "x".repeat(SECRET_BYTES_MAX + 1);
        assert!(Secrets::parse(long.as_bytes()).is_none());
        let with_ends = format!("\r\n{TWO}\r\n\n");
        let secrets = Secrets::parse(with_ends.as_bytes()).unwrap();
        assert!(!format!("{secrets:?}").contains("canary"));
    }
}
