//! What a client has seen of a space: the epochs of its own writes.

use std::collections::BTreeMap;

use kvspace_protocol::id::EpochId;

/// Epochs remembered at one time: as many as a node waits for.
const EPOCHS_MAX: usize = 16;

/// Of each node the last epoch that it answered a write with. What a host commits in a space stands in one line, so the
/// last epoch has all before it in its Past.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<String, (u64, EpochId)>);

impl Seen {
    /// The epochs, ascending.
    pub(crate) fn epochs(&self) -> Vec<EpochId> {
        let mut epochs: Vec<_> = self.0.values().map(|(_, epoch)| *epoch).collect();
        epochs.sort_unstable();
        epochs.dedup();
        epochs
    }

    /// Takes in the epoch of a write that `node` answered, its clock, and what the write had said it has seen: that lies
    /// in the epoch's Past.
    pub(crate) fn written(&mut self, node: &str, seq: u64, epoch: EpochId, after: &[EpochId]) {
        self.0.retain(|known, (_, seen)| known == node || !after.contains(seen));
        // Answers to writes under way together come in any order.
        if self.0.get(node).is_none_or(|(last, _)| *last <= seq) {
            self.put(node, seq, epoch);
        }
    }

    /// Takes in an epoch that somebody else told of.
    pub(crate) fn told(&mut self, epoch: EpochId) {
        if !self.epochs().contains(&epoch) {
            self.put(&epoch.to_string(), 0, epoch);
        }
    }

    fn put(&mut self, from: &str, seq: u64, epoch: EpochId) {
        self.0.insert(from.to_owned(), (seq, epoch));
        while self.0.len() > EPOCHS_MAX {
            let other = |(known, _): &(&String, &(u64, EpochId))| *known != from;
            let oldest = self.0.iter().filter(other).min_by_key(|(_, (seq, _))| *seq).map(|(known, _)| known.clone());
            oldest.map(|known| self.0.remove(&known));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(name: u8) -> EpochId {
        EpochId::of(&[name])
    }

    fn sorted(names: &[u8]) -> Vec<EpochId> {
        let mut epochs: Vec<_> = names.iter().map(|name| epoch(*name)).collect();
        epochs.sort_unstable();
        epochs
    }

    #[test]
    fn the_last_write_at_a_node_stands_for_those_before_it() {
        let mut seen = Seen::default();
        seen.written("a", 2, epoch(2), &[]);
        seen.written("a", 1, epoch(1), &[]);
        assert_eq!(seen.epochs(), [epoch(2)]);
        seen.written("a", 3, epoch(3), &[epoch(2)]);
        assert_eq!(seen.epochs(), [epoch(3)]);
    }

    #[test]
    fn writes_at_two_nodes_stand_beside_each_other_until_one_has_seen_the_other() {
        let mut seen = Seen::default();
        seen.written("a", 1, epoch(1), &[]);
        seen.written("b", 9, epoch(2), &[]);
        assert_eq!(seen.epochs(), sorted(&[1, 2]));
        seen.written("b", 10, epoch(3), &[epoch(1), epoch(2)]);
        assert_eq!(seen.epochs(), [epoch(3)]);
    }

    #[test]
    fn what_others_told_stays_until_a_write_has_it() {
        let mut seen = Seen::default();
        seen.told(epoch(7));
        seen.told(epoch(7));
        seen.written("a", 1, epoch(1), &[]);
        assert_eq!(seen.epochs(), sorted(&[1, 7]));
        seen.written("a", 2, epoch(2), &sorted(&[1, 7]));
        assert_eq!(seen.epochs(), [epoch(2)]);
        (0..100).for_each(|name| seen.told(epoch(name)));
        assert_eq!(seen.epochs().len(), EPOCHS_MAX);
    }
}
