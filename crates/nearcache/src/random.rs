//! Where this crate's randomness comes from: the thread's generator, or under turmoil one that the test has seeded.

use rand::distr::{Distribution, StandardUniform};

/// A random value.
#[cfg(not(feature = "turmoil"))]
pub(crate) fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    rand::random()
}

/// A value of this thread's seeded generator.
#[cfg(feature = "turmoil")]
pub(crate) fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    crate::simulated::random()
}
