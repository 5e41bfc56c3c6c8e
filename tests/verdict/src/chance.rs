//! Seeded chance: the same numbers on every machine.

/// Xoshiro256++ (Blackman and Vigna 2019), filled by SplitMix64: billions of draws in a run need a long period.
#[derive(Clone, Debug)]
pub struct Chance([u64; 4]);

impl Chance {
    /// The chance of one history, by the seed of all and the numbers of this one: neighbours have nothing in common.
    pub fn of(seed: u64, series: u64, history: u64) -> Self {
        let mut state = seed;
        for number in [series, history] {
            state = split_mix(&mut state) ^ number.wrapping_mul(0xD134_2543_DE82_EF95);
        }
        Self(std::array::from_fn(|_| split_mix(&mut state)))
    }

    fn draw(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let drawn = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c2, d2) = (c ^ a, d ^ b);
        self.0 = [a ^ d2, b ^ c2, c2 ^ (b << 17), d2.rotate_left(45)];
        drawn
    }

    /// A number from 0 up to, but not including, 1.
    pub fn unit(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.draw() >> 11) as f64 * STEP
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Numbers of events in a tick, when events come by themselves at a mean rate: a table of the distribution, exact to
/// the step of a double.
#[derive(Clone, Debug)]
pub struct Poisson {
    first: u32,
    /// Chance of `first + index` events or fewer.
    up_to: Vec<f64>,
}

impl Poisson {
    /// The distribution with this mean.
    pub fn of(mean: f64) -> Self {
        // Twelve standard deviations and a few: what lies beyond has a chance below 1e-17.
        let reach = 12.0 * mean.sqrt() + 20.0;
        let first = (mean - reach).max(0.0).floor();
        let start = first as u32;
        let mut ln = -mean - (1..=start).map(|k| (f64::from(k) / mean).ln()).sum::<f64>();
        let mut up_to = Vec::new();
        let (mut sum, mut k) = (0.0, start);
        while f64::from(k) <= mean + reach {
            sum += if mean > 0.0 { ln.exp() } else { f64::from(u8::from(k == 0)) };
            up_to.push(sum);
            k += 1;
            ln += if mean > 0.0 { (mean / f64::from(k)).ln() } else { 0.0 };
        }
        Self { first: start, up_to }
    }

    /// Draws a number.
    pub fn draw(&self, chance: &mut Chance) -> u32 {
        let unit = chance.unit();
        let index = self.up_to.partition_point(|up_to| *up_to <= unit);
        self.first + u32::try_from(index.min(self.up_to.len().saturating_sub(1))).unwrap_or(0)
    }
}

/// The chance that a standard normal number is above `z`, to seven digits (Press et al., Numerical Recipes, `erfcc`).
pub fn normal_tail(z: f64) -> f64 {
    let x = (z / std::f64::consts::SQRT_2).abs();
    let t = 1.0 / (1.0 + 0.5 * x);
    let coefficients = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let series = coefficients.iter().fold(0.0, |sum, term| sum * t + term);
    let tail = t * (-x * x + series).exp() / 2.0;
    if z >= 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_chance() {
        let draws = |seed, series, history| {
            let mut chance = Chance::of(seed, series, history);
            [chance.draw(), chance.draw(), chance.draw()]
        };
        assert_eq!(draws(1, 2, 3), draws(1, 2, 3));
        assert!(
            [draws(2, 2, 3), draws(1, 3, 3), draws(1, 2, 4)].iter().all(|other| *other != draws(1, 2, 3))
        );
    }

    #[test]
    fn mean_and_variance_of_a_poisson_number_are_its_mean() {
        for mean in [0.0, 0.000_2, 0.05, 1.0, 7.3, 100.0, 900.0] {
            let (poisson, mut chance) = (Poisson::of(mean), Chance::of(7, 0, 0));
            let last = poisson.up_to.last().unwrap();
            assert!((last - 1.0).abs() < 1e-10, "{mean}: {last}");
            let draws: Vec<f64> = (0..40_000).map(|_| f64::from(poisson.draw(&mut chance))).collect();
            let found = draws.iter().sum::<f64>() / 40_000.0;
            let variance = draws.iter().map(|draw| (draw - found).powi(2)).sum::<f64>() / 40_000.0;
            assert!((found - mean).abs() <= 5.0 * (mean / 40_000.0).sqrt() + 1e-9, "{mean}: {found}");
            assert!((variance - mean).abs() <= 0.05 * mean + 0.001, "{mean}: {variance}");
        }
    }

    #[test]
    fn tails_are_as_in_every_table() {
        for (z, tail) in [(0.0, 0.5), (1.0, 0.158_655_25), (2.326_347_9, 0.01), (-1.0, 0.841_344_75)] {
            assert!((normal_tail(z) - tail).abs() < 1e-6, "{z}");
        }
    }
}
