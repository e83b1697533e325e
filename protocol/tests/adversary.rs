//! What a hostile host and the thief of a session can not do once they are revoked, whatever they make of what they know.
mod world;

use std::collections::BTreeSet;

use kvspace_protocol::{
    capability::build::Claims,
    epoch::{Event, SignedEpoch},
    id::{EpochId, Millis},
};
use proptest::{prelude::*, sample::Index, test_runner::FileFailurePersistence};
use world::{
    Draft, Forger, Host, Owner, START_MS, Session, clock, event, hash, id, put_event, revocation, seq, verified,
};

/// The honest hosts with what each has, and all epochs by number: hosts know epochs by these.
struct Scene {
    owner: Owner,
    hosts: [Forger; 3],
    has: [BTreeSet<usize>; 3],
    thief: Forger,
    /// S, which may revoke in the owner's name; D beneath it; X.
    sessions: [Session; 3],
    epochs: Vec<SignedEpoch>,
    past: Vec<BTreeSet<usize>>,
    writes: u64,
}

impl Scene {
    fn new() -> Self {
        let owner = Owner::new(1);
        let hosts = [2, 3, 4].map(|seed| Forger::new(&owner, seed));
        let thief = Forger::new(&owner, 5);
        let s = owner.session(10);
        let mut claims = Claims::until(Millis(START_MS + 86_400_000));
        claims.audience = s.delegation.audience_did().cloned();
        claims.capabilities.insert(format!("{}/kv", owner.space), vec!["tinycloud.kv/put".into()]);
        claims.capabilities.insert(format!("{}/delegation", owner.space), vec!["tinycloud.delegation/revoke".into()]);
        let s = Session { delegation: verified(&claims, &owner.key), ..s };
        let sessions = [s.clone(), s.delegate(11), owner.session(12)];
        let named = hosts.iter().chain([&thief]).map(|host| event(&owner.host_delegation(&host.did())));
        let events = named.chain(sessions.iter().map(|session| event(&session.delegation))).collect();
        let root = hosts[0].epoch(Draft { seq: clock(START_MS), events, ..Draft::default() });
        let has = [(); 3].map(|()| BTreeSet::from([0]));
        Self { owner, hosts, has, thief, sessions, epochs: vec![root], past: vec![BTreeSet::new()], writes: 0 }
    }

    fn ids(&self, numbers: &[usize]) -> Vec<EpochId> {
        numbers.iter().map(|number| id(&self.epochs[*number])).collect()
    }

    fn heads(&self, host: usize) -> Vec<usize> {
        let has = &self.has[host];
        has.iter().filter(|one| !has.iter().any(|other| self.past[*other].contains(one))).copied().collect()
    }

    /// Makes an epoch, each on a chain of its own.
    fn make(&mut self, host: Option<usize>, parents: &[usize], events: Vec<Event>, bump: u64) -> usize {
        let number = self.epochs.len();
        let least = parents.iter().map(|parent| seq(&self.epochs[*parent])).max().expect("a parent");
        let parent_ids = self.ids(parents);
        let draft = Draft {
            incarnation: number as u64,
            parents: parent_ids,
            seq: least + 1 + bump,
            events,
            ..Draft::default()
        };
        let maker = host.map_or(&self.thief, |host| &self.hosts[host]);
        self.epochs.push(maker.epoch(draft));
        let past = parents.iter().flat_map(|parent| self.past[*parent].iter().copied().chain([*parent]));
        self.past.push(past.collect());
        number
    }

    fn honest(&mut self, host: usize, event: impl FnOnce(&mut Self, &[EpochId]) -> Event) -> usize {
        let heads = self.heads(host);
        let after = self.ids(&heads);
        let event = event(self, &after);
        let number = self.make(Some(host), &heads, vec![event], 0);
        self.has[host].insert(number);
        number
    }

    fn put(&mut self, session: usize, key: usize, after: &[EpochId], bytes: &[u8]) -> Event {
        let token = self.sessions[session % 3].invocation(&format!("k{key}"), "put", START_MS + 60_000, after);
        put_event(&token, bytes)
    }

    fn write(&mut self, host: usize, session: usize, key: usize) {
        self.writes += 1;
        let bytes = self.writes.to_be_bytes();
        self.honest(host, |scene, after| scene.put(session, key, after, &bytes));
    }

    fn sync(&mut self, a: usize, b: usize) {
        let union: BTreeSet<_> = self.has[a].union(&self.has[b]).copied().collect();
        self.has[a].clone_from(&union);
        self.has[b] = union;
    }

