//! Reads fields off a frame's body without ever trusting a length.

use bytes::Bytes;
use nearcache_store::{NodeId, Version};

use super::WireError;
use crate::ids::Epoch;
use crate::time::Time;

/// Where a decoder stands in a body.
pub(super) struct Reader<'a> {
    body: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(body: &'a Bytes) -> Self {
        Self { body, at: 0 }
    }

    pub(super) fn remaining(&self) -> usize {
        self.body.len() - self.at
    }

    /// The next `len` bytes, in place.
    pub(super) fn slice(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(len).ok_or(WireError::Truncated)?;
        let slice = self.body.get(self.at..end).ok_or(WireError::Truncated)?;
        self.at = end;
        Ok(slice)
    }

    /// The next `len` bytes, sharing the body's memory.
    pub(super) fn shared(&mut self, len: usize) -> Result<Bytes, WireError> {
        let start = self.at;
        self.slice(len)?;
        Ok(self.body.slice(start..self.at))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.slice(N)?;
        bytes
            .first_chunk::<N>()
            .copied()
            .ok_or(WireError::Truncated)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A 16-bit length or count.
    pub(super) fn len16(&mut self) -> Result<usize, WireError> {
        Ok(usize::from(self.u16()?))
    }

    /// A 32-bit length or count.
    pub(super) fn len32(&mut self) -> Result<usize, WireError> {
        usize::try_from(self.u32()?).map_err(|_| WireError::Truncated)
    }

    /// 0 or 1.
    pub(super) fn bool(&mut self, field: &'static str) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Invalid { field }),
        }
    }

    pub(super) fn version(&mut self) -> Result<Version, WireError> {
        Ok(Version::from_bytes(self.array()?))
    }

    pub(super) fn epoch(&mut self) -> Result<Epoch, WireError> {
        Ok(Epoch::from_u64(self.u64()?))
    }

    pub(super) fn node(&mut self) -> Result<NodeId, WireError> {
        Ok(NodeId::from_u64(self.u64()?))
    }

    pub(super) fn time(&mut self) -> Result<Time, WireError> {
        Ok(Time::from_nanos(self.u64()?))
    }

    /// A list's capacity: what the rest of the body can hold if each item takes at least `item_bytes_min`.
    pub(super) fn count(
        &self,
        announced: usize,
        item_bytes_min: usize,
    ) -> Result<usize, WireError> {
        if announced > self.remaining() / item_bytes_min {
            return Err(WireError::Truncated);
        }
        Ok(announced)
    }

    /// Nothing may follow.
    pub(super) fn finish(&self) -> Result<(), WireError> {
        match self.remaining() {
            0 => Ok(()),
            extra_bytes => Err(WireError::TrailingBytes { extra_bytes }),
        }
    }
}
