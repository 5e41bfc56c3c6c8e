//! How far the clock of a load balancer is ahead of the coordinator's, as told by the ticks that come from it. A tick that
//! took long on its way makes the load balancer look too far behind, never too far ahead: so the largest difference is the
//! truest, until a clock was set.

/// A clock that goes back further than this at once was set anew, and so were clocks that go apart further.
const CLOCK_STEP_S: i128 = 2;
/// So many ticks in a row that are as far behind as is tolerated are no late ones: the clocks have come apart slowly.
const BEHIND_TICKS: u32 = 30;

/// What is known of one load balancer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offset {
    ahead_s: Option<i128>,
    /// Ticks in a row that were as far behind as is tolerated.
    behind: u32,
}

impl Offset {
    /// As another coordinator knew it.
    pub(crate) fn known(ahead_s: i128) -> Self {
        Self { ahead_s: Some(ahead_s), behind: 0 }
    }

    /// Whether a tick with this difference came late, or a clock was set.
    pub(crate) fn is_late(&self, apart_s: i128) -> bool {
        self.ahead_s.is_some_and(|ahead_s| apart_s < ahead_s.saturating_sub(CLOCK_STEP_S))
    }

    /// Takes in the difference that the newest tick shows; how far the load balancer's clock is ahead.
    pub(crate) fn take(&mut self, apart_s: i128) -> i128 {
        let late_s = self.ahead_s.map_or(0, |ahead_s| ahead_s.saturating_sub(apart_s));
        self.behind = if late_s == CLOCK_STEP_S { self.behind.saturating_add(1) } else { 0 };
        let anew = !(1..=CLOCK_STEP_S).contains(&late_s) || self.behind >= BEHIND_TICKS;
        if anew {
            self.behind = 0;
        }
        *self.ahead_s.insert(self.ahead_s.filter(|_| !anew).unwrap_or(apart_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(apart_s: &[i128]) -> i128 {
        let mut offset = Offset::default();
        apart_s.iter().map(|apart_s| offset.take(*apart_s)).last().unwrap()
    }

    #[test]
    fn a_late_tick_says_less_than_one_in_time() {
        assert_eq!(after(&[5]), 5);
        // The first one came late.
        assert_eq!(after(&[3, 5]), 5);
        assert_eq!(after(&[5, 4, 3, 4]), 5);
        assert_eq!(after(&[-1, -2]), -1);
    }

    #[test]
    fn a_clock_that_was_set_is_followed() {
        assert_eq!(after(&[5, 3_605]), 3_605);
        assert_eq!(after(&[5, 2]), 2);
        let mut offset = Offset::default();
        assert!(!offset.is_late(-9), "nothing is known");
        offset.take(5);
        assert!(offset.is_late(2) && !offset.is_late(3) && !offset.is_late(9));
    }

    #[test]
    fn clocks_that_come_apart_slowly_are_followed() {
        let mut apart_s = vec![5];
        apart_s.extend([3; 29]);
        assert_eq!(after(&apart_s), 5);
        apart_s.push(3);
        assert_eq!(after(&apart_s), 3);
    }
}
