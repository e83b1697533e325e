//! What peers were last heard to have.

use std::collections::BTreeMap;

use super::{Ask, Known};
use crate::{
    epoch::Header,
    id::{EpochId, HostKey, Millis, SpaceId},
    limits::{HEADS_MAX, KNOWN_MAX},
    sync::message::Sent,
};

/// The heads of spaces at peers; what was not heard of for longest gives way.
#[derive(Default)]
pub(super) struct KnownHeads {
    heads: BTreeMap<(SpaceId, HostKey), (u64, Known)>,
    /// By when they were last heard of.
    order: BTreeMap<u64, (SpaceId, HostKey)>,
    heard: u64,
}

impl KnownHeads {
    pub(super) fn get(&self, space: &SpaceId, peer: &HostKey) -> Option<&Known> {
        self.heads.get(&(space.clone(), *peer)).map(|(_, known)| known)
    }

    /// The peer has told its heads.
    pub(super) fn tell(&mut self, now: Millis, space: &SpaceId, peer: &HostKey, heads: Vec<EpochId>) {
        let known = self.entry(now, space, peer);
        (known.heads, known.at, known.missed) = (heads, now, false);
    }

    /// The peer is asked.
    pub(super) fn asked(&mut self, now: Millis, space: &SpaceId, peer: &HostKey, ask: &Ask) {
        self.entry(now, space, peer).asked = Some((now, ask.clone()));
    }

    /// The peer has taken these.
    pub(super) fn pushed(&mut self, now: Millis, space: &SpaceId, peer: &HostKey, epochs: &[Sent]) {
        let known = self.entry(now, space, peer);
        known.at = now;
        for sent in epochs {
            let Ok(header) = serde_ipld_dagcbor::from_slice::<Header>(&sent.epoch.header) else { continue };
            known.heads.retain(|head| header.prev != Some(*head) && header.parents.binary_search(head).is_err());
            known.heads.push(EpochId::of(&sent.epoch.header));
        }
        let surplus = known.heads.len().saturating_sub(HEADS_MAX);
        known.heads.drain(..surplus);
    }

    /// What was pushed to the peer did not arrive.
    pub(super) fn missed(&mut self, space: &SpaceId, peer: &HostKey) {
        if let Some((_, known)) = self.heads.get_mut(&(space.clone(), *peer)) {
            known.missed = true;
        }
    }

    fn entry(&mut self, now: Millis, space: &SpaceId, peer: &HostKey) -> &mut Known {
        let key = (space.clone(), *peer);
        self.heard += 1;
        if let Some((before, _)) = self.heads.get(&key) {
            self.order.remove(before);
        } else if self.heads.len() >= KNOWN_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.heads.remove(&oldest);
        }
        self.order.insert(self.heard, key.clone());
        let new = || (0, Known { heads: Vec::new(), at: now, asked: None, missed: false });
        let (heard, known) = self.heads.entry(key).or_insert_with(new);
        *heard = self.heard;
        known
    }
}
