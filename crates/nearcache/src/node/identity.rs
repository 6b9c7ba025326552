//! Who a node is.

use std::hash::Hasher as _;

use nearcache_store::NodeId;
use siphasher::sip::SipHasher24;

use crate::random::random;

/// The id of the node called `name` in `cluster`: the same at every start.
///
/// A hash of 64 bits; two names of one cluster collide with odds of one in 2^64, and then the
/// second node is refused by the first.
pub(crate) fn id_of_name(cluster: &str, name: &str) -> NodeId {
    let mut hasher = SipHasher24::new();
    hasher.write(b"nearcache/node/");
    hasher.write(cluster.as_bytes());
    hasher.write(&[0]);
    hasher.write(name.as_bytes());
    NodeId::from_u64(hasher.finish().max(1))
}

/// The id of a node without a name: one that no other has.
pub(crate) fn random_id() -> NodeId {
    NodeId::from_u64(random::<u64>().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_the_same_id_at_every_start_and_another_in_every_cluster() {
        assert_eq!(id_of_name("shop", "one"), id_of_name("shop", "one"));
        assert_ne!(id_of_name("shop", "one"), id_of_name("shop", "two"));
        assert_ne!(id_of_name("shop", "one"), id_of_name("bank", "one"));
        assert_ne!(id_of_name("ab", "c"), id_of_name("a", "bc"));
    }
}
