//! Reading and writing the binary artifacts.

use super::FormatError;

/// Reads from the front; every read is bounds-checked.
pub(super) struct Reader<'b> {
    /// Of all there was.
    length: usize,
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) const fn new(bytes: &'b [u8]) -> Self {
        Self { length: bytes.len(), rest: bytes }
    }

    /// How many bytes were read.
    pub(super) const fn position(&self) -> usize {
        self.length - self.rest.len()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'b [u8], FormatError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(FormatError::Length)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(FormatError::Length)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// `count` words of 64 bits.
    pub(super) fn words(&mut self, count: u32) -> Result<&'b [[u8; 8]], FormatError> {
        let length = usize::try_from(u64::from(count) * 8).map_err(|_| FormatError::Length)?;
        Ok(self.take(length)?.as_chunks().0)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    /// An unsigned LEB128 number in its shortest form.
    pub(super) fn leb128(&mut self) -> Result<u64, FormatError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(FormatError::Number);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 { Err(FormatError::Number) } else { Ok(value) };
            }
        }
        Err(FormatError::Number)
    }

    pub(super) fn end(&self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FormatError::Length) }
    }
}

/// Appends `value` as LEB128.
#[cfg(feature = "builder")]
pub(super) fn write_leb128(mut value: u64, out: &mut alloc::vec::Vec<u8>) {
    loop {
        let bits = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            return out.push(bits);
        }
        out.push(0x80 | bits);
    }
}
