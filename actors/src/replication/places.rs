//! Who is being answered: nobody can hold all the places, nor keep all cores busy with signatures.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kvspace_protocol::id::HostKey;
use tokio::sync::OwnedMutexGuard;

/// Requests of peers answered at one time; further ones are told that this node is busy.
const ANSWERS_MAX: usize = 64;
/// Of one peer.
const ANSWERS_PER_PEER_MAX: usize = 8;
/// Of all peers that host nothing that is here.
const ANSWERS_OF_STRANGERS_MAX: usize = ANSWERS_MAX / 4;

/// Whether a peer was ever named a host of something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Host,
    Stranger,
}

/// The places for requests under answer. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of_strangers: usize,
    by_peer: BTreeMap<HostKey, usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Places,
    peer: HostKey,
    standing: Standing,
}

impl Places {
    /// A place for a request of this peer, if one is free for it.
    pub(super) fn take(&self, peer: HostKey, standing: Standing) -> Option<Place> {
        let mut taken = self.lock();
        let of_peer = taken.by_peer.get(&peer).copied().unwrap_or_default();
        let is_stranger = standing == Standing::Stranger;
        if taken.all >= ANSWERS_MAX
            || of_peer >= ANSWERS_PER_PEER_MAX
            || (is_stranger && taken.of_strangers >= ANSWERS_OF_STRANGERS_MAX)
        {
            return None;
        }
        taken.all += 1;
        taken.of_strangers += usize::from(is_stranger);
        taken.by_peer.insert(peer, of_peer + 1);
        Some(Place { of: self.clone(), peer, standing })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        taken.all -= 1;
        taken.of_strangers -= usize::from(self.standing == Standing::Stranger);
        if let Some(of_peer) = taken.by_peer.get_mut(&self.peer) {
            *of_peer -= 1;
        }
        taken.by_peer.retain(|_, of_peer| *of_peer > 0);
    }
}

/// Whose turn it is: one thing at a time is done for each peer. There are entries only for those who do or wait.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<HostKey, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for this peer's turn.
    pub(super) async fn of(&self, peer: &HostKey) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(*peer).or_default().clone()
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: usize) -> HostKey {
        HostKey([u8::try_from(n).expect("few"); 32])
    }

    #[test]
    fn one_peer_has_a_bounded_part_of_the_places() {
        let places = Places::default();
        let taken: Vec<_> = (0..100).filter_map(|_| places.take(peer(1), Standing::Host)).collect();
        assert_eq!(taken.len(), ANSWERS_PER_PEER_MAX);
        assert!(places.take(peer(2), Standing::Host).is_some());
        drop(taken);
        assert!(places.take(peer(1), Standing::Host).is_some(), "they are given back");
        assert!(places.lock().by_peer.is_empty(), "nobody is remembered");
    }

    #[test]
    fn strangers_leave_places_to_hosts() {
        let places = Places::default();
        let strangers: Vec<_> = (0..100).filter_map(|n| places.take(peer(n), Standing::Stranger)).collect();
        assert_eq!(strangers.len(), ANSWERS_OF_STRANGERS_MAX);
        let hosts: Vec<_> = (100..200).filter_map(|n| places.take(peer(n), Standing::Host)).collect();
        assert_eq!(hosts.len(), ANSWERS_MAX - ANSWERS_OF_STRANGERS_MAX);
        drop(strangers);
        assert!(places.take(peer(1), Standing::Stranger).is_some(), "they are given back");
    }

    #[tokio::test]
    async fn a_second_turn_of_a_peer_waits_for_the_first_and_of_another_does_not() {
        let turns = Turns::default();
        let one = peer(1);
        let first = turns.of(&one).await;
        drop(turns.of(&peer(2)).await);
        let second = turns.of(&one);
        tokio::pin!(second);
        assert!(futures::poll!(second.as_mut()).is_pending());
        drop(first);
        drop(second.await);
        drop(turns.of(&peer(2)).await);
        assert_eq!(turns.0.lock().expect("no panic").len(), 1, "who is done is forgotten");
    }
}
