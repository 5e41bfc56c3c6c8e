//! Chance that repeats itself: numbers that follow from a seed.

/// A source of numbers.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The source of a seed. `purpose` keeps the numbers of different things apart.
    pub fn new(seed: u64, purpose: &str) -> Self {
        purpose
            .bytes()
            .fold(Self(seed), |chance, byte| Self(chance.0.rotate_left(8) ^ u64::from(byte)).stirred())
    }

    fn stirred(mut self) -> Self {
        self.next();
        self
    }

    /// The next number (splitmix64).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    /// True in `percent` of a hundred cases.
    pub fn in_percent(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }

    /// One of several.
    pub fn one_of<T: Clone>(&mut self, several: &[T]) -> T {
        let number = self.next() % u64::try_from(several.len()).unwrap();
        several.get(usize::try_from(number).unwrap()).unwrap().clone()
    }
}
