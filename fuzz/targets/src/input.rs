//! What an input says.

/// Reads an input from its front: numbers, and the bytes that are left. Behind its end it says zero, so that any bytes
/// are an input.
pub struct InputReader<'a>(&'a [u8]);

impl<'a> InputReader<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    /// A number below `limit`, of a byte where that says all of them, else of four.
    pub fn below(&mut self, limit: usize) -> usize {
        let number = match limit {
            0..=256 => usize::from(self.byte()),
            _ => self
                .bytes(4)
                .iter()
                .fold(0, |number, byte| number << 8 | usize::from(*byte)),
        };
        number % limit.max(1)
    }

    /// So many bytes, or as many as are left.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Bytes behind their length, at most 255.
    pub fn piece(&mut self) -> &'a [u8] {
        let len = self.byte();
        self.bytes(len.into())
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}
