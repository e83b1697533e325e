//! What a set of epochs means, computed slowly and from scratch: the rules of the design with sets for vectors.
//!
//! Of the crate under test only the decoding of epochs and tokens is used, and the types of what is compared.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, reason = "a module shared by test binaries")]

use std::collections::{BTreeMap, BTreeSet};

use kvspace_protocol::{
    capability::{Role, Token},
    epoch::{Epoch, SignedEpoch},
    id::{Address, BlobHash, Did, EpochId, Identity, SpaceId},
    kv::Version,
};

/// The meaning of a set of epochs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// The ids of the heads, ascending.
    pub heads: Vec<EpochId>,
    /// Every key's winner, tombstones included.
    pub winners: BTreeMap<String, (Version, Option<BlobHash>)>,
    /// Every operation that is not dead, and whether it is void.
    pub operations: BTreeMap<(String, Version), bool>,
}

struct Node {
    epoch: Epoch,
    tokens: Vec<Option<Token>>,
    past: BTreeSet<EpochId>,
    /// The chain of the host delegation, by identity.
    host: BTreeSet<Identity>,
}

type Present<'a> = BTreeMap<Address, &'a Token>;

/// A revocation that counts, with the places that carry it: epoch, event, chain of the epoch's host.
struct Revocation {
    target: Identity,
    rests_on: BTreeSet<Identity>,
    after: Option<BTreeSet<EpochId>>,
    carriers: Vec<(EpochId, usize)>,
}

struct Operation {
    epoch: EpochId,
    event: usize,
    number: u16,
    key: String,
    token: Identity,
    chain: BTreeSet<Identity>,
    early: bool,
    blob: Option<BlobHash>,
}

/// The rules of DESIGN section 3 that can be switched off, to see what each is for.
#[derive(Clone, Copy)]
pub struct Rules {
    /// 3: a token counts once.
    pub once: bool,
    /// 5: a revocation counts if its signer has the right.
    pub right: bool,
    /// 6: what lies in the cut stands.
    pub cut: bool,
    /// 7: no revocation is ever undone, and the revoked erase nothing.
    pub widened: bool,
}

impl Rules {
    pub const ALL: Self = Self { once: true, right: true, cut: true, widened: true };
}

/// Computes it.
pub fn truth(space: &SpaceId, epochs: &[SignedEpoch]) -> Truth {
    truth_by(Rules::ALL, space, epochs)
}

/// Computes it with some rules only.
pub fn truth_by(rules: Rules, space: &SpaceId, epochs: &[SignedEpoch]) -> Truth {
    let held = hold(space, epochs);
    let owner = space.owner().clone();
    let mut operations = Vec::new();
    let mut revocations: BTreeMap<Identity, Revocation> = BTreeMap::new();
    for (id, node) in &held {
        let mut present = past_tokens(&held, &node.past);
        for (index, token) in node.tokens.iter().enumerate() {
            let Some(token) = token else { continue };
            let values = &node.epoch.events[index].values;
            let at = node.epoch.header.seq >> 16;
            let named: BTreeSet<EpochId> = token.after(space).unwrap_or_default().iter().copied().collect();
            let sound = in_force(token, at) && named.is_subset(&node.past);
            match token.role() {
                Role::Invocation if sound => {
                    operations.extend(operations_of(space, *id, node, index, token, &present));
                }
                Role::Revocation { target } if sound && values.is_empty() => {
                    if let Some((target, rests_on)) = counts(rules, &owner, space, token, target, at, &present) {
                        let reach = |id: &EpochId| held[id].past.iter().copied().chain([*id]);
                        let after = (!named.is_empty()).then(|| named.iter().flat_map(reach).collect());
                        let carriers = Vec::new();
                        let known = revocations.entry(token.identity()).or_insert(Revocation {
                            target,
                            rests_on,
                            after,
                            carriers,
                        });
                        if !known.carriers.iter().any(|(carrier, _)| carrier == id) {
                            known.carriers.push((*id, index));
                        }
                    }
                }
                Role::Delegation | Role::Invocation | Role::Revocation { .. } => {}
            }
            if token.role() == Role::Delegation {
                present.insert(token.address(), token);
            }
        }
    }
    conclude(&held, &operations, &Judge { rules, held: &held, revocations: &revocations })
}

