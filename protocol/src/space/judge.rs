//! Whether an epoch is valid and its events sound: judged from the epoch and its Past alone, so every replica finds the
//! same, whenever it looks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    effect::{DeadReason, Invalid},
    tokens::{Found, Present, Tokens},
    view::{EpochAt, View, ViewError},
};
use crate::{
    authority::{
        Chain, Proof, Proofs, Purpose, RevocationStanding, chain, is_host_delegation, judge_revocation, within,
    },
    capability::{Resource, Role, Token, Verified},
    dag::{Dag, Past, Place},
    epoch::{Epoch, Event, Header, Malformed, SignedEpoch},
    id::{Address, EpochId, Millis, SpaceId},
    kv::{Integrity, Value, Version},
    limits::{EXPIRY_GRACE_MS, KEY_BYTES_MAX},
};

const KV: &str = "kv";
const PUT: &str = "tinycloud.kv/put";
const DEL: &str = "tinycloud.kv/del";

/// An epoch whose form and signatures are checked: all that needs no other epoch.
#[derive(Debug, Clone)]
pub struct CheckedEpoch {
    pub(super) epoch: Epoch,
    /// Of each event the token, `None` when it does not decode or its signature does not hold.
    pub(super) tokens: Vec<Option<Proof>>,
    /// The tokens that decode and whose signature does not hold, by event.
    pub(super) unsigned: BTreeMap<u16, Token>,
}

impl CheckedEpoch {
    /// Checks an epoch that came from anywhere. Needs nothing but its bytes, so it may run on any thread.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with it.
    pub fn check(signed: SignedEpoch) -> Result<Self, Malformed> {
        Ok(Self::verify_tokens(Epoch::decode(signed)?))
    }

    /// Takes an epoch from this node's own log: its own signature was checked before it went in. Its tokens' signatures are
    /// checked again, whoever made it: an epoch may hold bad ones, which are dead, and a host's own key may be in other hands.
    ///
    /// # Errors
    /// As [`CheckedEpoch::check`].
    pub fn trusted(signed: SignedEpoch) -> Result<Self, Malformed> {
        Epoch::decode_unsigned(signed).map(Self::verify_tokens)
    }

    /// Reads an epoch of this node's own log for what it says, without a look at any signature: not to be judged again.
    ///
    /// # Errors
    /// As [`CheckedEpoch::check`].
    pub fn read(signed: SignedEpoch) -> Result<Self, Malformed> {
        Epoch::decode_unsigned(signed).map(Self::assume_tokens)
    }

    fn assume_tokens(epoch: Epoch) -> Self {
        let read = |event: &Event| Token::from_stored(event.token.clone().into()).ok();
        let tokens = epoch.events.iter().map(|event| read(event).map(|token| Arc::new(Verified::assume(token))));
        Self { tokens: tokens.collect(), unsigned: BTreeMap::new(), epoch }
    }

    fn verify_tokens(epoch: Epoch) -> Self {
        let read = |event: &Event| Token::from_stored(event.token.clone().into()).ok();
        let mut unsigned = BTreeMap::new();
        let verify = |(index, event)| {
            let verified = read(event)?.verify().ok().map(Arc::new);
            if verified.is_none() {
                unsigned.extend(read(event).map(|token| (index, token)));
            }
            verified
        };
        let tokens = (0u16..).zip(&epoch.events).map(verify).collect();
        Self { tokens, unsigned, epoch }
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The token of an event, `None` when it does not decode or its signature does not hold.
    #[must_use]
    pub fn token(&self, event: u16) -> Option<&Proof> {
        self.tokens.get(usize::from(event))?.as_ref()
    }

    /// What its events write if they are sound: version, key, and the value of a put.
    pub fn writes(&self) -> impl Iterator<Item = (Version, &str, Option<&Value>)> {
        let Header { seq, space, .. } = &self.epoch.header;
        let events = (0u16..).zip(self.tokens.iter().zip(&self.epoch.events));
        let tokens = events.filter_map(|(index, (token, event))| Some((index, token.as_ref()?, event)));
        tokens.flat_map(move |(index, token, event)| {
            let version = move |number| Version::new(*seq, self.epoch.id, index, number);
            (0u16..).map(version).zip(effects(token, space, &event.values)).map(|(v, (key, value))| (v, key, value))
        })
    }
}

/// What an event is worth.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Unsound for ever.
    Dead(DeadReason),
    Delegation,
    Revocation(Proof, Box<RevocationStanding>),
    /// An invocation, with the closure of its proofs.
    Operations(Proof, Chain),
}

/// Where the epochs that a header names stand.
pub(super) struct Ancestry {
    pub(super) prev: Option<EpochAt>,
    pub(super) parents: Vec<EpochAt>,
}

