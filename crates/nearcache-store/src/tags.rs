//! The tags of an entry: [`Tags`], one word wide, without an allocation when there are none.

use std::fmt;

use triomphe::ThinArc;

/// An immutable, sorted set of byte strings; cloning shares it.
///
/// All tags lie in one allocation, each as its length in two big-endian bytes, then its bytes.
/// An entry without tags costs one null word.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tags(Option<ThinArc<(), u8>>);

/// The tags given cannot be kept: too many, or one is too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{count} tags, the longest of {longest_bytes} bytes; at most {count_max} of {bytes_max}", count_max = Tags::COUNT_MAX, bytes_max = Tags::TAG_BYTES_MAX)]
pub struct TagsTooLarge {
    /// How many there are.
    pub count: usize,
    /// Length of the longest, in bytes.
    pub longest_bytes: usize,
}

impl Tags {
    /// No tags at all.
    pub const NONE: Self = Self(None);
    /// Most tags an entry may carry (guess: a page lists that many objects).
    pub const COUNT_MAX: usize = 64;
    /// Longest tag, in bytes (guess).
    pub const TAG_BYTES_MAX: usize = 1024;

    /// The set of these tags; order and repetitions do not matter.
    ///
    /// # Errors
    /// [`TagsTooLarge`] beyond [`Tags::COUNT_MAX`] tags or [`Tags::TAG_BYTES_MAX`] bytes in one.
    pub fn new<T: AsRef<[u8]>>(tags: impl IntoIterator<Item = T>) -> Result<Self, TagsTooLarge> {
        let mut tags: Vec<T> = tags.into_iter().collect();
        tags.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        tags.dedup_by(|a, b| a.as_ref() == b.as_ref());
        let longest_bytes = tags.iter().map(|t| t.as_ref().len()).max().unwrap_or(0);
        if tags.len() > Self::COUNT_MAX || longest_bytes > Self::TAG_BYTES_MAX {
            return Err(TagsTooLarge {
                count: tags.len(),
                longest_bytes,
            });
        }
        if tags.is_empty() {
            return Ok(Self::NONE);
        }
        let mut packed = Vec::with_capacity(tags.iter().map(|t| t.as_ref().len() + 2).sum());
        for tag in &tags {
            let tag = tag.as_ref();
            let len = u16::try_from(tag.len()).unwrap_or(u16::MAX);
            packed.extend_from_slice(&len.to_be_bytes());
            packed.extend_from_slice(tag);
        }
        Ok(Self(Some(ThinArc::from_header_and_slice((), &packed))))
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many there are. Cost: linear in their number.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// The tags in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = self.0.as_ref().map_or(&[], |packed| &packed.slice);
        std::iter::from_fn(move || {
            let (len, after) = rest.split_first_chunk::<2>()?;
            let (tag, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            rest = after;
            Some(tag)
        })
    }

    /// Bytes allocated for the set; shared between entries that share it.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |packed| packed.slice.len() + 2 * size_of::<usize>())
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tags({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_is_sorted_and_without_repetitions() -> Result<(), TagsTooLarge> {
        let tags = Tags::new(["b", "a", "", "b"])?;
        assert_eq!(tags.iter().collect::<Vec<_>>(), [&b""[..], b"a", b"b"]);
        assert_eq!(tags, Tags::new(["a", "b", ""])?);
        Ok(())
    }

    #[test]
    fn empty_set_is_one_word_without_allocation() {
        assert_eq!(size_of::<Tags>(), size_of::<usize>());
        assert_eq!(Tags::new(Vec::<Vec<u8>>::new()), Ok(Tags::NONE));
        assert_eq!(Tags::NONE.weight_bytes(), 0);
    }

    #[test]
    fn too_many_or_too_long_is_refused() {
        let long = vec![0; Tags::TAG_BYTES_MAX + 1];
        assert_eq!(
            Tags::new([long]),
            Err(TagsTooLarge {
                count: 1,
                longest_bytes: 1025
            })
        );
        let many = (0..=Tags::COUNT_MAX).map(|n| n.to_be_bytes());
        assert_eq!(
            Tags::new(many),
            Err(TagsTooLarge {
                count: 65,
                longest_bytes: 8
            })
        );
    }
}