    fn events(&self, number: usize) -> Vec<Event> {
        let signed = self.epochs[number].clone();
        kvspace_protocol::epoch::Epoch::decode_unsigned(signed).expect("well formed").events
    }

    fn mirror(&self, epochs: impl IntoIterator<Item = usize>) -> Host {
        let mut mirror = Host::new(&self.owner, 99);
        mirror.receive(epochs.into_iter().map(|number| self.epochs[number].clone()));
        assert_eq!((mirror.refused.len(), mirror.core.missing().len()), (0, 0));
        mirror
    }
}

fn config() -> ProptestConfig {
    let seeds = FileFailurePersistence::Direct("tests/adversary.seeds");
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.div_ceil(2), failure_persistence: Some(Box::new(seeds)), ..usual }
}

type Honest = (usize, usize, usize, Option<(usize, usize)>);

fn honest() -> impl Strategy<Value = Vec<Honest>> {
    proptest::collection::vec((0..3usize, 0..3usize, 0..6usize, proptest::option::of((0..3usize, 0..3usize))), 1..14)
}

fn hostile() -> impl Strategy<Value = Vec<(u8, Index, Index, usize, u64)>> {
    let one = (0..6u8, any::<Index>(), any::<Index>(), 0..6usize, prop_oneof![0..4u64, 0..200_000u64]);
    proptest::collection::vec(one, 1..10)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_revoked_change_nothing(history in honest(), forgeries in hostile()) {
        let mut scene = Scene::new();
        for (host, session, key, synced) in history {
            scene.write(host, session, key);
            if let Some((a, b)) = synced {
                scene.sync(a, b);
            }
        }
        for (a, b) in [(0, 1), (1, 2), (0, 2), (0, 1)] {
            scene.sync(a, b);
        }
        let written = scene.epochs.len();
        let before = scene.mirror(0..written);
        // S revokes X; the owner revokes S where that is not known yet. D falls with S.
        let first = scene.honest(0, |scene, after| {
            let proofs = vec![scene.sessions[0].delegation.address()];
            let target = &scene.sessions[2].delegation;
            event(&revocation(&scene.sessions[0].key, &scene.owner.space, target, after, proofs))
        });
        let second = scene.honest(1, |scene, after| event(&scene.owner.revoke(&scene.sessions[0].delegation, after)));
        let mut ground: Vec<usize> = (0..written).collect();
        for (kind, parent, pick, key, bump) in forgeries {
            let parent = *parent.get(&ground);
            let old = pick.index(written);
            let events = match kind {
                0 => vec![scene.put(old, key, &[], b"FORGED")],
                1 => scene.events(if key % 2 == 0 { first } else { second }),
                2 => scene.events(old),
                3 | 4 => {
                    let target = &scene.sessions[if kind == 3 { 2 } else { 1 }].delegation;
                    // Having seen nothing, or only what is old.
                    let after = if key < 3 { vec![] } else { scene.ids(&[0]) };
                    let proofs = vec![scene.sessions[0].delegation.address()];
                    vec![event(&revocation(&scene.sessions[0].key, &scene.owner.space, target, &after, proofs))]
                }
                _ => {
                    let mut events = scene.events(old);
                    events.push(scene.put(old, key, &[], b"FORGED"));
                    events
                }
            };
            // What names epochs out of sight is dead there; that is allowed.
            ground.push(scene.make(None, &[parent], events, bump));
        }
        let all: Vec<usize> = (0..scene.epochs.len()).collect();
        let after = scene.mirror(all.iter().copied());
        prop_assert!(!after.entries().values().any(|blob| *blob == hash(b"FORGED")), "a forged write wins");
        prop_assert_eq!(after.winners(), before.winners(), "what was there is erased or another write of it wins");
        for (operation, void) in before.operations() {
            prop_assert!(!void && !after.operations()[&operation], "history is erased");
        }
        let late = scene.put(2, 9, &[], b"late");
        let late = scene.make(None, &[0], vec![late], 5);
        let undone = scene.mirror(all.iter().copied().chain([late]));
        prop_assert_eq!(undone.live("k9"), None, "a revocation is undone");
        let backwards = scene.mirror(all.into_iter().chain([late]).rev());
        prop_assert_eq!(backwards.winners(), undone.winners());
        prop_assert_eq!(backwards.operations(), undone.operations());
    }
}
