//! Two hundred histories with honest, partitioned and hostile hosts, judged by an independent script: the same through
//! real tokens and epochs.
mod world;

use std::collections::{BTreeMap, BTreeSet};

use kvspace_protocol::{
    authority::Proof,
    capability::build::Claims,
    epoch::{Event, SignedEpoch},
    id::{EpochId, Millis},
    kv::Version,
};
use serde_json::Value;
use world::{Draft, Forger, Host, Owner, START_MS, clock, did, event, hash, id, key, put_event, verified};

const VECTORS: &str = include_str!("../../tests/vectors/histories.json");

/// How many delegations stand before the events of the first epoch.
const GRANTS: usize = 7;

/// The cast: one owner, sessions S (which may revoke), D beneath it and X, hosts A, B, C and E.
struct Cast {
    owner: Owner,
    hosts: BTreeMap<String, Forger>,
    delegations: BTreeMap<String, Proof>,
}

fn seed(name: &str) -> u8 {
    name.as_bytes()[name.len() - 1]
}

impl Cast {
    fn new() -> Self {
        let owner = Owner::new(1);
        let mut delegations = BTreeMap::new();
        let mut hosts = BTreeMap::new();
        for name in ["A", "B", "C", "E"] {
            let host = Forger::new(&owner, seed(name));
            delegations.insert(format!("H:{name}"), owner.host_delegation(&host.did()));
            hosts.insert(name.to_owned(), host);
        }
        let kv = (format!("{}/kv", owner.space), vec!["tinycloud.kv/put".to_owned()]);
        let revoke = (format!("{}/delegation", owner.space), vec!["tinycloud.delegation/revoke".to_owned()]);
        for (name, above, capabilities) in
            [("S", None, vec![kv.clone(), revoke]), ("D", Some("S"), vec![kv.clone()]), ("X", None, vec![kv])]
        {
            let mut claims = owner.claims();
            claims.audience = Some(did(&key(seed(name))));
            claims.capabilities.extend(capabilities);
            claims.proofs = above.map(|above: &str| delegations[above].address()).into_iter().collect();
            let signer = above.map_or(owner.key.clone(), |above| key(seed(above)));
            delegations.insert(name.to_owned(), verified(&claims, &signer));
        }
        Self { owner, hosts, delegations }
    }

    /// The events that name everybody, what is rested on first.
    fn grants(&self) -> Vec<Event> {
        let names = ["H:A", "H:B", "H:C", "H:E", "S", "D", "X"];
        names.map(|name| event(&self.delegations[name])).into()
    }

    fn claims(&self, name: &Value, after: &Value, ids: &[EpochId]) -> Claims {
        let mut claims = Claims::until(Millis(START_MS + 60_000));
        claims.nonce = Some(text(name).to_owned());
        let named = after.as_array().into_iter().flatten();
        claims.after = named.map(|at| format!("{}/after/{}", self.owner.space, ids[number(at)])).collect();
        claims
    }

    fn event(&self, told: &Value, ids: &[EpochId]) -> Event {
        if told[0] == "rev" {
            let mut claims = self.claims(&told[1], &told[4], ids);
            let target = format!("urn:cid:{}", self.delegations[text(&told[2])].address());
            claims.capabilities.insert(target, vec!["tinycloud.delegation/revoke".into()]);
            let by_session = told[3] == "S";
            claims.proofs = by_session.then(|| self.delegations["S"].address()).into_iter().collect();
            let signer = if by_session { key(seed("S")) } else { self.owner.key.clone() };
            return event(&verified(&claims, &signer));
        }
        let mut claims = self.claims(&told[1], &told[5], ids);
        claims
            .capabilities
            .insert(format!("{}/kv/{}", self.owner.space, text(&told[3])), vec!["tinycloud.kv/put".into()]);
        claims.proofs = vec![self.delegations[text(&told[2])].address()];
        put_event(&verified(&claims, &key(seed(text(&told[2])))), &value(&told[4]))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().expect("a number")).expect("small")
}

fn value(told: &Value) -> Vec<u8> {
    told.to_string().into_bytes()
}

/// The epochs of a history.
fn make(cast: &Cast, history: &Value) -> Vec<SignedEpoch> {
    let (mut made, mut ids): (Vec<SignedEpoch>, Vec<EpochId>) = Default::default();
    for (at, told) in history["epochs"].as_array().expect("epochs").iter().enumerate() {
        let grants = if at == 0 { cast.grants() } else { vec![] };
        let events = told[3].as_array().expect("events").iter().map(|told| cast.event(told, &ids));
        let epoch = cast.hosts[text(&told[0])].epoch(Draft {
            // A chain of its own for each, so that every epoch may stand anywhere.
            incarnation: at as u64,
            parents: told[1].as_array().expect("parents").iter().map(|at| ids[number(at)]).collect(),
            seq: clock(START_MS) + number(&told[2]) as u64,
            events: grants.into_iter().chain(events).collect(),
            ..Draft::default()
        });
        ids.push(id(&epoch));
        made.push(epoch);
    }
    made
}

#[test]
fn every_history_means_what_the_script_says() {
    let vectors: Value = serde_json::from_str(VECTORS).expect("JSON");
    let cast = Cast::new();
    for (at, history) in vectors["histories"].as_array().expect("histories").iter().enumerate() {
        let mut epochs = make(&cast, history);
        let place: BTreeMap<EpochId, usize> = epochs.iter().enumerate().map(|(at, epoch)| (id(epoch), at)).collect();
        if at % 2 == 1 {
            epochs.reverse();
        }
        let mut mirror = Host::new(&cast.owner, 99);
        for epoch in epochs {
            mirror.receive([epoch]);
        }
        assert_eq!(mirror.refused, [], "history {at}");
        let told = history["winners"].as_object().expect("winners");
        let winners: BTreeMap<_, _> = told.iter().map(|(key, told)| (key.clone(), hash(&value(told)))).collect();
        assert_eq!(mirror.entries(), winners, "history {at}");
        let event_of = |version: &Version| {
            let at = place[&version.epoch];
            (at, usize::from(version.event()) - if at == 0 { GRANTS } else { 0 })
        };
        let operations = mirror.operations();
        let void: BTreeSet<_> = operations.iter().filter(|(_, void)| **void).map(|((_, at), _)| event_of(at)).collect();
        let told = history["void"].as_array().expect("void").iter().map(|at| (number(&at[0]), number(&at[1])));
        assert_eq!(void, told.collect(), "history {at}");
    }
}
