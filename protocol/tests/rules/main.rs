//! The rules of the log, one by one: which epochs are valid, which events sound, which operations count.
mod counting;
mod sound;
mod valid;
#[path = "../world/mod.rs"]
mod world;

use ed25519_dalek::Signer;
use kvspace_protocol::{
    authority::Proof,
    capability::{Content, build::Claims},
    epoch::{Event, SignedEpoch},
    id::{EpochId, HostKey, Millis},
    limits::{EXPIRY_GRACE_MS, ONCE_WINDOW_MS, WAITING_EPOCHS_MAX},
    space::{CheckedEpoch, Invalid},
};
use world::{
    Draft, Forger, Host, Owner, START_MS, Session, clock, did, event, hash, id, key, put_event, revocation, seq,
    verified,
};

const DAY_MS: i64 = 86_400_000;

/// A space as somebody mirrors it who only receives, and the hosts A and B that write by hand.
struct Scene {
    owner: Owner,
    session: Session,
    a: Forger,
    b: Forger,
    mirror: Host,
    /// The first epoch: host A names itself, B and the session.
    root: SignedEpoch,
}

impl Scene {
    fn new() -> Self {
        let owner = Owner::new(1);
        let (a, b, session) = (Forger::new(&owner, 2), Forger::new(&owner, 3), owner.session(4));
        let named = [&a, &b].map(|host| event(&owner.host_delegation(&host.did())));
        let events = named.into_iter().chain([event(&session.delegation)]).collect();
        let root = a.epoch(Draft { seq: clock(START_MS - 1000), events, ..Draft::default() });
        let mut mirror = Host::new(&owner, 9);
        mirror.receive([root.clone()]);
        Self { owner, session, a, b, mirror, root }
    }

    /// A draft of host B's first epoch on top of these.
    fn on(&self, parents: &[&SignedEpoch], events: Vec<Event>) -> Draft {
        let seq = parents.iter().map(|parent| seq(parent)).max().unwrap_or(0) + 1;
        Draft { parents: parents.iter().map(|parent| id(parent)).collect(), seq, events, ..Draft::default() }
    }

    fn put(&self, path: &str, bytes: &[u8], after: &[EpochId]) -> Event {
        put_event(&self.session.invocation(path, "put", START_MS + 60_000, after), bytes)
    }

    fn receive(&mut self, signed: &SignedEpoch) {
        self.mirror.receive([signed.clone()]);
    }

    /// What becomes of an epoch: `None` when it is taken in.
    fn refusal(&mut self, signed: &SignedEpoch) -> Option<Invalid> {
        self.receive(signed);
        let refused = self.mirror.refused.pop().map(|(_, why)| why);
        assert_eq!(refused.is_none(), self.mirror.frontier().contains(&id(signed)));
        refused
    }

    /// Whether the put in this event, in an epoch made at this time, is sound.
    fn is_sound(&mut self, event: Event, at_ms: i64) -> bool {
        self.mirror.now_ms = self.mirror.now_ms.max(at_ms);
        let incarnation = 1000 + self.mirror.core.dag().len();
        let draft = Draft { incarnation, seq: clock(at_ms), ..self.on(&[&self.root], vec![event]) };
        let epoch = self.b.epoch(draft);
        self.receive(&epoch);
        assert!(self.mirror.frontier().contains(&id(&epoch)), "the epoch stands, whatever its events are worth");
        self.mirror.operations().keys().any(|(_, version)| version.epoch == id(&epoch))
    }
}
