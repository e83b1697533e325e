//! Which of the spaces that two hosts share differ: range-based set reconciliation (negentropy) over one item a space.
//!
//! The item of a space is a hash over its id and its frontier, so equal logs are equal items, and a space costs nothing while
//! nothing happens in it. Only the side that asks keeps state, and only while it asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use negentropy::{Error, Id, Negentropy, NegentropyStorageVector};

use crate::{
    id::{EpochId, SpaceId},
    limits::{COMPARE_BYTES_MAX, COMPARE_ROUNDS_MAX},
};

/// The item of a space: BLAKE3 over its id and its heads, ascending.
#[must_use]
pub fn item(space: &SpaceId, frontier: &[EpochId]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(space.as_str().as_bytes());
    // No byte of a space id is zero.
    hasher.update(&[0]);
    for head in frontier {
        hasher.update(head.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// The items of the spaces shared with one peer, ready to be compared. Cheap to clone.
#[derive(Clone)]
pub struct Items {
    sorted: Arc<NegentropyStorageVector>,
    /// The spaces, by their items.
    spaces: Arc<BTreeMap<[u8; 32], SpaceId>>,
}

/// Why a message of a peer cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a broken message of set reconciliation")]
pub struct BrokenMessage;

impl From<Error> for BrokenMessage {
    fn from(_: Error) -> Self {
        Self
    }
}

impl Items {
    /// Sorts the items.
    #[must_use]
    pub fn new(items: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let mut storage = NegentropyStorageVector::new();
        for item in items {
            storage.insert(0, Id::from_byte_array(item)).expect("it is not sealed yet");
        }
        storage.seal().expect("it is not sealed yet");
        Self { sorted: Arc::new(storage), spaces: Arc::default() }
    }

    /// The same, and keeps whose they are: a space that changes while it is compared is still found by the item it had.
    #[must_use]
    pub fn of(spaces: impl IntoIterator<Item = ([u8; 32], SpaceId)>) -> Self {
        let spaces: BTreeMap<[u8; 32], SpaceId> = spaces.into_iter().collect();
        Self { spaces: Arc::new(spaces.clone()), ..Self::new(spaces.into_keys()) }
    }

    /// The space with this item, if the items are those [`Items::of`] spaces.
    #[must_use]
    pub fn space_of(&self, item: &[u8; 32]) -> Option<&SpaceId> {
        self.spaces.get(item)
    }

    /// Answers one message of a peer, in at most [`COMPARE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`BrokenMessage`].
    pub fn answer(&self, message: &[u8]) -> Result<Bytes, BrokenMessage> {
        if message.len() > COMPARE_BYTES_MAX {
            return Err(BrokenMessage);
        }
        Ok(self.side().reconcile(message)?.into())
    }

    fn side(&self) -> Negentropy<'_, NegentropyStorageVector> {
        Negentropy::borrowed(&*self.sorted, COMPARE_BYTES_MAX as u64).expect("a frame is larger than the least")
    }
}

/// One comparison, by the side that asks.
pub struct Comparison {
    items: Items,
    rounds: usize,
    /// Items of ours that the peer has not.
    differ: BTreeSet<[u8; 32]>,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send this and bring the answer.
    Send(Bytes),
    /// Done: items of ours that the peer has not. After [`COMPARE_ROUNDS_MAX`] rounds these may not be all; the next
    /// comparison finds more.
    Done(Vec<[u8; 32]>),
}

impl Comparison {
    /// Begins; the bytes are the first message.
    #[must_use]
    pub fn begin(items: &Items) -> (Self, Bytes) {
        let first = items.side().initiate().expect("the items are sealed");
        (Self { items: items.clone(), rounds: 0, differ: BTreeSet::new() }, first.into())
    }

    /// What is compared, as it was at the beginning.
    #[must_use]
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// Takes an answer in.
    ///
    /// # Errors
    /// [`BrokenMessage`], also when [`COMPARE_ROUNDS_MAX`] rounds have found nothing.
    pub fn step(&mut self, answer: &[u8]) -> Result<Step, BrokenMessage> {
        if answer.len() > COMPARE_BYTES_MAX {
            return Err(BrokenMessage);
        }
        self.rounds += 1;
        let mut side = self.items.side();
        side.set_initiator();
        let mut have = Vec::new();
        let next = side.reconcile_with_ids(answer, &mut have, &mut Vec::new())?;
        self.differ.extend(have.iter().map(|id| *id.as_bytes()));
        match next {
            Some(message) if self.rounds < COMPARE_ROUNDS_MAX => Ok(Step::Send(message.into())),
            Some(_) if self.differ.is_empty() => Err(BrokenMessage),
            Some(_) | None => Ok(Step::Done(std::mem::take(&mut self.differ).into_iter().collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    fn items(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<[u8; 32]> {
        numbers.into_iter().map(|number| *blake3::hash(&number.to_be_bytes()).as_bytes()).collect()
    }

    /// Lets two sides compare; gives the items found and the bytes sent either way.
    fn compare(ours: &Items, theirs: &Items) -> (BTreeSet<[u8; 32]>, Vec<usize>) {
        let (mut comparison, mut message) = Comparison::begin(ours);
        let mut sizes = vec![];
        loop {
            let answer = theirs.answer(&message).expect("the other side is honest");
            sizes.extend([message.len(), answer.len()]);
            match comparison.step(&answer).expect("the other side is honest") {
                Step::Send(next) => message = next,
                Step::Done(found) => return (found.into_iter().collect(), sizes),
            }
        }
    }

    #[test]
    fn equal_sets_cost_one_small_message_each_way() {
        let ours = Items::new(items(0..10_000));
        let (found, sizes) = compare(&ours, &ours.clone());
        assert!(found.is_empty());
        assert!(sizes.len() == 2 && sizes.iter().sum::<usize>() < 1024, "{sizes:?}");
    }

    #[test]
    fn an_item_names_the_space_it_was_made_of() {
        let owner = crate::id::Did::from_ed25519(&[1; 32]);
        let space = SpaceId::new(&owner, "default").expect("a space id");
        let before = item(&space, &[]);
        let (mut comparison, first) = Comparison::begin(&Items::of([(before, space.clone())]));
        let answer = Items::new([]).answer(&first).expect("the other side is honest");
        let Ok(Step::Done(found)) = comparison.step(&answer) else { panic!("one item is found at once") };
        assert_eq!(found, [before]);
        assert_eq!(comparison.items().space_of(&found[0]), Some(&space));
    }

    #[test]
    fn thousands_of_differences_are_found_in_messages_within_the_bound() {
        let (found, sizes) = compare(&Items::new(items(0..12_000)), &Items::new(items(6_000..18_000)));
        assert_eq!(found, items(0..6_000));
        assert!(sizes.iter().all(|size| *size <= COMPARE_BYTES_MAX), "{sizes:?}");
    }

    #[test]
    fn a_peer_that_always_differs_is_left_after_the_last_round() {
        let ours = Items::new(items(0..1_000));
        // Up to the end of all, a fingerprint that nothing has.
        let differs = [&[0x61, 0, 0, 1][..], &[0; 16]].concat();
        // It has nothing below 0x80, and above as before.
        let lacks = [&[0x61, 1, 1, 0x80, 2, 0, 0, 0, 1][..], &[0; 16]].concat();
        let below: Vec<_> = items(0..1_000).into_iter().filter(|item| item[0] < 0x80).collect();
        for (answer, found) in [(differs, None), (lacks, Some(below))] {
            let (mut comparison, _) = Comparison::begin(&ours);
            for _ in 1..COMPARE_ROUNDS_MAX {
                assert!(matches!(comparison.step(&answer), Ok(Step::Send(_))));
            }
            match comparison.step(&answer) {
                Ok(Step::Done(items)) => assert_eq!(Some(items), found),
                Err(BrokenMessage) => assert_eq!(None, found),
                Ok(Step::Send(_)) => panic!("a round too many"),
            }
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused() {
        let ours = Items::new(items(0..10));
        let (mut comparison, _) = Comparison::begin(&ours);
        let long = vec![0x61; COMPARE_BYTES_MAX + 1];
        assert_eq!(ours.answer(&long), Err(BrokenMessage));
        assert!(comparison.step(&long).is_err());
    }

    proptest! {
        #[test]
        fn exactly_what_the_peer_lacks_is_found(common in 0..300u64, ours in 0..80u64, theirs in 0..80u64) {
            let mine = items((0..common).chain(1_000..1_000 + ours));
            let other = items((0..common).chain(2_000..2_000 + theirs));
            prop_assert_eq!(compare(&Items::new(mine), &Items::new(other)).0, items(1_000..1_000 + ours));
        }

        #[test]
        fn a_hostile_message_is_answered_or_refused(
            number in 0..200u64,
            damage in vec((any::<Index>(), any::<u8>()), 0..6),
            tail in vec(any::<u8>(), 0..80),
            keep in any::<Index>(),
        ) {
            let ours = Items::new(items(0..number));
            let (mut comparison, first) = Comparison::begin(&Items::new(items(50..number + 50)));
            let answer = ours.answer(&first).expect("the other side is honest");
            for honest in [first, answer] {
                let mut message = honest[..=keep.index(honest.len())].to_vec();
                message.extend(&tail);
                for (at, byte) in &damage {
                    let at = at.index(message.len());
                    message[at] = *byte;
                }
                if let Ok(answer) = ours.answer(&message) {
                    prop_assert!(answer.len() <= COMPARE_BYTES_MAX);
                }
                if let Ok(Step::Send(next)) = comparison.step(&message) {
                    prop_assert!(next.len() <= COMPARE_BYTES_MAX);
                }
            }
        }
    }
}