impl Ancestry {
    /// Looks them up; the error names those that are not held.
    pub(super) fn find(epoch: &Epoch, view: &dyn View) -> Result<Result<Self, BTreeSet<EpochId>>, ViewError> {
        let mut lacks = BTreeSet::new();
        let mut find = |id: &EpochId| -> Result<Option<EpochAt>, ViewError> {
            let at = view.epoch(id)?;
            if at.is_none() {
                lacks.insert(*id);
            }
            Ok(at)
        };
        let prev = epoch.header.prev.as_ref().map(&mut find).transpose()?.flatten();
        let mut parents = Vec::with_capacity(epoch.header.parents.len());
        for parent in &epoch.header.parents {
            parents.extend(find(parent)?);
        }
        Ok(if lacks.is_empty() { Ok(Self { prev, parents }) } else { Err(lacks) })
    }

    pub(super) fn places(&self) -> (Option<Place>, Vec<Place>) {
        (self.prev.map(|at| at.place), self.parents.iter().map(|at| at.place).collect())
    }
}

/// What the judgement reads.
pub(super) struct Bench<'a> {
    pub(super) space: &'a SpaceId,
    pub(super) dag: &'a Dag,
    pub(super) tokens: &'a Tokens,
    pub(super) view: &'a dyn View,
}

/// The judgement of an epoch.
pub(super) struct Judged {
    pub(super) past: Past,
    pub(super) verdicts: Vec<Verdict>,
    /// What the epoch itself stands on: the host delegation and its proofs.
    pub(super) host: Chain,
}

