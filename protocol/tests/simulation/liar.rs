//! A host that the owner names and that lies: it forges, replays, floods, and names what it never gives.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kvspace_protocol::{
    epoch::{Epoch, SignedEpoch},
    id::{EpochId, HostKey, SpaceId},
    limits::{GET_RUN_EPOCHS, HEADS_MAX},
    sync::{Cursor, Have, Pushed, Refused, Request, Response, Sent, Verdict, compare::Items},
};

use crate::{
    dice::Dice,
    world::{self, Draft, Forger, Owner, START_MS, Session},
};

pub(crate) struct Liar {
    pub(crate) key: HostKey,
    forger: Forger,
    space: SpaceId,
    /// Its own epochs: incarnation, number and clock.
    pub(crate) forged: Vec<(SignedEpoch, u64, u64, u64)>,
    has_forked: bool,
}

fn sent(epoch: SignedEpoch) -> Sent {
    Sent { epoch, values: vec![] }
}

fn random_id(dice: &mut Dice) -> EpochId {
    EpochId::of(&dice.next().to_be_bytes())
}

fn low_id(dice: &mut Dice) -> EpochId {
    let mut id = random_id(dice);
    id.0[..8].fill(0);
    id
}

impl Liar {
    pub(crate) fn new(owner: &Owner, seed: u8) -> Self {
        let forger = Forger::new(owner, seed);
        let key = HostKey(forger.key.verifying_key().to_bytes());
        Self { key, forger, space: owner.space.clone(), forged: Vec::new(), has_forked: false }
    }

    /// A long branch of its own, forked from what it forged, or from a parent: longer than what comes before an epoch that is
    /// asked for by name.
    fn fork(&mut self, dice: &mut Dice, log: &[SignedEpoch], session: &Session) -> Option<Vec<SignedEpoch>> {
        let parent = dice.pick(log)?;
        let (incarnation, first_n, mut seq, mut prev) = match dice.pick(&self.forged) {
            Some((last, incarnation, n, seq)) => (*incarnation, n + 1, *seq, Some(world::id(last))),
            None => (7, 0, world::seq(parent), None),
        };
        seq = seq.max(world::seq(parent));
        let mut fork = Vec::new();
        for n in first_n..first_n + GET_RUN_EPOCHS as u64 + 20 {
            seq += 1;
            let (parents, events) = (vec![world::id(parent)], vec![world::event(&session.delegation)]);
            let epoch = self.forger.epoch(Draft { incarnation, n, prev, parents, seq, events });
            prev = Some(world::id(&epoch));
            fork.push(epoch);
        }
        Some(fork)
    }

    /// A valid epoch, as far as its parents hold the liar's delegation: a replay, a write with a session it got hold of, a
    /// revocation, or a mere step; on a chain of its own, from anywhere, so that it forks.
    fn forge(&mut self, dice: &mut Dice, log: &[SignedEpoch], sessions: &[Session]) -> Option<SignedEpoch> {
        let parents: Vec<SignedEpoch> = (0..1 + dice.below(2)).filter_map(|_| dice.pick(log).cloned()).collect();
        let session = dice.pick(sessions)?;
        let old = Epoch::decode_unsigned(dice.pick(log)?.clone()).expect("well formed");
        let events = match dice.below(4) {
            0 => old.events,
            1 => {
                let token = session.invocation(&format!("k{}", dice.below(4)), "put", START_MS + 60_000, &[]);
                vec![world::event(&session.delegation), world::put_event(&token, b"FORGED")]
            }
            2 => {
                let target = &dice.pick(sessions)?.delegation;
                let proofs = vec![session.delegation.address()];
                let token = world::revocation(&session.key, &self.space, target, &[old.id], proofs);
                vec![world::event(&session.delegation), world::event(target), world::event(&token)]
            }
            _ => vec![world::event(&session.delegation)],
        };
        let mut draft = Draft { parents: parents.iter().map(world::id).collect(), events, ..Draft::default() };
        draft.seq = parents.iter().map(world::seq).max()? + 1 + ((dice.next() % 3_000) << 16);
        if dice.chance(70)
            && let Some((last, incarnation, n, seq)) = dice.pick(&self.forged)
        {
            (draft.incarnation, draft.n, draft.prev) = (*incarnation, n + 1, Some(world::id(last)));
            draft.seq = draft.seq.max(seq + 1);
        } else {
            draft.incarnation = dice.next() % 3;
        }
        let epoch = self.forger.epoch(draft.clone());
        self.forged.push((epoch.clone(), draft.incarnation, draft.n, draft.seq));
        Some(epoch)
    }

