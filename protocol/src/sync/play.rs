//! Replicas with made-up epochs, for the tests beside: restarts, forks and partitions.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use super::{Cursor, Sent, Source};
use crate::{
    dag::{Dag, Link, Place},
    epoch::SignedEpoch,
    id::{Address, EpochId, HostKey, Identity, Incarnation, Key},
    kv::Operation,
    space::{EpochAt, View, ViewError},
};

/// What happens in a space of four hosts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Write(usize),
    Restart(usize),
    /// The host goes on from an earlier epoch of its chain.
    Fork(usize),
    /// One host takes what another has of the epochs made so far, or of the first part of them.
    Sync {
        from: usize,
        to: usize,
        percent: usize,
    },
}

pub(super) const HOSTS: usize = 4;

pub(super) fn steps(forks: bool) -> impl Strategy<Value = Vec<Step>> {
    let host = || 0..HOSTS;
    let step = prop_oneof![
        8 => host().prop_map(Step::Write),
        1 => host().prop_map(Step::Restart),
        u32::from(forks) => host().prop_map(Step::Fork),
        4 => (host(), host(), 20..160_usize).prop_map(|(from, to, percent)| Step::Sync { from, to, percent }),
    ];
    vec(step, 0..60)
}

pub(super) struct Made {
    pub(super) host: HostKey,
    pub(super) incarnation: Incarnation,
    pub(super) n: u64,
    seq: u64,
    prev: Option<usize>,
    parents: Vec<usize>,
    pub(super) past: BTreeSet<usize>,
}

#[derive(Default)]
pub(super) struct Play {
    pub(super) made: Vec<Made>,
    /// What each host has, as it came.
    has: [Vec<usize>; HOSTS],
    last: [Option<usize>; HOSTS],
    incarnations: [u8; HOSTS],
}

pub(super) fn id(number: usize) -> EpochId {
    EpochId(*blake3::hash(&number.to_be_bytes()).as_bytes())
}

impl Play {
    pub(super) fn of(steps: &[Step]) -> Self {
        let mut play = Self::default();
        steps.iter().for_each(|step| play.step(*step));
        play
    }

    pub(super) fn set(&self, host: usize) -> BTreeSet<usize> {
        self.has[host].iter().copied().collect()
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Write(host) => self.write(host),
            Step::Restart(host) => {
                self.incarnations[host] += 1;
                self.last[host] = None;
            }
            Step::Fork(host) => {
                self.last[host] = self.last[host].map(|last| self.made[last].prev.unwrap_or(last));
            }
            Step::Sync { from, to, percent } => {
                let end = self.made.len() * percent / 100;
                let held = self.set(to);
                let new: Vec<_> =
                    self.has[from].iter().copied().filter(|one| *one < end && !held.contains(one)).collect();
                self.has[to].extend(new);
            }
        }
    }

    fn write(&mut self, host: usize) {
        let prev = self.last[host];
        let has = self.set(host);
        let mut own: BTreeSet<usize> = prev.iter().flat_map(|prev| self.made[*prev].past.clone()).collect();
        own.extend(prev);
        let covered: BTreeSet<usize> = has.iter().flat_map(|one| self.made[*one].past.iter().copied()).collect();
        let parents: Vec<usize> =
            has.iter().copied().filter(|one| !covered.contains(one) && !own.contains(one)).collect();
        let mut past = own;
        for parent in &parents {
            past.extend(self.made[*parent].past.iter().copied().chain([*parent]));
        }
        let seq = past.iter().map(|one| self.made[*one].seq + 1).max().unwrap_or(0);
        let n = prev.map_or(0, |prev| self.made[prev].n + 1);
        let number = u8::try_from(host).expect("four hosts");
        let incarnation = Incarnation([self.incarnations[host]; 8]);
        let key = HostKey([number + 1; 32]);
        self.made.push(Made { host: key, incarnation, n, seq, prev, parents, past });
        self.has[host].push(self.made.len() - 1);
        self.last[host] = Some(self.made.len() - 1);
    }

    /// What a host serves from. Each epoch has 100 bytes, but those that `bulky` names.
    pub(super) fn replica(&self, host: usize) -> Replica {
        let mut replica = Replica::default();
        for (at, number) in self.has[host].iter().enumerate() {
            let made = &self.made[*number];
            let place = |one: &usize| replica.epochs[&id(*one)].place;
            let parents: Vec<Place> = made.parents.iter().map(place).collect();
            let link = Link {
                id: id(*number),
                host: made.host,
                incarnation: made.incarnation,
                n: made.n,
                seq: made.seq,
                prev: made.prev.as_ref().map(place),
                parents: &parents,
            };
            let place = replica.dag.insert(&link).place;
            replica.epochs.insert(id(*number), EpochAt { place, seq: made.seq });
            replica.log.insert(place, (Cursor(7 * at as u64), *number));
        }
        replica
    }
}

#[derive(Default)]
pub(super) struct Replica {
    pub(super) dag: Dag,
    epochs: BTreeMap<EpochId, EpochAt>,
    pub(super) log: BTreeMap<Place, (Cursor, usize)>,
}

/// The size of every epoch.
pub(super) const EPOCH_BYTES: usize = 100;

/// The number of an epoch that was sent.
pub(super) fn number(sent: &Sent) -> usize {
    usize::from_be_bytes(sent.epoch.header[..].try_into().expect("a number"))
}

impl View for Replica {
    fn epoch(&self, id: &EpochId) -> Result<Option<EpochAt>, ViewError> {
        Ok(self.epochs.get(id).copied())
    }

    fn winner(&self, _: &str) -> Result<Option<Operation>, ViewError> {
        Ok(None)
    }

    fn history(&self, _: &str) -> Result<Vec<Operation>, ViewError> {
        Ok(vec![])
    }

    fn occurrences(&self, _: &str, _: &Identity) -> Result<Vec<Operation>, ViewError> {
        Ok(vec![])
    }

    fn keys_under(&self, _: &dyn Fn(&Address) -> bool) -> Result<BTreeSet<Key>, ViewError> {
        Ok(BTreeSet::new())
    }
}

impl Source for Replica {
    fn dag(&self) -> &Dag {
        &self.dag
    }

    fn position(&self, place: Place) -> Result<Option<Cursor>, ViewError> {
        Ok(self.log.get(&place).map(|(position, _)| *position))
    }

    fn read(&self, place: Place, _: usize) -> Result<Sent, ViewError> {
        let (_, number) = self.log[&place];
        let header = Bytes::copy_from_slice(&number.to_be_bytes());
        let body = Bytes::from(vec![0; EPOCH_BYTES - 64 - header.len()]);
        Ok(Sent { epoch: SignedEpoch { header, body, signature: [0; 64] }, values: vec![] })
    }
}