impl Bench<'_> {
    /// Judges an epoch all of whose Past is held.
    pub(super) fn judge(
        &self,
        checked: &CheckedEpoch,
        ancestry: &Ancestry,
    ) -> Result<Result<Judged, Invalid>, ViewError> {
        let (prev, parents) = ancestry.places();
        let past = Dag::past(prev, &parents);
        if let Err(invalid) = self.check_links(checked, ancestry) {
            return Ok(Err(invalid));
        }
        let found = Found::default();
        let host = match self.host(checked, &past, &found) {
            Ok(host) => host,
            Err(invalid) => return Ok(Err(invalid)),
        };
        let mut body = BTreeMap::new();
        let mut verdicts = Vec::with_capacity(checked.tokens.len());
        for (event, token) in checked.epoch.events.iter().zip(&checked.tokens) {
            let present = Present { tokens: self.tokens, dag: self.dag, past: &past, found: &found, body: &body };
            let verdict = match token {
                None => Verdict::Dead(DeadReason::Signature),
                Some(token) => self.sound(&checked.epoch, event, token, &present)?.unwrap_or_else(Verdict::Dead),
            };
            if let Some(token) = token.as_ref().filter(|token| token.role() == Role::Delegation) {
                body.insert(token.address(), token.clone());
            }
            verdicts.push(verdict);
        }
        Ok(Ok(Judged { past, verdicts, host }))
    }

    /// Rules 1 (the sizes that need the tokens) and 4.
    fn check_links(&self, checked: &CheckedEpoch, ancestry: &Ancestry) -> Result<(), Invalid> {
        check_alone(checked, self.space)?;
        let header = &checked.epoch.header;
        if let Some(prev) = ancestry.prev {
            let same_chain = self.dag.chain(prev.place) == Some((header.host, header.incarnation));
            if !same_chain || prev.place.n.checked_add(1) != Some(header.n) {
                return Err(Invalid::Prev);
            }
        }
        if ancestry.prev.iter().chain(&ancestry.parents).any(|at| at.seq >= header.seq) {
            return Err(Invalid::Seq);
        }
        Ok(())
    }

    /// Rule 3: the owner names the host, as of this epoch.
    fn host(&self, checked: &CheckedEpoch, past: &Past, found: &Found) -> Result<Chain, Invalid> {
        let header = &checked.epoch.header;
        let host = header.host.did();
        // Without a proof it is the owner.
        let Some(address) = header.proof else { return Ok(Chain::default()) };
        let delegations = checked.tokens.iter().flatten().filter(|token| token.role() == Role::Delegation);
        let body: BTreeMap<Address, Proof> = delegations.map(|token| (token.address(), token.clone())).collect();
        let present = Present { tokens: self.tokens, dag: self.dag, past, found, body: &body };
        let proof = present.find(&address).ok_or(Invalid::Host)?;
        let own = Chain::beneath(proof, &present).map_err(|_| Invalid::Host)?;
        if !is_host_delegation(proof, self.space, &host) || !own.in_force(checked.epoch.time(), EXPIRY_GRACE_MS) {
            return Err(Invalid::Host);
        }
        Ok(own)
    }

    /// Rules 5, 6 and 7; the inner error says why it is dead.
    fn sound(
        &self,
        epoch: &Epoch,
        event: &Event,
        token: &Proof,
        present: &Present<'_>,
    ) -> Result<Result<Verdict, DeadReason>, ViewError> {
        let time = epoch.time();
        if !within(token, time, EXPIRY_GRACE_MS) {
            return Ok(Err(DeadReason::Time));
        }
        if !self.after_is_past(token, present.past)? {
            return Ok(Err(DeadReason::After));
        }
        Ok(self.authorized(event, token, present, time))
    }

    /// The rest of rule 5, and of 6 and 7 what needs the chain.
    fn authorized(
        &self,
        event: &Event,
        token: &Proof,
        present: &Present<'_>,
        time: Millis,
    ) -> Result<Verdict, DeadReason> {
        let in_force = |chain: &Chain| {
            if chain.in_force(time, EXPIRY_GRACE_MS) { Ok(()) } else { Err(DeadReason::Time) }
        };
        match token.role() {
            Role::Delegation if event.values.is_empty() => {
                let held = chain(token, Purpose::Delegate, present).map_err(|_| DeadReason::Authority)?;
                in_force(&held).map(|()| Verdict::Delegation)
            }
            Role::Revocation { .. } if event.values.is_empty() => {
                let standing = judge_revocation(token, self.space, present).map_err(|_| DeadReason::Authority)?;
                in_force(&standing.proofs)?;
                Ok(Verdict::Revocation(token.clone(), Box::new(standing)))
            }
            Role::Invocation => {
                let held = chain(token, Purpose::Invoke, present).map_err(|_| DeadReason::Authority)?;
                in_force(&held)?;
                if !content_holds(token, &event.values, self.space) {
                    return Err(DeadReason::Content);
                }
                Ok(Verdict::Operations(token.clone(), held))
            }
            Role::Delegation | Role::Revocation { .. } => Err(DeadReason::Content),
        }
    }

    fn after_is_past(&self, token: &Token, past: &Past) -> Result<bool, ViewError> {
        for id in token.after(self.space).unwrap_or_default() {
            if !self.view.epoch(id)?.is_some_and(|at| self.dag.is_past(past, at.place)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What needs no other epoch of the rules 1 and 3.
pub(super) fn check_alone(checked: &CheckedEpoch, space: &SpaceId) -> Result<(), Invalid> {
    let header = &checked.epoch.header;
    if header.space != *space {
        return Err(Invalid::Space);
    }
    if checked
        .tokens
        .iter()
        .flatten()
        .flat_map(|token| operations(token, space))
        .any(|(key, _)| key.len() > KEY_BYTES_MAX)
    {
        return Err(Invalid::Key);
    }
    if header.proof.is_none() && header.host.did() != *space.owner() {
        return Err(Invalid::Host);
    }
    Ok(())
}

/// The operations a token does in `space`, in byte order of resource and ability: the key, and whether it is a put.
pub(super) fn operations<'a>(token: &'a Token, space: &'a SpaceId) -> impl Iterator<Item = (&'a str, bool)> {
    let invoked = (token.role() == Role::Invocation).then(|| token.capabilities());
    invoked.into_iter().flatten().filter_map(move |held| {
        let key = key_of(&held.resource, space)?;
        match held.ability.canonical() {
            PUT => Some((key, true)),
            DEL => Some((key, false)),
            _ => None,
        }
    })
}

/// The operations of a token with the values that its puts set, as far as there are values.
pub(super) fn effects<'a>(
    token: &'a Token,
    space: &'a SpaceId,
    values: &'a [Value],
) -> impl Iterator<Item = (&'a str, Option<&'a Value>)> {
    let mut values = values.iter();
    operations(token, space).map_while(move |(key, is_put)| match is_put {
        true => values.next().map(|value| (key, Some(value))),
        false => Some((key, None)),
    })
}

/// The key that a resource names in `space`. One with a query or fragment names none: `what?` is not the key `what`.
fn key_of<'a>(resource: &'a Resource, space: &SpaceId) -> Option<&'a str> {
    let here = resource.space() == Some(space) && resource.service() == Some(KV);
    resource.path().filter(|_| here && !resource.text().contains(['?', '#']))
}

/// Whether there is one value for each put and, where the writer signed them, they are the signed ones.
pub(super) fn content_holds(token: &Token, values: &[Value], space: &SpaceId) -> bool {
    let puts = token.capabilities().iter();
    let puts = puts.filter(|held| key_of(&held.resource, space).is_some() && held.ability.canonical() == PUT);
    let puts: Vec<_> = puts.collect();
    let signed = |(held, value): (&&crate::capability::Capability, &Value)| {
        token.content().is_none_or(|content| {
            content.get(held.resource.text()).is_some_and(|signed| {
                signed.cid == value.blob && signed.size == value.size && signed.meta == value.meta
            })
        })
    };
    puts.len() == values.len() && puts.iter().zip(values).all(signed)
}

/// Who vouches for the values of a token.
pub(super) fn integrity(token: &Token) -> Integrity {
    if token.content().is_some() { Integrity::ClientSigned } else { Integrity::HostAttested }
}
