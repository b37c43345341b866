//! One archive: a ring of slots of equal length, each with what was measured in it, made one value.

/// How the values of a slot become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consolidation {
    /// Their mean.
    Average,
    /// The largest.
    Max,
}

/// A ring of slots. A slot without a value is not a number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ring {
    /// Length of a slot, seconds.
    pub(super) resolution: i64,
    pub(super) consolidation: Consolidation,
    /// Values that were put into the newest slot.
    pub(super) count: u32,
    pub(super) slots: Vec<f64>,
}

impl Ring {
    pub(super) fn new(resolution: i64, slots: usize, consolidation: Consolidation) -> Self {
        Self {
            resolution,
            consolidation,
            count: 0,
            slots: vec![f64::NAN; slots],
        }
    }

    /// Number of the slot of a time, counted from 1970.
    fn number(&self, time: i64) -> i64 {
        time.div_euclid(self.resolution)
    }

    fn position(&self, number: i64) -> usize {
        let length = i64::try_from(self.slots.len()).unwrap_or(i64::MAX).max(1);
        usize::try_from(number.rem_euclid(length)).unwrap_or(0)
    }

    /// Puts a value in; `last` is the time of the one before, which is earlier.
    pub(super) fn put(&mut self, time: i64, last: i64, value: f64) {
        let (new, old) = (self.number(time), self.number(last));
        if new > old {
            self.count = 0;
            let length = i64::try_from(self.slots.len()).unwrap_or(i64::MAX);
            for number in new.saturating_sub(length).max(old).saturating_add(1)..=new {
                let position = self.position(number);
                if let Some(slot) = self.slots.get_mut(position) {
                    *slot = f64::NAN;
                }
            }
        }
        let position = self.position(new);
        let Some(slot) = self.slots.get_mut(position) else {
            return;
        };
        if self.count == 0 || slot.is_nan() {
            (*slot, self.count) = (value, 1);
            return;
        }
        self.count = self.count.saturating_add(1);
        *slot = match self.consolidation {
            Consolidation::Average => *slot + (value - *slot) / f64::from(self.count),
            Consolidation::Max => slot.max(value),
        };
    }

    /// The values from `start` to `end`, one for each slot length, as many as there are slots; `last` is the time of the
    /// newest value.
    pub(super) fn extract(&self, start: i64, end: i64, last: i64) -> Vec<Option<f64>> {
        let newest = self.number(last);
        let length = i64::try_from(self.slots.len()).unwrap_or(i64::MAX);
        let times =
            (0..length).map(|step| start.saturating_add(step.saturating_mul(self.resolution)));
        times
            .take_while(|time| *time <= end)
            .map(|time| {
                let number = self.number(time);
                let is_kept = number <= newest && number > newest.saturating_sub(length);
                let value = self.slots.get(self.position(number)).copied();
                value.filter(|value| is_kept && !value.is_nan())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_of_one_slot_become_their_mean_or_the_largest() {
        for (consolidation, expected) in [(Consolidation::Average, 2.0), (Consolidation::Max, 3.0)]
        {
            let mut ring = Ring::new(60, 5, consolidation);
            ring.put(600, 0, 1.0);
            ring.put(610, 600, 3.0);
            ring.put(620, 610, 2.0);
            assert_eq!(ring.extract(600, 600, 620), [Some(expected)]);
        }
    }

    #[test]
    fn slots_without_a_value_are_empty_and_old_ones_are_forgotten() {
        let mut ring = Ring::new(60, 5, Consolidation::Average);
        ring.put(60, 0, 1.0);
        ring.put(240, 60, 4.0);
        assert_eq!(
            ring.extract(0, 300, 240),
            [None, Some(1.0), None, None, Some(4.0)]
        );
        ring.put(540, 240, 9.0);
        assert_eq!(
            ring.extract(240, 600, 540),
            // the slot of 240 has been used again
            [None, None, None, None, None]
        );
        assert_eq!(ring.extract(540, 600, 540), [Some(9.0), None]);
    }

    proptest! {
        #[test]
        fn a_ring_agrees_with_a_list_of_all_values(
            steps in proptest::collection::vec((1i64..400, 0.0f64..100.0), 1..60),
        ) {
            let mut ring = Ring::new(60, 7, Consolidation::Max);
            let (mut time, mut all): (i64, Vec<(i64, f64)>) = (0, Vec::new());
            for (step, value) in steps {
                ring.put(time + step, time, value);
                time += step;
                all.push((time, value));
            }
            let newest = time / 60;
            for number in (newest - 12).max(0)..=newest + 2 {
                let values = all.iter().filter(|(time, _)| time / 60 == number).map(|(_, value)| *value);
                let expected = values.reduce(f64::max).filter(|_| number > newest - 7);
                prop_assert_eq!(ring.extract(number * 60, number * 60, time), vec![expected]);
            }
        }
    }
}
