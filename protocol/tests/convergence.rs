//! Any order, duplication and partition of delivery ends in the same state, which is what the rules say of the set.
mod oracle;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use kvspace_protocol::{
    authority::Proof,
    capability::build::Claims,
    epoch::{Epoch, Event, SignedEpoch},
    id::{EpochId, Millis},
    kv::{Condition, Version},
    space::{CheckedEpoch, Explained, View, Worth},
};
use proptest::{collection::vec, prelude::*, test_runner::FileFailurePersistence};
use world::{Draft, Forger, Host, Owner, START_MS, Session, event, id, put_event, revocation, seq, verified, write};

/// One thing that happens; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Put { host: usize, session: usize, key: u8, bound: bool },
    PutIfAbsent { host: usize, session: usize, key: u8 },
    Delete { host: usize, session: usize, key: u8, bound: bool },
    Grant { host: usize, manager: bool },
    SubGrant { host: usize, session: usize },
    Revoke { host: usize, session: usize, by: By, bound: bool },
    Remove { host: usize, removed: usize, bound: bool },
    Sync { from: usize, to: usize },
    Leak { host: usize },
    Restart { host: usize },
    Tick { host: usize, ms: u16 },
    Hold { host: usize },
    Release { host: usize },
    Forge(Forgery),
}

#[derive(Debug, Clone, Copy)]
enum By {
    Owner,
    Delegator,
    Itself,
}

/// An epoch of the hostile host.
#[derive(Debug, Clone)]
struct Forgery {
    kind: ForgeryKind,
    parents: [usize; 2],
    bump: u16,
    session: usize,
    pick: usize,
    on_chain: bool,
}

#[derive(Debug, Clone, Copy)]
enum ForgeryKind {
    /// Writes with a session it got hold of.
    Put,
    /// Copies events of others.
    Copy,
    CopyBody,
    /// Revokes with a session it got hold of, having seen nothing, or something old.
    Theft,
    OldTheft,
    Garbage,
    WrongProof,
    /// Restates a delegation, so that a body may begin with what it needs.
    Grant,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let (host, session, key) = (0..3usize, 0..8usize, 0..4u8);
    let flag = any::<bool>;
    let by = prop_oneof![Just(By::Owner), Just(By::Delegator), Just(By::Itself)];
    prop_oneof![
        8 => (host.clone(), session.clone(), key.clone(), flag()).prop_map(|(host, session, key, bound)| Put { host, session, key, bound }),
        2 => (host.clone(), session.clone(), key.clone()).prop_map(|(host, session, key)| PutIfAbsent { host, session, key }),
        3 => (host.clone(), session.clone(), key, flag()).prop_map(|(host, session, key, bound)| Delete { host, session, key, bound }),
        2 => (host.clone(), flag()).prop_map(|(host, manager)| Grant { host, manager }),
        3 => (host.clone(), session.clone()).prop_map(|(host, session)| SubGrant { host, session }),
        2 => (host.clone(), session, by, flag()).prop_map(|(host, session, by, bound)| Revoke { host, session, by, bound }),
        1 => (host.clone(), 0..4usize, flag()).prop_map(|(host, removed, bound)| Remove { host, removed, bound }),
        5 => (host.clone(), host.clone()).prop_map(|(from, to)| Sync { from, to }),
        2 => host.clone().prop_map(|host| Leak { host }),
        1 => host.clone().prop_map(|host| Restart { host }),
        3 => (host.clone(), 0..20_000u16).prop_map(|(host, ms)| Tick { host, ms }),
        2 => host.clone().prop_map(|host| Hold { host }),
        2 => host.prop_map(|host| Release { host }),
        10 => forgery().prop_map(Forge),
    ]
}

