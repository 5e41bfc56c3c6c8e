//! Numbers as bytes and back, bit for bit: little endian, in a fixed order, without names.

/// Writes numbers one after the other.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub fn integer(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub fn real(&mut self, number: f64) {
        self.integer(number.to_bits());
    }

    pub fn reals<const N: usize>(&mut self, numbers: [f64; N]) {
        numbers.into_iter().for_each(|number| self.real(number));
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads what a [`Writer`] wrote. Every read is `None` beyond the end.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn integer(&mut self) -> Option<u64> {
        let (head, tail) = self.0.split_first_chunk::<8>()?;
        self.0 = tail;
        Some(u64::from_le_bytes(*head))
    }

    /// A finite number: nothing that is kept is ever anything else.
    pub fn real(&mut self) -> Option<f64> {
        self.integer().map(f64::from_bits).filter(|number| number.is_finite())
    }

    pub fn reals<const N: usize>(&mut self) -> Option<[f64; N]> {
        let mut numbers = [0.0; N];
        for number in &mut numbers {
            *number = self.real()?;
        }
        Some(numbers)
    }

    /// Numbers that count or weigh something.
    pub fn amounts<const N: usize>(&mut self) -> Option<[f64; N]> {
        self.reals().filter(|numbers| numbers.iter().all(|number| *number >= 0.0))
    }

    /// Whether everything was read.
    pub fn done(&self) -> bool {
        self.0.is_empty()
    }
}
