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
        let items = Items::of(spaces.iter().filter_map(|number| {
            let (space, item) = known.items.get(number)?;
            Some((*item, space.clone()))
        }));
        // Not if the peer was named for another space meanwhile, nor for anybody who shares nothing.
        if known.named == named
            && !spaces.is_empty()
            && (known.peers.len() < PEERS_MAX || known.peers.contains_key(peer))
        {
            known.peers.insert(*peer, Peer { spaces, items: Some(items.clone()) });
        }
        Ok(items)
    }

    /// Forgets the items of a peer that asks no more.
    pub(crate) fn forget(&self, peer: &HostKey) {
        if let Some(known) = self.known().as_mut() {
            known.peers.remove(peer);
        }
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
        self.items.insert(number, (space.clone(), item));
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, path::Path};

    use kvspace_protocol::{
        dag::{Inserted, Place},
        id::{Address, Did, EpochId, Incarnation},
        space::NewEpoch,
        sync::compare::{Comparison, Step},
    };

    use super::*;
    use crate::{
        disk::fake::FakeDisk,
        index::Durable,
        log::{Log, LogOptions, Position},
        records::{MemoryStore, Records},
    };

    const PEER: HostKey = HostKey([7; 32]);
    const OTHER: HostKey = HostKey([8; 32]);

    /// A node's index, and what the peers of its spaces would be told.
    struct Side {
        index: Index,
        shared: SharedSpaces,
        dags: BTreeMap<SpaceId, Dag>,
    }

    impl Side {
        fn new() -> Self {
            let options = LogOptions { disk: Arc::new(FakeDisk::default()), ..LogOptions::default() };
            let log = Log::open(Path::new("/log"), options, |_, _| Ok::<_, Infallible>(())).expect("a log");
            let records = Records::over(Arc::new(MemoryStore::new())).expect("records");
            let index = Index::new(records, log.reader()).expect("an index");
            log.close();
            Self { shared: SharedSpaces::new(index.clone()), index, dags: BTreeMap::new() }
        }

        /// The next epoch of a space, which names these hosts.
        fn commit(&mut self, space: &SpaceId, hosts: &[HostKey]) {
            let dag = self.dags.entry(space.clone()).or_default();
            let n = dag.len();
            let id = EpochId::of(format!("{space} {n}").as_bytes());
            let inserted = Inserted { place: Place { branch: 0, n }, base: None, learned: vec![], ended: vec![] };
            let (host, incarnation) = (HostKey([2; 32]), Incarnation([0; 8]));
            let place = inserted.place;
            let new = NewEpoch { id, seq: n, inserted, host, incarnation, revokes: false };
            dag.replay(&new);
            let mut changes = vec![Change::Epoch(new)];
            changes.extend((0u16..).zip(hosts).map(|(event, host)| {
                let address = Address::of(format!("{space} {host:?}").as_bytes());
                Change::Delegation { address, place, event, hosts: Some(*host) }
            }));
            let index = match self.index.space(space).expect("the index reads") {
                Some(index) => index,
                None => self.index.new_space(space),
            };
            let epochs = BTreeMap::from([(id, Position { segment: 1, offset: 0, length: 1 })]);
            let batches = index.batches(&Durable { changes: &changes, blobs: &[], epochs: &epochs });
            let room = self.index.records().room_blocking(20).expect("room");
            self.index.records().begin(Vec::new()).fill(room, batches.expect("reads")).expect("filled");
            self.shared.handle_committed(&index, dag, &changes);
        }

        /// The spaces that `other` has not like this, as seen between this side's `peer` and the other's.
        fn differ(&self, peer: &HostKey, other: &Self, here: &HostKey) -> Vec<SpaceId> {
            let theirs = other.shared.items(here).expect("the index reads");
            let ours = self.shared.items(peer).expect("the index reads");
            let (mut comparison, mut message) = Comparison::begin(&ours);
            loop {
                match comparison.step(&theirs.answer(&message).expect("answered")).expect("answered") {
                    Step::Send(next) => message = next,
                    Step::Done(items) => {
                        let mut spaces: Vec<_> =
                            items.iter().map(|item| ours.space_of(item).cloned().expect("one of ours")).collect();
                        spaces.sort();
                        return spaces;
                    }
                }
            }
        }
    }

    fn space(number: usize) -> SpaceId {
        SpaceId::new(&Did::from_ed25519(&[1; 32]), &format!("space-{number}")).expect("a space id")
    }

    #[test]
    fn what_one_of_two_hosts_has_beyond_the_other_is_named() {
        let (mut here, mut there) = (Side::new(), Side::new());
        for number in 0..30 {
            let hosts = if number % 3 == 0 { vec![OTHER] } else { vec![PEER, OTHER] };
            for side in [&mut here, &mut there] {
                side.commit(&space(number), &hosts);
            }
        }
        let differ = |here: &Side, there: &Side| here.differ(&PEER, there, &PEER);
        assert_eq!(differ(&here, &there), []);
        here.commit(&space(4), &[]);
        assert_eq!(differ(&here, &there), [space(4)]);
        there.commit(&space(4), &[]);
        assert_eq!(differ(&here, &there), []);
        here.commit(&space(3), &[]);
        assert_eq!(differ(&here, &there), [], "the peer is no host of it");
        assert_eq!(here.differ(&OTHER, &there, &OTHER), [space(3)]);
        here.commit(&space(3), &[PEER]);
        assert_eq!(differ(&here, &there), [space(3)], "now it is");
        here.commit(&space(40), &[PEER]);
        assert_eq!(differ(&here, &there), [space(3), space(40)]);
    }

    #[test]
    fn nothing_is_made_anew_while_nothing_happens_and_a_space_that_changes_is_found_by_the_item_it_had() {
        let mut side = Side::new();
        side.commit(&space(0), &[PEER]);
        side.commit(&space(1), &[OTHER]);
        let cached = |side: &Side, peer: &HostKey| {
            let known = side.shared.known();
            known.as_ref().and_then(|known| known.peers.get(peer)).is_some_and(|peer| peer.items.is_some())
        };
        assert!(side.shared.known().is_none(), "nobody has asked");
        let before = side.shared.items(&PEER).expect("the index reads");
        assert!(cached(&side, &PEER) && !cached(&side, &OTHER));
        side.commit(&space(1), &[]);
        assert!(cached(&side, &PEER), "it is none of the peer's");
        let item = compare::item(&space(0), &side.dags[&space(0)].frontier().collect::<Vec<_>>());
        side.commit(&space(0), &[]);
        assert!(!cached(&side, &PEER));
        assert_eq!(before.space_of(&item), Some(&space(0)));
        assert_eq!(side.shared.items(&PEER).expect("the index reads").space_of(&item), None);
    }

    #[test]
    fn strangers_and_peers_that_are_gone_take_no_place() {
        let mut side = Side::new();
        side.commit(&space(0), &[PEER]);
        let kept = |side: &Side| side.shared.known().as_ref().map(|known| known.peers.len());
        for stranger in 10..20 {
            side.shared.items(&HostKey([stranger; 32])).expect("the index reads");
        }
        assert_eq!(kept(&side), Some(0), "they share nothing");
        side.shared.items(&PEER).expect("the index reads");
        assert_eq!(kept(&side), Some(1));
        side.shared.forget(&PEER);
        assert_eq!(kept(&side), Some(0));
        assert!(side.shared.items(&PEER).is_ok());
    }
}
