//! Which groups of a value: a set of group numbers that takes room for its gaps alone, whatever size a value claims.

use std::{collections::BTreeMap, ops::Range};

use kvspace_protocol::sync::blob::GROUP_BYTES;

/// A set of group numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    /// First number and the one behind the last, neither empty nor touching each other.
    runs: BTreeMap<u64, u64>,
}

impl Groups {
    /// All groups of a value of this size; an empty value has one, which is empty.
    pub(crate) fn of_size(size: u64) -> Self {
        let mut groups = Self::default();
        groups.insert(0..size.div_ceil(GROUP_BYTES).max(1));
        groups
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The runs, ascending.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs.iter().map(|(from, to)| *from..*to)
    }

    pub(crate) fn insert(&mut self, mut run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        let start = run.start;
        let below = self.runs.range(..=run.end).rev().map(|(from, to)| (*from, *to));
        let touching: Vec<(u64, u64)> = below.take_while(|(_, to)| *to >= start).collect();
        for (from, to) in touching {
            self.runs.remove(&from);
            run = run.start.min(from)..run.end.max(to);
        }
        self.runs.insert(run.start, run.end);
    }

    pub(crate) fn remove(&mut self, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        let below = self.runs.range(..run.end).rev().map(|(from, to)| (*from, *to));
        let touching: Vec<(u64, u64)> = below.take_while(|(_, to)| *to > run.start).collect();
        for (from, to) in touching {
            self.runs.remove(&from);
            if from < run.start {
                self.runs.insert(from, run.start);
            }
            if to > run.end {
                self.runs.insert(run.end, to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn it_holds_what_a_set_of_numbers_would() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut groups, mut model) = (Groups::default(), BTreeSet::new());
            for _ in 0..40 {
                let from = random.random_range(0..40);
                let run = from..from + random.random_range(0..8);
                if random.random_bool(0.5) {
                    groups.insert(run.clone());
                    model.extend(run);
                } else {
                    groups.remove(run.clone());
                    model.retain(|group| !run.contains(group));
                }
                assert!(groups.runs().flatten().eq(model.iter().copied()), "seed {seed}");
                let runs: Vec<_> = groups.runs().collect();
                assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start), "seed {seed}: {runs:?}");
            }
        }
    }

    #[test]
    fn a_value_has_a_group_even_when_it_is_empty() {
        for (size, count) in [(0, 1), (1, 1), (GROUP_BYTES, 1), (GROUP_BYTES + 1, 2)] {
            assert!(Groups::of_size(size).runs().flatten().eq(0..count), "{size}");
        }
    }
}
