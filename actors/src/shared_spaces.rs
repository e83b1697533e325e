//! Which spaces are shared with a peer, and what they look like in a comparison.
//!
//! Nothing is held until somebody asks for the first time; from then on the item of each space that was asked for is kept up
//! to date by its commits, so that a space in which nothing happens costs nothing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kvspace_protocol::{
    dag::Dag,
    id::{HostKey, SpaceId},
    space::Change,
    sync::compare::{self, Items},
};

use crate::index::{Index, IndexError, SpaceIndex};

/// Peers whose items are kept; more of them are made anew each time.
const PEERS_MAX: usize = 256;

/// The spaces of this node that a peer was ever named a host of. Clones are the same.
#[derive(Clone)]
pub(crate) struct SharedSpaces {
    index: Index,
    known: Arc<Mutex<Option<Known>>>,
}

/// What is kept from the first question on.
#[derive(Default)]
struct Known {
    /// By number; the latest of each space that was asked for or has changed since.
    items: BTreeMap<u32, (SpaceId, [u8; 32])>,
    by_item: BTreeMap<[u8; 32], u32>,
    peers: BTreeMap<HostKey, Peer>,
    /// Counts the times that a host was named for another space.
    named: u64,
}

struct Peer {
    /// The numbers of the spaces shared with it, ascending.
    spaces: Arc<[u32]>,
    /// `None` when one of them may have changed.
    items: Option<Items>,
}

impl SharedSpaces {
    /// Of this node's index.
    pub(crate) fn new(index: Index) -> Self {
        Self { index, known: Arc::default() }
    }

    /// The items of the spaces shared with this peer. The first time it reads the index: for threads that may block.
    pub(crate) fn items(&self, peer: &HostKey) -> Result<Items, IndexError> {
        let (spaces, named) = {
            let mut known = self.known();
            let known = known.get_or_insert_default();
            match known.peers.get(peer) {
                Some(Peer { items: Some(items), .. }) => return Ok(items.clone()),
                Some(Peer { spaces, items: None }) => (Some(Arc::clone(spaces)), known.named),
                None => (None, known.named),
            }
        };
        let spaces = match spaces {
            Some(spaces) => spaces,
            None => self.fill(peer)?,
        };
        let mut known = self.known();
        let known = known.get_or_insert_default();
        let items = Items::new(spaces.iter().filter_map(|number| Some(known.items.get(number)?.1)));
        // Not if the peer was named for another space meanwhile.
        if known.named == named && (known.peers.len() < PEERS_MAX || known.peers.contains_key(peer)) {
            known.peers.insert(*peer, Peer { spaces, items: Some(items.clone()) });
        }
        Ok(items)
    }

    /// The space with this item, as it is now; `None` when it has changed since.
    pub(crate) fn space_of(&self, item: &[u8; 32]) -> Option<SpaceId> {
        let known = self.known();
        let known = known.as_ref()?;
        let (space, _) = known.items.get(known.by_item.get(item)?)?;
        Some(space.clone())
    }

    /// A commit of a space is in the index, and this is its DAG now. The commits of one space come in their order.
    pub(crate) fn handle_committed(&self, space: &SpaceIndex, dag: &Dag, changes: &[Change]) {
        let mut known = self.known();
        let Some(known) = known.as_mut() else { return };
        let frontier: Vec<_> = dag.frontier().collect();
        known.set(space.number(), space.id(), compare::item(space.id(), &frontier));
        for peer in known.peers.values_mut() {
            peer.items = peer.items.take().filter(|_| peer.spaces.binary_search(&space.number()).is_err());
        }
        let named = changes.iter().filter_map(|change| match change {
            Change::Delegation { hosts, .. } => *hosts,
            Change::Epoch(new) => Some(new.host).filter(|host| host.did() == *space.id().owner()),
            Change::Operation(_) | Change::Dead { .. } | Change::Winner { .. } => None,
        });
        for host in named {
            let shares = |peer: &Peer| peer.spaces.binary_search(&space.number()).is_ok();
            if !known.peers.get(&host).is_some_and(shares) {
                known.peers.remove(&host);
                known.named += 1;
            }
        }
    }

    /// Reads which spaces are shared with this peer, and the frontiers of those that are not known.
    fn fill(&self, peer: &HostKey) -> Result<Arc<[u32]>, IndexError> {
        let mut numbers = Vec::new();
        for space in self.index.hosted_by(*peer) {
            let space = space?;
            numbers.push(space.number());
            let is_known = |known: &Known| known.items.contains_key(&space.number());
            if self.known().as_ref().is_some_and(is_known) {
                continue;
            }
            let item = compare::item(space.id(), &space.frontier()?);
            let mut known = self.known();
            let known = known.get_or_insert_default();
            // What a commit has brought meanwhile is newer.
            if !known.items.contains_key(&space.number()) {
                known.set(space.number(), space.id(), item);
            }
        }
        Ok(numbers.into())
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn set(&mut self, number: u32, space: &SpaceId, item: [u8; 32]) {
        if let Some((_, before)) = self.items.insert(number, (space.clone(), item)) {
            self.by_item.remove(&before);
        }
        self.by_item.insert(item, number);
    }
}