    /// What it sends to somebody. `quiet`: nothing that is valid and new.
    pub(crate) fn attack(
        &mut self,
        dice: &mut Dice,
        logs: &BTreeMap<SpaceId, Vec<SignedEpoch>>,
        sessions: &[Session],
        everybody: &[HostKey],
        quiet: bool,
    ) -> Option<Bytes> {
        let log = logs.get(&self.space)?;
        let told = if dice.chance(50) { everybody.to_vec() } else { vec![] };
        let push = |space: &SpaceId, epochs: Vec<SignedEpoch>| {
            let epochs = epochs.into_iter().map(sent).collect();
            Request::Push(vec![Pushed { space: space.clone(), epochs, told: told.clone() }]).encode()
        };
        Some(match dice.below(8) {
            0 => (0..dice.below(200)).map(|_| u8::try_from(dice.next() % 256).expect("a byte")).collect(),
            1 => {
                let mut epoch = dice.pick(log)?.clone();
                epoch.signature[dice.below(64)] ^= 1;
                push(&self.space, vec![epoch])
            }
            2 => {
                let other = logs.iter().find(|(space, _)| **space != self.space)?;
                push(&self.space, vec![dice.pick(other.1)?.clone()])
            }
            3 => {
                // Ancestors that nobody has, and that come first in any order.
                let flood = (0..10).map(|_| {
                    let events = vec![world::event(&dice.pick(sessions).expect("a session").delegation)];
                    let parents = vec![low_id(dice), low_id(dice)];
                    let seq = world::clock(START_MS) + dice.next() % 1_000;
                    self.forger.epoch(Draft { incarnation: dice.next(), parents, seq, events, ..Draft::default() })
                });
                push(&self.space, flood.collect())
            }
            4 => {
                let have = Have::Branches { tips: vec![], rest: Some([7; 32]) };
                Request::Pull { space: self.space.clone(), have, after: Some(Cursor(dice.next())), shown: vec![] }
                    .encode()
            }
            5 => {
                let epochs = (0..20).map(|_| random_id(dice)).collect();
                Request::Get { space: self.space.clone(), epochs, shown: vec![Bytes::from_static(b"no token")] }
                    .encode()
            }
            _ if quiet => return None,
            6 if !self.has_forked && dice.chance(30) => {
                self.has_forked = true;
                let mut fork = self.fork(dice, log, sessions.first()?)?;
                // The way to its end is known to one only, or to nobody.
                if dice.chance(50) {
                    fork.drain(..GET_RUN_EPOCHS / 2);
                }
                push(&self.space, fork)
            }
            _ => {
                let epoch = self.forge(dice, log, sessions)?;
                push(&self.space, vec![epoch])
            }
        })
    }

    /// Answers somebody, or does not.
    pub(crate) fn answer(&mut self, dice: &mut Dice, log: &[SignedEpoch], request: &[u8]) -> Option<Bytes> {
        let request = Request::decode(request).ok()?;
        let response = match (request, dice.below(6)) {
            (_, 0) => return None,
            (_, 1) => {
                return Some((0..dice.below(100)).map(|_| u8::try_from(dice.next() % 256).expect("a byte")).collect());
            }
            (Request::Compare(mut message), 2) => {
                let mut spoilt = std::mem::take(&mut message).to_vec();
                let at = dice.below(spoilt.len());
                spoilt.get_mut(at).map(|byte| *byte ^= 1)?;
                Response::Compare(spoilt.into())
            }
            (Request::Compare(message), _) => {
                let items = Items::new((0..dice.below(4)).map(|_| random_id(dice).0));
                items.answer(&message).map_or(Response::Refused(Refused::Busy), Response::Compare)
            }
            (Request::Push(pushed), _) => Response::Push(vec![Verdict::Taken; pushed.len()]),
            (_, 2) => Response::Refused(Refused::NotFound),
            // Valid, without an end, and of no use to anybody.
            (Request::Pull { after, .. }, 3) => Response::Epochs {
                heads: (0..HEADS_MAX).map(|_| random_id(dice)).collect::<BTreeSet<_>>().into_iter().collect(),
                epochs: vec![sent(log.first()?.clone())],
                next: Some(Cursor(after.map_or(1, |after| after.0.saturating_add(1)))),
                tell_branches: false,
            },
            (Request::Pull { .. } | Request::Get { .. } | Request::Proofs { .. }, kind) => {
                let mut epochs = Vec::new();
                for _ in 0..dice.below(4) {
                    let mut epoch = dice.pick(log)?.clone();
                    if dice.chance(50) {
                        epoch.signature[0] ^= 1;
                    }
                    epochs.push(sent(epoch));
                }
                epochs.extend(self.forged.iter().filter(|_| dice.chance(30)).map(|(epoch, ..)| sent(epoch.clone())));
                Response::Epochs {
                    heads: vec![random_id(dice), random_id(dice)],
                    epochs,
                    next: (kind == 5).then(|| Cursor(dice.next())),
                    tell_branches: kind == 4,
                }
            }
        };
        Some(response.encode())
    }
}