fn forgery() -> impl Strategy<Value = Forgery> {
    use ForgeryKind::*;
    let kind = prop_oneof![
        3 => Just(Put), 4 => Just(Copy), 2 => Just(CopyBody), 3 => Just(Theft), 2 => Just(OldTheft),
        1 => Just(Garbage), 1 => Just(WrongProof), 2 => Just(Grant)
    ];
    let numbers = ([any::<u16>(), any::<u16>()], 0..3000u16, 0..8usize, any::<u16>(), any::<bool>());
    (kind, numbers).prop_map(|(kind, (parents, bump, session, pick, on_chain))| Forgery {
        kind,
        parents: parents.map(usize::from),
        bump,
        session,
        pick: usize::from(pick),
        on_chain,
    })
}

/// Three honest hosts (the last is the owner's own), one hostile, and the sessions.
struct Play {
    owner: Owner,
    hosts: [Host; 3],
    thief: Forger,
    sessions: Vec<Session>,
    /// Whose session each comes from.
    above: Vec<Option<usize>>,
    forged: Vec<SignedEpoch>,
    checked: BTreeMap<EpochId, CheckedEpoch>,
    /// The thief's last epoch on its chain.
    tip: Option<(EpochId, u64, u64)>,
    incarnations: u64,
}

impl Play {
    fn new() -> Self {
        let owner = Owner::new(1);
        let thief = Forger::new(&owner, 9);
        let mut hosts = [Host::hosting(&owner, 2), Host::new(&owner, 3), Host::owner(&owner)];
        let sessions = vec![manager(&owner, 10), owner.session(11)];
        for host in [&owner.host_delegation(&hosts[1].did()), &owner.host_delegation(&thief.did())] {
            hosts[0].take_token(host.clone()).expect("taken in");
        }
        for session in &sessions {
            hosts[0].take_token(session.delegation.clone()).expect("taken in");
        }
        let log = hosts[0].log.clone();
        hosts[1].receive(log.clone());
        hosts[2].receive(log);
        let (above, forged, checked) = (vec![None, None], Vec::new(), BTreeMap::new());
        Self { owner, hosts, thief, sessions, above, forged, checked, tip: None, incarnations: 100 }
    }

    fn session(&self, number: usize) -> Session {
        self.sessions[number % self.sessions.len()].clone()
    }

    fn after(&self, host: usize, bound: bool) -> Vec<EpochId> {
        if bound { self.hosts[host].frontier() } else { Vec::new() }
    }

    /// What a revoker had seen: all there is, or what came before some epoch.
    fn seen(&self, host: usize, number: usize) -> Vec<EpochId> {
        let log = &self.hosts[host].log;
        if number.is_multiple_of(3) || log.is_empty() {
            return self.after(host, true);
        }
        vec![id(&log[number * 5 % log.len()])]
    }

    fn check(&mut self, signed: &SignedEpoch) -> CheckedEpoch {
        let check = || CheckedEpoch::check(signed.clone()).expect("well formed");
        self.checked.entry(id(signed)).or_insert_with(check).clone()
    }

    fn give(&mut self, host: usize, epochs: &[SignedEpoch]) {
        let checked: Vec<_> = epochs.iter().map(|epoch| self.check(epoch)).collect();
        self.hosts[host].receive_checked(checked);
    }

