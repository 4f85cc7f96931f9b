//! Structured input out of bytes: every choice is read from the input, so that a mutation of the bytes
//! mutates the structure.

/// Choices read from the bytes of one input. Once these are used up, each choice is the first of its
/// kind: zero, `false`, `None`, the first sample unchanged.
pub struct Choices<'b>(&'b [u8]);

impl<'b> Choices<'b> {
    /// Takes choices from these bytes; once they are used up, every choice is the first.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// Whether the input is used up.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    /// Less than `end`, which is at most 65536.
    pub fn below(&mut self, end: usize) -> usize {
        let low = usize::from(self.byte());
        let number = if end > 256 {
            usize::from(self.byte()) << 8 | low
        } else {
            low
        };
        number % end
    }

    /// Returns a truth value.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// `None`, or what `make` makes.
    pub fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| make(self))
    }

    /// Any number, the ends of the range more often than others.
    pub fn number(&mut self) -> u64 {
        match self.byte() % 4 {
            0 => u64::from(self.byte() % 4),
            1 => u64::MAX - u64::from(self.byte() % 4),
            2 => 1 << (self.byte() % 64),
            _ => u64::from_le_bytes([0; 8].map(|_: u8| self.byte())),
        }
    }

    /// The same of 32 bits.
    pub fn small_number(&mut self) -> u32 {
        u32::try_from(self.number()).unwrap_or(u32::MAX)
    }

    /// Returns one of the options, of which there is at least one.
    pub fn one_of<'o, T>(&mut self, options: &'o [T]) -> &'o T {
        &options[self.below(options.len())]
    }

    /// One of `samples`, with bytes changed, inserted, removed or repeated.
    pub fn near(&mut self, samples: &[&[u8]]) -> Vec<u8> {
        let mut bytes = self.one_of(samples).to_vec();
        for _ in 0..self.below(8) {
            self.change(&mut bytes);
        }
        bytes
    }

    /// The same as text.
    pub fn near_text(&mut self, samples: &[&str]) -> String {
        let samples: Vec<&[u8]> = samples.iter().map(|sample| sample.as_bytes()).collect();
        String::from_utf8_lossy(&self.near(&samples)).into_owned()
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let at = self.below(length + 1);
        let end = length.min(at + self.below(32));
        match self.byte() % 8 {
            0 => {
                if let Some(there) = bytes.get_mut(at) {
                    *there = self.byte();
                }
            }
            1 => {
                if let Some(there) = bytes.get_mut(at) {
                    *there ^= 1 << (self.byte() % 8);
                }
            }
            2 => {
                let more: Vec<u8> = (0..self.below(16)).map(|_| self.byte()).collect();
                bytes.splice(at..at, more);
            }
            3 => bytes.insert(at, *self.one_of(b"\0\xff\x7f\n\r\"'\\{}[]@:,=#/-0")),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let again = bytes[at..end].to_vec();
                let to = self.below(length + 1);
                bytes.splice(to..to, again);
            }
            6 => bytes.truncate(at),
            _ => {
                let more = vec![*bytes.get(at).unwrap_or(&b'a'); self.below(1024)];
                bytes.splice(at..at, more);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_is_used_up_still_gives_choices() {
        let mut choices = Choices::new(&[1]);
        assert!(choices.flag());
        assert_eq!(choices.near_text(&["first", "second"]), "first");
        assert_eq!((choices.number(), choices.below(1000)), (0, 0));
        assert_eq!(choices.maybe(Choices::byte), None);
    }
}