fn conclude(held: &BTreeMap<EpochId, Node>, operations: &[Operation], judge: &Judge<'_>) -> Truth {
    let mut memo = BTreeMap::new();
    let mut truth = Truth::default();
    let seq = |id: &EpochId| held[id].epoch.header.seq;
    let void: Vec<bool> = operations.iter().map(|op| judge.is_void(op, &mut memo)).collect();
    // Where each token counts: not void, not early while another place is left, least version.
    let mut place: BTreeMap<Identity, (bool, u64, EpochId, usize)> = BTreeMap::new();
    for (op, _) in operations.iter().zip(&void).filter(|(_, void)| !**void) {
        let here = (op.early, seq(&op.epoch), op.epoch, op.event);
        place.entry(op.token).and_modify(|least| *least = here.min(*least)).or_insert(here);
    }
    let mut best: BTreeMap<&str, (u64, EpochId, usize, u16, Option<BlobHash>)> = BTreeMap::new();
    for (op, void) in operations.iter().zip(&void) {
        let event = u16::try_from(op.event).expect("few events");
        truth.operations.insert((op.key.clone(), Version::new(seq(&op.epoch), op.epoch, event, op.number)), *void);
        let here = (op.early, seq(&op.epoch), op.epoch, op.event);
        if *void || (judge.rules.once && place.get(&op.token) != Some(&here)) {
            continue;
        }
        let rank = (seq(&op.epoch), op.epoch, op.event, op.number, op.blob);
        let rank_of = |(seq, epoch, event, number, _): &(u64, EpochId, usize, u16, Option<BlobHash>)| {
            (*seq, *epoch, *event, *number)
        };
        if best.get(&*op.key).is_none_or(|known| rank_of(known) < rank_of(&rank)) {
            best.insert(&op.key, rank);
        }
    }
    for (key, (seq, epoch, event, number, blob)) in best {
        let event = u16::try_from(event).expect("few events");
        truth.winners.insert(key.to_owned(), (Version::new(seq, epoch, event, number), blob));
    }
    let covered: BTreeSet<EpochId> = held.values().flat_map(|node| node.past.iter().copied()).collect();
    truth.heads = held.keys().filter(|id| !covered.contains(*id)).copied().collect();
    truth
}

/// The epochs that are valid, with all their Past.
fn hold(space: &SpaceId, epochs: &[SignedEpoch]) -> BTreeMap<EpochId, Node> {
    let mut held: BTreeMap<EpochId, Node> = BTreeMap::new();
    let mut left: Vec<Epoch> = epochs.iter().map(|e| Epoch::decode_unsigned(e.clone()).expect("well formed")).collect();
    loop {
        let before = left.len();
        let mut waits = Vec::new();
        for epoch in left {
            let named: Vec<EpochId> = epoch.header.parents.iter().chain(&epoch.header.prev).copied().collect();
            if held.contains_key(&epoch.id) {
                continue;
            }
            if !named.iter().all(|id| held.contains_key(id)) {
                waits.push(epoch);
                continue;
            }
            let past = named.iter().flat_map(|id| held[id].past.iter().copied().chain([*id])).collect();
            let read =
                |bytes: &Vec<u8>| Some(Token::from_stored(bytes.clone().into()).ok()?.verify().ok()?.into_inner());
            let tokens: Vec<_> = epoch.events.iter().map(|event| read(&event.token)).collect();
            if let Some(host) = valid(space, &held, &epoch, &tokens, &past, &named) {
                held.insert(epoch.id, Node { epoch, tokens, past, host });
            }
        }
        left = waits;
        if left.len() == before {
            return held;
        }
    }
}

/// Rules 3 and 4; the chain of the host delegation.
fn valid(
    space: &SpaceId,
    held: &BTreeMap<EpochId, Node>,
    epoch: &Epoch,
    tokens: &[Option<Token>],
    past: &BTreeSet<EpochId>,
    named: &[EpochId],
) -> Option<BTreeSet<Identity>> {
    let header = &epoch.header;
    if let Some(prev) = &header.prev {
        let prev = &held[prev].epoch.header;
        let same = (prev.host, prev.incarnation) == (header.host, header.incarnation);
        if !same || prev.n + 1 != header.n {
            return None;
        }
    }
    if named.iter().any(|id| held[id].epoch.header.seq >= header.seq) || header.space != *space {
        return None;
    }
    let Some(address) = header.proof else {
        return (header.host.did() == *space.owner()).then(BTreeSet::new);
    };
    let mut present = past_tokens(held, past);
    for token in tokens.iter().flatten().filter(|token| token.role() == Role::Delegation) {
        present.insert(token.address(), token);
    }
    let proof = present.get(&address)?;
    let host = format!("{space}/space");
    let names = capabilities(proof).any(|held| held == (host.as_str(), "tinycloud.space/host"));
    let mut chain = chain(space.owner(), space, proof, true, &present)?;
    chain.insert(address);
    let at = header.seq >> 16;
    let fits = names && proof.audience_did() == Some(&header.host.did());
    let lasts = chain.iter().all(|member| in_force(present[member], at));
    (fits && lasts).then(|| identities(&chain, &present))
}

