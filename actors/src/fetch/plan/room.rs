//! Which values there is room for: no space may fill the list so that others find none.
//!
//! While there is room, everything is taken. When there is none, a newcomer takes the place of a value that nobody has; then,
//! if its space has less than its part, that of the last value of a space that has more; then, if somebody waits for it, that
//! of the last value nobody waits for.

use std::collections::{BTreeMap, BTreeSet};

use kvspace_protocol::id::SpaceId;

use super::{BlobKey, Plan, Urgency};

/// The part of the list that a space has for itself: an eighth.
const SPACE_PART: usize = 8;

/// The values of the list, by what they may have to give way to.
#[derive(Default)]
pub(super) struct Room {
    /// By the space a value was first wanted in, in the order of arrival.
    of_space: BTreeMap<SpaceId, BTreeSet<(u64, BlobKey)>>,
    /// Spaces that have more than their part.
    greedy: BTreeSet<SpaceId>,
    /// Values that every host that is connected was asked for and does not have.
    hopeless: BTreeSet<BlobKey>,
}

impl Room {
    pub(super) fn add(&mut self, space: &SpaceId, number: u64, key: BlobKey, wants_max: usize) {
        self.of_space.entry(space.clone()).or_default().insert((number, key));
        self.measure(space, wants_max);
    }

    pub(super) fn remove(&mut self, space: &SpaceId, number: u64, key: BlobKey, wants_max: usize) {
        self.hopeless.remove(&key);
        if let Some(values) = self.of_space.get_mut(space) {
            values.remove(&(number, key));
        }
        self.measure(space, wants_max);
    }

    pub(super) fn set_hopeless(&mut self, key: BlobKey) {
        self.hopeless.insert(key);
    }

    /// There is somebody to ask for it again.
    pub(super) fn set_hopeful(&mut self, key: &BlobKey) {
        self.hopeless.remove(key);
    }

    fn len(&self, space: &SpaceId) -> usize {
        self.of_space.get(space).map_or(0, BTreeSet::len)
    }

    fn measure(&mut self, space: &SpaceId, wants_max: usize) {
        let len = self.len(space);
        if len > part(wants_max) {
            self.greedy.insert(space.clone());
        } else {
            self.greedy.remove(space);
        }
        if len == 0 {
            self.of_space.remove(space);
        }
    }
}

impl Plan {
    /// Lets go of a value for another one of this space, if one is to give way.
    pub(super) fn make_room(&mut self, space: &SpaceId, urgency: Urgency) -> bool {
        let is_idle = |key: &BlobKey| {
            self.blobs.get(key).is_some_and(|blob| blob.urgency == Urgency::Soon && blob.flights.is_empty())
        };
        let Room { of_space, greedy, hopeless } = &self.room;
        let hopeless = || hopeless.iter().copied().find(is_idle);
        let last = |space| of_space[space].iter().rev().map(|(_, key)| *key).find(is_idle);
        let greedy = || {
            let is_below = self.room.len(space) < part(self.settings.wants_max).max(1);
            if is_below { greedy.iter().find_map(last) } else { None }
        };
        let any = || {
            let soon = self.blobs.iter().filter(|(key, _)| urgency == Urgency::Now && is_idle(key));
            soon.max_by_key(|(_, blob)| blob.number).map(|(key, _)| *key)
        };
        let found = hopeless().or_else(greedy).or_else(any);
        found.into_iter().for_each(|key| self.drop_value(key));
        found.is_some()
    }
}

/// What one space has for itself.
fn part(wants_max: usize) -> usize {
    wants_max / SPACE_PART
}
