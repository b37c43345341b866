//! The values that one part of a date or time may have.

/// A set of small numbers within fixed limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValueSet {
    /// The smallest value there is.
    min: u16,
    /// One more than the largest value there is.
    end: u16,
    /// One bit for each value from 0.
    bits: Vec<u64>,
}

impl ValueSet {
    pub(crate) fn empty(min: u16, end: u16) -> Self {
        let bits = vec![0; usize::from(end).div_ceil(64)];
        Self { min, end, bits }
    }

    pub(crate) fn full(min: u16, end: u16) -> Self {
        let mut set = Self::empty(min, end);
        set.insert_steps(min, end, 1);
        set
    }

    pub(crate) fn one(min: u16, end: u16, value: u16) -> Self {
        let mut set = Self::empty(min, end);
        set.insert(value);
        set
    }

    /// Adds a value; values outside the limits never happen, so they are left out.
    pub(crate) fn insert(&mut self, value: u16) {
        if (self.min..self.end).contains(&value)
            && let Some(word) = self.bits.get_mut(usize::from(value / 64))
        {
            *word |= 1 << (value % 64);
        }
    }

    /// Adds `from` and every `step`th value after it that is below `end`; without a step, `from` alone.
    pub(crate) fn insert_steps(&mut self, from: u16, end: u16, step: u16) {
        if step == 0 {
            self.insert(from);
        } else {
            (from..end)
                .step_by(step.into())
                .for_each(|value| self.insert(value));
        }
    }

    pub(crate) fn contains(&self, value: u16) -> bool {
        self.bits
            .get(usize::from(value / 64))
            .is_some_and(|word| word >> (value % 64) & 1 == 1)
    }

    /// The smallest member that is not below `from`.
    pub(crate) fn next(&self, from: u16) -> Option<u16> {
        (from.max(self.min)..self.end).find(|value| self.contains(*value))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (self.min..self.end).filter(|value| self.contains(*value))
    }

    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() == usize::from(self.end - self.min)
    }

    /// The only member.
    pub(crate) fn single(&self) -> Option<u16> {
        let mut members = self.iter();
        members.next().filter(|_| members.next().is_none())
    }

    /// First member and step, if the members go on in equal steps of more than one until the limit.
    pub(crate) fn steps(&self) -> Option<(u16, u16)> {
        let members: Vec<u16> = self.iter().collect();
        let ([first, second, ..], Some(last)) = (members.as_slice(), members.last()) else {
            return None;
        };
        let step = second - first;
        let even = members
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if b - a == step));
        (even && step > 1 && last + step >= self.end).then_some((*first, step))
    }

    /// Runs of successive members, each as first and last.
    pub(crate) fn runs(&self) -> Vec<(u16, u16)> {
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for value in self.iter() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == value => *last = value,
                _ => runs.push((value, value)),
            }
        }
        runs
    }

    /// The set in the grammar of calendar events, numbers with so many digits.
    pub(crate) fn text(&self, digits: usize) -> String {
        if self.is_full() {
            return "*".to_owned();
        }
        if let Some((first, step)) = self.steps()
            && self.len() > 2
        {
            return format!("{first:0digits$}/{step}");
        }
        let number = |value: u16| format!("{value:0digits$}");
        let runs = join_runs(&self.runs(), "..", ",", number);
        if runs.is_empty() {
            // Only day or month 0 was named, which does not exist.
            return number(0);
        }
        runs
    }
}

/// Runs as text; those of one or two members are spelt out.
pub(crate) fn join_runs(
    runs: &[(u16, u16)],
    to: &str,
    separator: &str,
    name: impl Fn(u16) -> String,
) -> String {
    let parts: Vec<String> = runs
        .iter()
        .map(|(first, last)| match last - first {
            0 => name(*first),
            1 => format!("{}{separator}{}", name(*first), name(*last)),
            _ => format!("{}{to}{}", name(*first), name(*last)),
        })
        .collect();
    parts.join(separator)
}
