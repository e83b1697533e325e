//! What each rule of counting is for: a hostile host gets its way where the rule is switched off.

use kvspace_protocol::{
    capability::build::Claims,
    epoch::{Epoch, Event, SignedEpoch},
    id::{BlobHash, EpochId, Millis},
};

use crate::{
    oracle::{Rules, truth, truth_by},
    world::{self, Draft, Forger, Host, Owner, START_MS, Session, clock, event, hash, id, put_event, revocation, seq},
};

/// An honest host that took two writes of one key, and a host of ill will with the keys of S and T.
struct Scene {
    owner: Owner,
    honest: Forger,
    thief: Forger,
    /// May revoke in the owner's name.
    s: Session,
    t: Session,
    x: Session,
    epochs: Vec<SignedEpoch>,
}

impl Scene {
    fn new() -> Self {
        let owner = Owner::new(1);
        let (honest, thief) = (Forger::new(&owner, 2), Forger::new(&owner, 3));
        let (s, t, x) = (owner.session(10), owner.session(11), owner.session(12));
        let mut claims = Claims::until(Millis(START_MS + 86_400_000));
        claims.audience = s.delegation.audience_did().cloned();
        claims.capabilities.insert(format!("{}/delegation", owner.space), vec!["tinycloud.delegation/revoke".into()]);
        let s = Session { delegation: world::verified(&claims, &owner.key), ..s };
        let mut scene = Self { owner, honest, thief, s, t, x, epochs: vec![] };
        let named = [&scene.honest, &scene.thief].map(|host| event(&scene.owner.host_delegation(&host.did())));
        let sessions = [&scene.s, &scene.t, &scene.x].map(|session| event(&session.delegation));
        scene.add(false, &[], named.into_iter().chain(sessions).collect());
        for value in [b"old", b"new"] {
            let put = scene.x.invocation("k", "put", START_MS + 60_000, &[]);
            let last = scene.epochs.len() - 1;
            scene.add(false, &[last], vec![put_event(&put, value)]);
        }
        scene
    }

    /// Adds an epoch on a chain of its own.
    fn add(&mut self, by_thief: bool, parents: &[usize], events: Vec<Event>) {
        let least = parents.iter().map(|parent| seq(&self.epochs[*parent])).max().unwrap_or(clock(START_MS));
        let parents: Vec<EpochId> = parents.iter().map(|parent| id(&self.epochs[*parent])).collect();
        let incarnation = self.epochs.len() as u64;
        let host = if by_thief { &self.thief } else { &self.honest };
        let epoch = host.epoch(Draft { incarnation, parents, seq: least + 1, events, ..Draft::default() });
        self.epochs.push(epoch);
    }

    fn events(&self, number: usize) -> Vec<Event> {
        Epoch::decode_unsigned(self.epochs[number].clone()).expect("well formed").events
    }

    fn value(&self, rules: Rules) -> Option<BlobHash> {
        truth_by(rules, &self.owner.space, &self.epochs).winners.get("k").and_then(|(_, blob)| *blob)
    }

    /// By all rules the new value stands, on a real host too; without this one it does not.
    fn falls_without(&self, rules: Rules) {
        let mut host = Host::new(&self.owner, 99);
        host.receive(self.epochs.iter().cloned());
        assert_eq!(host.log.len(), self.epochs.len());
        assert_eq!(host.winners(), truth(&self.owner.space, &self.epochs).winners);
        assert_eq!(self.value(Rules::ALL), Some(hash(b"new")));
        assert_ne!(self.value(rules), Some(hash(b"new")));
    }
}

#[test]
fn without_rule_3_a_replayed_write_wins_again() {
    let mut scene = Scene::new();
    let replayed = scene.events(1);
    scene.add(true, &[2], replayed);
    scene.falls_without(Rules { once: false, ..Rules::ALL });
    assert_eq!(scene.value(Rules { once: false, ..Rules::ALL }), Some(hash(b"old")));
}

#[test]
fn without_rule_5_anybody_erases_what_others_wrote() {
    let mut scene = Scene::new();
    let root = id(&scene.epochs[0]);
    let theft = revocation(&scene.t.key, &scene.owner.space, &scene.x.delegation, &[root], vec![]);
    scene.add(true, &[2], vec![event(&theft)]);
    scene.falls_without(Rules { right: false, ..Rules::ALL });
}

#[test]
fn without_rule_6_a_revocation_erases_what_was_there() {
    let mut scene = Scene::new();
    let last = id(&scene.epochs[2]);
    let revoked = scene.owner.revoke(&scene.x.delegation, &[last]);
    scene.add(false, &[2], vec![event(&revoked)]);
    // What comes after it is void by the rules as well as without this one.
    let late = scene.x.invocation("k", "put", START_MS + 60_000, &[]);
    scene.add(true, &[2], vec![put_event(&late, b"FORGED")]);
    scene.falls_without(Rules { cut: false, ..Rules::ALL });
}

#[test]
fn without_rule_7_the_revoked_erase_what_was_there() {
    let mut scene = Scene::new();
    let (root, last) = (id(&scene.epochs[0]), id(&scene.epochs[2]));
    let revoked = scene.owner.revoke(&scene.s.delegation, &[last]);
    scene.add(false, &[2], vec![event(&revoked)]);
    let proofs = vec![scene.s.delegation.address()];
    let theft = revocation(&scene.s.key, &scene.owner.space, &scene.x.delegation, &[root], proofs);
    scene.add(true, &[2], vec![event(&theft)]);
    scene.falls_without(Rules { widened: false, ..Rules::ALL });
}
