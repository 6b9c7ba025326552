//! What a value weighs: the trait [`Weigh`].

use std::sync::Arc;

/// A value that a store can hold: it knows its size, and is cheap to share.
///
/// The weight is read once, when the entry is made, and must not change while the store holds it. What the
/// value allocates later (a lazily decoded form, say) has to be counted from the start or left out.
///
/// `Clone` is used when an entry gets a new expiry while keeping its value, so it should be cheap
/// (`Bytes`, `Arc`).
pub trait Weigh: Clone + Send + Sync + 'static {
    /// Bytes the value occupies on the heap, besides its own `size_of`.
    fn weight(&self) -> usize;
}

impl Weigh for Box<[u8]> {
    fn weight(&self) -> usize {
        self.len()
    }
}

impl Weigh for Vec<u8> {
    fn weight(&self) -> usize {
        self.capacity()
    }
}

impl Weigh for String {
    fn weight(&self) -> usize {
        self.capacity()
    }
}

impl Weigh for Arc<[u8]> {
    fn weight(&self) -> usize {
        self.len() + 2 * size_of::<usize>()
    }
}

impl<T: Weigh> Weigh for Arc<T> {
    fn weight(&self) -> usize {
        T::weight(self) + size_of::<T>() + 2 * size_of::<usize>()
    }
}

macro_rules! weigh_nothing {
    ($($plain:ty),*) => {$(
        impl Weigh for $plain {
            fn weight(&self) -> usize {
                0
            }
        }
    )*};
}

weigh_nothing!((), bool, u8, u16, u32, u64, u128, i32, i64, f64);
