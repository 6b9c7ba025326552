//! The arguments of one request, as ranges into the bytes it came in.

/// Where one argument lies. Requests are bounded far below 4 GiB, so 32 bits are enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ArgRange {
    start: u32,
    end: u32,
}

impl ArgRange {
    /// The range from `start` to `end`. A position beyond 4 GiB cannot come out of a bounded
    /// request; it would be read as an empty argument.
    pub(super) fn new(start: usize, end: usize) -> Self {
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Self { start, end },
            _ => Self { start: 0, end: 0 },
        }
    }

    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// The arguments of one request; the first is the command's name. Copying it copies two references.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a> {
    bytes: &'a [u8],
    ranges: &'a [ArgRange],
}

impl<'a> Args<'a> {
    pub(super) fn new(bytes: &'a [u8], ranges: &'a [ArgRange]) -> Self {
        Self { bytes, ranges }
    }

    /// Number of arguments, the command's name included.
    pub(crate) fn len(self) -> usize {
        self.ranges.len()
    }

    /// The argument at `index`; empty beyond the last.
    pub(crate) fn at(self, index: usize) -> &'a [u8] {
        self.ranges
            .get(index)
            .map_or(&[], |range| range.of(self.bytes))
    }

    /// The arguments from `index` on.
    pub(crate) fn from(self, index: usize) -> impl ExactSizeIterator<Item = &'a [u8]> {
        let bytes = self.bytes;
        self.ranges
            .get(index..)
            .unwrap_or_default()
            .iter()
            .map(move |range| range.of(bytes))
    }
}

impl std::fmt::Debug for Args<'_> {
    /// Prints lengths only: arguments hold keys and values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.from(0).map(<[u8]>::len))
            .finish()
    }
}