    /// What an honest host does may be refused; then nothing happens.
    fn play(&mut self, step: Step) {
        match step {
            Step::Put { host, session, key, bound } => {
                let after = self.after(host, bound);
                // Some expire so late that they were written early.
                let late = if key % 2 == 0 { 60_000 } else { 360_000 + 5000 * i64::from(key) };
                let expiry = late + if key == 1 { START_MS } else { self.hosts[host].now_ms };
                let token = self.session(session).invocation(&path(key), "put", expiry, &after);
                let bytes = token.address().to_string();
                self.hosts[host].send(write(token, Some(bytes.as_bytes())));
            }
            Step::PutIfAbsent { host, session, key } => {
                let mut put = self.session(session).put_write(&self.hosts[host], &path(key), b"first");
                put.condition = Condition::Absent;
                self.hosts[host].send(put);
            }
            Step::Delete { host, session, key, bound } => {
                let after = self.after(host, bound);
                let token =
                    self.session(session).invocation(&path(key), "del", self.hosts[host].now_ms + 60_000, &after);
                self.hosts[host].send(write(token, None));
            }
            Step::Grant { host, manager: is_manager } => {
                let seed = 20 + self.sessions.len() as u8;
                let session = if is_manager { manager(&self.owner, seed) } else { self.owner.session(seed) };
                self.grant(host, session, None);
            }
            Step::SubGrant { host, session } => {
                let above = session % self.sessions.len();
                let child = self.sessions[above].delegate(20 + self.sessions.len() as u8);
                self.grant(host, child, Some(above));
            }
            Step::Revoke { host, session, by, bound } => {
                let number = session % self.sessions.len();
                let after = if bound { self.seen(host, session) } else { Vec::new() };
                let target = self.sessions[number].clone();
                let above = self.above[number].map(|above| self.sessions[above].clone());
                let token = match (by, above) {
                    (By::Delegator, Some(above)) => {
                        // A delegator needs no proof; with one it rests on the same.
                        let proofs = if bound { vec![] } else { vec![above.delegation.address()] };
                        revocation(&above.key, &self.owner.space, &target.delegation, &after, proofs)
                    }
                    (By::Itself, _) => revocation(&target.key, &self.owner.space, &target.delegation, &after, vec![]),
                    (By::Owner | By::Delegator, _) => self.owner.revoke(&target.delegation, &after),
                };
                self.revoke(host, token, bound);
            }
            Step::Remove { host, removed, bound } => {
                let did = if removed == 3 { self.thief.did() } else { self.hosts[removed].did() };
                let after = if bound { self.seen(host, removed + host) } else { Vec::new() };
                let token = self.owner.revoke(&self.owner.host_delegation(&did), &after);
                self.revoke(host, token, bound);
            }
            Step::Sync { from, to } => {
                let log = self.hosts[from].log.clone();
                self.give(to, &log);
            }
            Step::Leak { host } => {
                let forged: Vec<_> = self.forged.iter().rev().cloned().collect();
                self.give(host, &forged);
            }
            Step::Restart { host } => self.hosts[host].reopen(),
            Step::Tick { host, ms } => self.hosts[host].wait(i64::from(ms)),
            Step::Hold { host } => self.hosts[host].slow = true,
            Step::Release { host } => self.hosts[host].finish_all(),
            Step::Forge(forgery) => self.forge(&forgery),
        }
    }

    fn grant(&mut self, host: usize, session: Session, above: Option<usize>) {
        self.hosts[host].send_token(session.delegation.clone(), vec![]);
        self.sessions.push(session);
        self.above.push(above);
    }

    /// Logs a revocation; what it voids is what was said before.
    fn revoke(&mut self, host: usize, token: Proof, waits: bool) {
        let host = &mut self.hosts[host];
        if host.slow && !waits {
            host.send_token(token, vec![]);
            return;
        }
        let was_slow = host.slow;
        host.finish_all();
        let expected = match host.preview(&token, usize::MAX) {
            Ok(expected) => expected,
            Err(refusal) => {
                let call = host.send_token(token, vec![]);
                assert_eq!(host.reply(call), Some(Err(refusal)));
                host.slow = was_slow;
                return;
            }
        };
        let (before, winners) = (host.operations(), host.winners());
        let call = host.send_token(token, vec![]);
        assert!(host.reply(call).is_some_and(|reply| reply.is_ok()));
        let newly = |((key, version), void): &((String, Version), bool)| {
            let wins = winners.get(key).is_some_and(|(winner, _)| winner == version);
            (*void && !before[&(key.clone(), *version)]).then(|| (key.clone(), *version, wins))
        };
        let effect: BTreeSet<_> = host.operations().into_iter().filter_map(|operation| newly(&operation)).collect();
        let said = expected.voided.into_iter().map(|voided| (voided.key.to_string(), voided.version, voided.wins));
        assert_eq!(said.collect::<BTreeSet<_>>(), effect, "what a revocation voids is what was said");
        host.slow = was_slow;
    }