fn past_tokens<'a>(held: &'a BTreeMap<EpochId, Node>, past: &BTreeSet<EpochId>) -> Present<'a> {
    let tokens = past.iter().flat_map(|id| held[id].tokens.iter().flatten());
    tokens.filter(|token| token.role() == Role::Delegation).map(|token| (token.address(), token)).collect()
}

fn in_force(token: &Token, at: u64) -> bool {
    let at = i64::try_from(at).expect("48 bits");
    token.not_before().is_none_or(|from| from.0 <= at) && token.expiry().is_none_or(|end| at <= end.0 + 60_000)
}

fn capabilities(token: &Token) -> impl Iterator<Item = (&str, &str)> {
    token.capabilities().iter().map(|held| (held.resource.text(), held.ability.as_str()))
}

fn identities(chain: &BTreeSet<Address>, present: &Present<'_>) -> BTreeSet<Identity> {
    chain.iter().map(|address| present[address].identity()).collect()
}

/// The closure of a token's proofs, `None` when something is missing or does not cover. Resources are compared as plain
/// texts, which is enough for the paths these tests use.
fn chain(
    owner: &Did,
    space: &SpaceId,
    token: &Token,
    delegates: bool,
    present: &Present<'_>,
) -> Option<BTreeSet<Address>> {
    let prefix = format!("{space}/");
    let rooted = |resource: &str| token.issuer() == owner && resource.starts_with(&prefix);
    let needs: Vec<_> = capabilities(token).filter(|(resource, _)| !rooted(resource)).collect();
    if needs.is_empty() {
        return Some(BTreeSet::new());
    }
    let mut members = BTreeSet::new();
    let mut parents = Vec::new();
    for address in token.proofs() {
        let parent = present.get(address)?;
        members.insert(*address);
        members.extend(chain(owner, space, parent, true, present)?);
        if parent.audience_did() != Some(token.issuer()) {
            return None;
        }
        let outlives = parent.expiry().is_some_and(|end| token.expiry().is_none_or(|own| own > end));
        if !(delegates && outlives) {
            parents.push(parent);
        }
    }
    let covers = |held: (&str, &str), wanted: &(&str, &str)| {
        held.1 == wanted.1 && (held.0 == wanted.0 || wanted.0.starts_with(&format!("{}/", held.0)))
    };
    let covered = |wanted: &(&str, &str)| parents.iter().any(|p| capabilities(p).any(|held| covers(held, wanted)));
    needs.iter().all(covered).then_some(members)
}

/// Rule 5: target and what it rests on, of a sound revocation that counts.
fn counts(
    rules: Rules,
    owner: &Did,
    space: &SpaceId,
    token: &Token,
    target: Address,
    at: u64,
    present: &Present<'_>,
) -> Option<(Identity, BTreeSet<Identity>)> {
    let revoked = present.get(&target)?;
    let above = chain(owner, space, revoked, true, present)?;
    let (principal, own) = match token.proofs() {
        [] => (token.issuer().clone(), BTreeSet::new()),
        [address] => {
            let proof = present.get(address)?;
            if proof.audience_did() != Some(token.issuer()) {
                return None;
            }
            let mut own = chain(owner, space, proof, true, present)?;
            own.insert(*address);
            let (here, that) = (format!("{space}/delegation"), format!("urn:cid:{target}"));
            let may =
                |held: (&str, &str)| held.1 == "tinycloud.delegation/revoke" && (held.0 == here || held.0 == that);
            let by_right = capabilities(proof).any(may);
            (if by_right { proof.issuer().clone() } else { token.issuer().clone() }, own)
        }
        _ => return None,
    };
    if !own.iter().all(|member| in_force(present[member], at)) {
        return None;
    }
    let is_delegator = principal == *revoked.issuer();
    if rules.right && !is_delegator && principal != *owner {
        return None;
    }
    let mut rests_on = identities(&own, present);
    if is_delegator {
        rests_on.extend(identities(&above, present));
    }
    Some((revoked.identity(), rests_on))
}

