//! What peers were last heard to have.

use std::collections::BTreeMap;

use super::{Ask, Asked, Known};
use crate::{
    epoch::Header,
    id::{EpochId, HostKey, Millis, SpaceId},
    limits::{HEADS_MAX, KNOWN_HEADS_MAX, KNOWN_MAX},
    sync::message::Sent,
};

/// The heads of spaces at peers; what was not heard of for longest gives way.
#[derive(Default)]
pub(super) struct KnownHeads {
    heads: BTreeMap<(SpaceId, HostKey), (u64, Known)>,
    /// By when they were last heard of.
    order: BTreeMap<u64, (SpaceId, HostKey)>,
    heard: u64,
    /// How many heads there are.
    number: usize,
}

impl KnownHeads {
    pub(super) fn get(&self, space: &SpaceId, peer: &HostKey) -> Option<&Known> {
        self.heads.get(&(space.clone(), *peer)).map(|(_, known)| known)
    }

    /// The peer has told its heads.
    pub(super) fn tell(&mut self, now: Millis, space: &SpaceId, peer: &HostKey, heads: Vec<EpochId>) {
        self.change(now, space, peer, |known| (known.heads, known.at, known.missed) = (heads, now, false));
    }

    /// The peer is asked.
    pub(super) fn asked(&mut self, now: Millis, space: &SpaceId, peer: &HostKey, ask: &Ask) {
        let asked = match ask {
            Ask::ByHeads(_) => Asked::ByHeads,
            Ask::ByBranches(..) => Asked::ByBranches,
            Ask::Epochs(names) => Asked::Epochs(names.len()),
        };
        self.change(now, space, peer, |known| known.asked = Some((now, asked)));
    }

    /// The peer has taken these.
    pub(super) fn pushed(&mut self, now: Millis, space: &SpaceId, peer: &HostKey, epochs: &[Sent]) {
        self.change(now, space, peer, |known| {
            known.at = now;
            for sent in epochs {
                let Ok(header) = serde_ipld_dagcbor::from_slice::<Header>(&sent.epoch.header) else { continue };
                known.heads.retain(|head| header.prev != Some(*head) && header.parents.binary_search(head).is_err());
                known.heads.push(EpochId::of(&sent.epoch.header));
            }
            let surplus = known.heads.len().saturating_sub(HEADS_MAX);
            known.heads.drain(..surplus);
        });
    }

    /// What was pushed to the peer did not arrive.
    pub(super) fn missed(&mut self, space: &SpaceId, peer: &HostKey) {
        if let Some((_, known)) = self.heads.get_mut(&(space.clone(), *peer)) {
            known.missed = true;
        }
    }

    /// Changes what is known, as the last that was heard of.
    fn change(&mut self, now: Millis, space: &SpaceId, peer: &HostKey, change: impl FnOnce(&mut Known)) {
        let key = (space.clone(), *peer);
        let mut known = match self.heads.remove(&key) {
            Some((before, known)) => {
                self.order.remove(&before);
                self.number -= known.heads.len();
                known
            }
            None => Known { heads: Vec::new(), at: now, asked: None, missed: false },
        };
        change(&mut known);
        self.number += known.heads.len();
        self.heard += 1;
        self.order.insert(self.heard, key.clone());
        self.heads.insert(key, (self.heard, known));
        while (self.heads.len() > KNOWN_MAX || self.number > KNOWN_HEADS_MAX)
            && let Some((_, oldest)) = self.order.pop_first()
        {
            let gone = self.heads.remove(&oldest);
            self.number -= gone.map_or(0, |(_, known)| known.heads.len());
        }
    }
}