    /// Every epoch there is, the forged ones included, each once.
    fn all(&self) -> Vec<SignedEpoch> {
        let mut seen = BTreeSet::new();
        let logs = self.hosts.iter().flat_map(|host| &host.log).chain(&self.forged);
        logs.filter(|epoch| seen.insert(id(epoch))).cloned().collect()
    }

    fn forge(&mut self, forgery: &Forgery) {
        let all = self.all();
        let pick = |number: usize| &all[number % all.len()];
        let session = self.session(forgery.session);
        let old = pick(forgery.pick);
        let events_of = |epoch: &SignedEpoch| Epoch::decode_unsigned(epoch.clone()).expect("well formed").events;
        let events: Vec<Event> = match forgery.kind {
            ForgeryKind::Put | ForgeryKind::WrongProof => {
                vec![put_event(
                    &session.invocation(&path(forgery.pick as u8 % 4), "put", START_MS + 60_000, &[]),
                    b"FORGED",
                )]
            }
            ForgeryKind::Copy => {
                let events = events_of(old);
                vec![events[forgery.session % events.len()].clone()]
            }
            ForgeryKind::CopyBody => events_of(old),
            ForgeryKind::Theft | ForgeryKind::OldTheft => {
                let target = self.session(forgery.pick);
                let after = if matches!(forgery.kind, ForgeryKind::OldTheft) { vec![id(old)] } else { vec![] };
                let proofs = vec![session.delegation.address()];
                let theft = revocation(&session.key, &self.owner.space, &target.delegation, &after, proofs);
                vec![event(&session.delegation), event(&target.delegation), event(&theft)]
            }
            ForgeryKind::Garbage => vec![Event { token: vec![1, 2, 3], values: vec![] }],
            ForgeryKind::Grant => vec![event(&session.delegation)],
        };
        let named = [pick(forgery.parents[0]), pick(forgery.parents[1])];
        let mut draft = Draft { parents: named.map(id).to_vec(), events, ..Draft::default() };
        let mut least = named.map(seq).into_iter().max().expect("two");
        match self.tip.filter(|_| forgery.on_chain) {
            Some((tip, n, tip_seq)) => {
                (draft.prev, draft.n) = (Some(tip), n + 1);
                least = least.max(tip_seq);
            }
            None => {
                self.incarnations += 1;
                draft.incarnation = self.incarnations;
            }
        }
        if !forgery.on_chain && forgery.pick.is_multiple_of(3) {
            draft.incarnation = 0;
        }
        draft.seq = least + 1 + u64::from(forgery.bump);
        let proof = Some(session.delegation.address());
        let other = Forger { proof, ..Forger::new(&self.owner, 9) };
        let host = if matches!(forgery.kind, ForgeryKind::WrongProof) { &other } else { &self.thief };
        let epoch = host.epoch(draft.clone());
        if draft.incarnation == 0 && !matches!(forgery.kind, ForgeryKind::WrongProof) {
            // Not always the newest: the next one may fork.
            if !forgery.bump.is_multiple_of(4) || self.tip.is_none() {
                self.tip = Some((id(&epoch), draft.n, draft.seq));
            }
        }
        self.forged.push(epoch);
    }
}

/// A session that may also revoke in the owner's name.
fn manager(owner: &Owner, seed: u8) -> Session {
    let session = owner.session(seed);
    let mut claims = Claims::until(Millis(START_MS + 86_400_000));
    claims.audience = session.delegation.audience_did().cloned();
    let abilities = ["del", "get", "list", "metadata", "put"].map(|name| format!("tinycloud.kv/{name}"));
    claims.capabilities.insert(format!("{}/kv", owner.space), abilities.into());
    claims.capabilities.insert(format!("{}/delegation", owner.space), vec!["tinycloud.delegation/revoke".into()]);
    Session { delegation: verified(&claims, &owner.key), ..session }
}