/// The operations of an invocation, if it is sound.
fn operations_of(
    space: &SpaceId,
    id: EpochId,
    node: &Node,
    event: usize,
    token: &Token,
    present: &Present<'_>,
) -> Vec<Operation> {
    let values = &node.epoch.events[event].values;
    let at = node.epoch.header.seq >> 16;
    let Some(members) = chain(space.owner(), space, token, false, present) else { return Vec::new() };
    let prefix = format!("{space}/kv/");
    let mut wanted: Vec<_> = capabilities(token)
        .filter(|(resource, ability)| {
            resource.starts_with(&prefix) && ["tinycloud.kv/put", "tinycloud.kv/del"].contains(ability)
        })
        .collect();
    wanted.sort_unstable();
    let puts = wanted.iter().filter(|(_, ability)| ability.ends_with("put")).count();
    if puts != values.len() || !members.iter().all(|member| in_force(present[member], at)) {
        return Vec::new();
    }
    let mut chain = identities(&members, present);
    chain.extend(node.host.iter().copied());
    let mut values = values.iter();
    let early = token.expiry().is_some_and(|end| i64::try_from(at).expect("48 bits") < end.0 - 360_000);
    let made = |(number, (resource, ability)): (usize, &(&str, &str))| Operation {
        epoch: id,
        event,
        number: u16::try_from(number).expect("few operations"),
        key: resource[prefix.len()..].to_owned(),
        token: token.identity(),
        chain: chain.clone(),
        early,
        blob: ability.ends_with("put").then(|| values.next().expect("counted").blob),
    };
    wanted.iter().enumerate().map(made).collect()
}

/// What a revocation lets stand: epochs, and of the only one that carries it the events before.
#[derive(Clone, Default)]
struct Cut {
    epochs: BTreeSet<EpochId>,
    own: Option<(EpochId, usize)>,
}

impl Cut {
    fn holds(&self, epoch: EpochId, event: usize) -> bool {
        self.epochs.contains(&epoch) || self.own.is_some_and(|(own, index)| own == epoch && event < index)
    }
}

struct Judge<'a> {
    rules: Rules,
    held: &'a BTreeMap<EpochId, Node>,
    revocations: &'a BTreeMap<Identity, Revocation>,
}

impl Judge<'_> {
    fn is_void(&self, op: &Operation, memo: &mut BTreeMap<Identity, Cut>) -> bool {
        let of = |revocation: &Revocation| op.chain.contains(&revocation.target);
        self.revocations.iter().any(|(id, revocation)| of(revocation) && !self.cut(*id, memo).holds(op.epoch, op.event))
    }

    /// Rule 6.
    fn cut(&self, id: Identity, memo: &mut BTreeMap<Identity, Cut>) -> Cut {
        if let Some(known) = memo.get(&id) {
            return known.clone();
        }
        if !self.rules.cut {
            return Cut::default();
        }
        let revocation = &self.revocations[&id];
        let cut = if let Some(after) = &revocation.after {
            Cut { epochs: self.widen(id, after, &revocation.rests_on, &revocation.carriers, memo), own: None }
        } else {
            let mut common: Option<BTreeSet<EpochId>> = None;
            for carrier in &revocation.carriers {
                let node = &self.held[&carrier.0];
                let rests_on = revocation.rests_on.union(&node.host).copied().collect();
                let past = self.widen(id, &node.past, &rests_on, &[*carrier], memo);
                common = Some(common.map_or(past.clone(), |common| common.intersection(&past).copied().collect()));
            }
            let own = if let [only] = revocation.carriers[..] { Some(only) } else { None };
            Cut { epochs: common.unwrap_or_default(), own }
        };
        memo.insert(id, cut.clone());
        cut
    }

    /// Rule 7.
    fn widen(
        &self,
        id: Identity,
        seen: &BTreeSet<EpochId>,
        rests_on: &BTreeSet<Identity>,
        carriers: &[(EpochId, usize)],
        memo: &mut BTreeMap<Identity, Cut>,
    ) -> BTreeSet<EpochId> {
        let mut seen = seen.clone();
        if !self.rules.widened {
            return seen;
        }
        let own = &self.revocations[&id].rests_on;
        for (other, judge) in self.revocations {
            let less = |all: &BTreeSet<Identity>| judge.rests_on.is_subset(all) && judge.rests_on != *all;
            let nearer = less(own) || (judge.after.is_some() && judge.rests_on.is_subset(own) && less(rests_on));
            if *other == id || !nearer || !rests_on.contains(&judge.target) {
                continue;
            }
            let cut = self.cut(*other, memo);
            if !carriers.iter().any(|(epoch, event)| cut.holds(*epoch, *event)) {
                seen.extend(cut.epochs);
            }
        }
        seen
    }
}
