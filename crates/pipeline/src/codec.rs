//! A compact binary form for operator state: variable-length integers and byte strings.

use twinlake_contracts::{Error, Result};

/// Writes values one after the other.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Seven bits a byte, the lowest first (LEB128).
    pub fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Zigzag, so that small negative numbers stay short.
    pub fn signed(&mut self, value: i64) {
        self.unsigned(((value << 1) ^ (value >> 63)) as u64);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.unsigned(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// The eight bytes of a number, every bit of it.
    pub fn number(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn flag(&mut self, value: bool) {
        self.0.push(value.into());
    }

    /// Whether there is a value, then the value.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads what [`Writer`] wrote.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn unsigned(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or_else(cut_off)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(cut_off())
    }

    pub fn signed(&mut self) -> Result<i64> {
        let value = self.unsigned()?;
        Ok(((value >> 1) as i64) ^ -((value & 1) as i64))
    }

    pub fn number(&mut self) -> Result<f64> {
        let (bytes, rest) = self.0.split_first_chunk::<8>().ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(f64::from_le_bytes(*bytes))
    }

    pub fn flag(&mut self) -> Result<bool> {
        let (byte, rest) = self.0.split_first().ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(*byte != 0)
    }

    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    pub fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| cut_off())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.unsigned()?).map_err(|_| cut_off())?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(bytes)
    }
}

fn cut_off() -> Error {
    Error::internal("a stored operator state is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut out = Writer::default();
        let numbers = [0, 1, -1, 63, -64, 1_539_059_573_000_000, i64::MAX, i64::MIN];
        for number in numbers {
            out.signed(number);
        }
        out.bytes(b"key");
        out.unsigned(u64::MAX);
        out.number(-0.0);
        out.option(Some(7), Writer::signed);
        out.option(None, Writer::signed);
        let bytes = out.finish();
        let mut input = Reader::new(&bytes);
        for number in numbers {
            assert_eq!(input.signed().unwrap(), number);
        }
        assert_eq!(input.bytes().unwrap(), b"key");
        assert_eq!(input.unsigned().unwrap(), u64::MAX);
        assert!(input.number().unwrap().is_sign_negative());
        assert_eq!(input.option(Reader::signed).unwrap(), Some(7));
        assert_eq!(input.option(Reader::signed).unwrap(), None);
        assert!(input.is_empty());
        assert!(input.unsigned().is_err());
    }
}