fn path(key: u8) -> String {
    format!("k{key}")
}

/// A small generator, so that an order follows from a number.
fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for last in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(last, (seed >> 33) as usize % (last + 1));
    }
}

fn assert_is(host: &Host, truth: &oracle::Truth) {
    assert_eq!(host.frontier(), truth.heads);
    assert_eq!(host.operations(), truth.operations);
    assert_eq!(host.winners(), truth.winners);
    assert_explained(host);
}

/// What is explained is what the rules say.
fn assert_explained(host: &Host) {
    let winners = host.winners();
    for key in host.view.keys() {
        let history = host.view.history(key).expect("the view reads");
        let explained = host.core.explain(&host.view, history).expect("the view reads");
        assert!(explained.is_sorted_by(|newer, older| newer.operation.version > older.operation.version));
        for Explained { operation, worth, .. } in &explained {
            let wins = winners.get(&**key).is_some_and(|(winner, _)| *winner == operation.version);
            assert_eq!(matches!(worth, Worth::Wins), wins);
            assert_eq!(matches!(worth, Worth::Void(_)), host.core.is_void(operation));
            let elsewhere = |other: &Explained| {
                let counts = matches!(other.worth, Worth::Wins | Worth::Superseded);
                counts && other.operation.identity == operation.identity
            };
            if matches!(worth, Worth::Repeated) {
                assert!(explained.iter().any(elsewhere), "it counts where it was done before");
            }
        }
        assert_eq!(explained.len(), host.view.history(key).expect("the view reads").len());
    }
}

fn config() -> ProptestConfig {
    let seeds = FileFailurePersistence::Direct("tests/convergence.seeds");
    // A quarter of PROPTEST_CASES, which is 256 unless it is set.
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.div_ceil(4), failure_persistence: Some(Box::new(seeds)), ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_delivery_ends_in_what_the_rules_say(steps in vec(step(), 1..60), seed in any::<u64>()) {
        let mut play = Play::new();
        for step in steps {
            play.play(step);
        }
        for host in &mut play.hosts {
            host.finish_all();
            assert_is(host, &oracle::truth(&play.owner.space, &host.log));
        }
        let all = play.all();
        let truth = oracle::truth(&play.owner.space, &all);
        let late = START_MS + 3_600_000;
        // Host by host, what the others have.
        for host in 0..3 {
            play.hosts[host].now_ms = late;
            play.give(host, &all);
            assert_is(&play.hosts[host], &truth);
        }
        // One by one, twice, with restarts; in chunks; and all at once.
        for (round, chunk) in [1usize, 7, usize::MAX].into_iter().enumerate() {
            let mut order: Vec<_> = all.iter().chain(&all).cloned().collect();
            shuffle(&mut order, seed.wrapping_add(round as u64));
            let mut mirror = Host::new(&play.owner, 30);
            mirror.now_ms = late;
            for (number, part) in order.chunks(chunk.min(order.len())).enumerate() {
                let checked: Vec<_> = part.iter().map(|epoch| play.check(epoch)).collect();
                mirror.slow = number % 3 == 1;
                mirror.receive_checked(checked);
                if number % 5 == 4 {
                    mirror.finish_all();
                }
            }
            mirror.finish_all();
            // What a restart forgot in the waiting room is offered again.
            mirror.reopen();
            let checked: Vec<_> = all.iter().map(|epoch| play.check(epoch)).collect();
            mirror.receive_checked(checked.clone());
            assert_is(&mirror, &truth);
            let log = mirror.log.len();
            mirror.receive_checked(checked);
            assert_eq!(mirror.log.len(), log, "a second delivery changes nothing");
            mirror.reopen();
            assert_is(&mirror, &truth);
        }
    }
}
