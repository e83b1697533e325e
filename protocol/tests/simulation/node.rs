//! One node: a core for each space it hosts, a replicator, and what ties them together, as the shell around them does.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use kvspace_protocol::{
    authority::{Proof, is_host_delegation},
    capability::Token,
    dag::{Dag, Place},
    epoch::SignedEpoch,
    id::{Address, EpochId, HostKey, Identity, Key, SpaceId},
    kv::Operation,
    space::{Arrived, CallId, CheckedEpoch, EpochAt, MemoryView, Reply, View, ViewError},
    sync::{
        Ask, Call, Committed, Compared, Cursor, Have, New, Output, Pull, Pulled, Pushed, Refused, Replicator, Request,
        Response, Sent, Settings, Source, Verdict,
        compare::{Comparison, Items, Step, item},
        serve_get, serve_pull,
    },
};

use crate::{
    Knobs,
    world::{self, Host, Owner},
};

/// Shared spaces are compared this often.
pub(crate) const INTERVAL_MS: i64 = 60_000;
/// Bytes of one answer: small, so that there are pages.
const PULL_BYTES: usize = 6_000;

/// Epochs whose form was checked, by id and signature.
pub(crate) type Checked = Rc<RefCell<BTreeMap<(EpochId, [u8; 64]), Option<CheckedEpoch>>>>;

fn check(checked: &Checked, signed: &SignedEpoch) -> Option<CheckedEpoch> {
    let name = (EpochId::of(&signed.header), signed.signature);
    let check = || CheckedEpoch::check(signed.clone()).ok();
    checked.borrow_mut().entry(name).or_insert_with(check).clone()
}

/// What a node asks others.
pub(crate) struct Outgoing {
    pub(crate) to: HostKey,
    pub(crate) request: Bytes,
    pub(crate) about: About,
}

/// What a request is for.
pub(crate) enum About {
    Compare(Call, HostKey, Comparison),
    Pull(Call, Pull),
    Push(Call),
}

/// A delivery whose answer is awaited.
enum Delivered {
    Pull { call: Call, heads: Vec<EpochId>, next: Option<Cursor>, tell_branches: bool, refused: usize },
    Push { from: HostKey },
}

pub(crate) struct Hosted {
    pub(crate) host: Host,
    pub(crate) delegation: Proof,
    places: BTreeMap<Place, (Cursor, usize)>,
    delivered: BTreeMap<CallId, Delivered>,
    writes: Vec<CallId>,
    /// Epochs with what was acknowledged.
    pub(crate) acknowledged: BTreeSet<EpochId>,
}

pub(crate) struct Node {
    pub(crate) key: HostKey,
    /// How far its clock is ahead.
    pub(crate) skew_ms: i64,
    /// How far its replicator's clock is ahead of that.
    pub(crate) stepped_ms: i64,
    pub(crate) is_up: bool,
    pub(crate) spaces: BTreeMap<SpaceId, Hosted>,
    pub(crate) replicator: Replicator,
    pub(crate) outgoing: Vec<Outgoing>,
    /// Peers to be connected anew.
    pub(crate) renew: Vec<HostKey>,
    checked: Checked,
    knobs: Knobs,
    seed: u64,
}

impl Node {
    pub(crate) fn new(seed: u64, skew_ms: i64, checked: Checked, knobs: Knobs) -> Self {
        let key = HostKey(world::key(u8::try_from(seed % 100).expect("small") + 50).verifying_key().to_bytes());
        let replicator = Replicator::new(settings(), seed);
        let (spaces, outgoing, renew) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { key, skew_ms, stepped_ms: 0, is_up: true, spaces, replicator, outgoing, renew, checked, knobs, seed }
    }

    pub(crate) fn host_space(&mut self, owner: &Owner, first: &HostKey) {
        let mut host = Host::new(owner, u8::try_from(self.seed % 100).expect("small") + 50);
        assert_eq!(host.host_key(), self.key);
        let delegation = owner.host_delegation(&self.key.did());
        host.take_token(delegation.clone()).expect("the space is created");
        if *first != self.key {
            host.take_token(owner.host_delegation(&first.did())).expect("a second host");
        }
        host.slow = true;
        let hosted = Hosted {
            host,
            delegation,
            places: BTreeMap::new(),
            delivered: BTreeMap::new(),
            writes: Vec::new(),
            acknowledged: BTreeSet::new(),
        };
        self.spaces.insert(owner.space.clone(), hosted);
    }

    /// The process ends and begins again: what is not durable is lost. With a backup also the newest part of the log is.
    pub(crate) fn restart(&mut self, kept_percent: usize) {
        self.seed += 1_000;
        self.replicator = Replicator::new(settings(), self.seed);
        self.outgoing.clear();
        self.renew.clear();
        for hosted in self.spaces.values_mut() {
            let keep = (hosted.host.log.len() * kept_percent).div_ceil(100);
            hosted.host.log.truncate(keep);
            hosted.host.reopen();
            hosted.host.commits.clear();
            hosted.places.clear();
            hosted.delivered.clear();
            hosted.writes.clear();
            if kept_percent < 100 {
                let log: BTreeSet<EpochId> = hosted.host.log.iter().map(world::id).collect();
                hosted.acknowledged.retain(|id| log.contains(id));
            }
        }
    }

    pub(crate) fn set_clock(&mut self, real_ms: i64) {
        for hosted in self.spaces.values_mut() {
            hosted.host.now_ms = real_ms + self.skew_ms;
        }
    }

    fn now(&self, real_ms: i64) -> kvspace_protocol::id::Millis {
        kvspace_protocol::id::Millis(real_ms + self.skew_ms)
    }

    /// What the replicator takes for the time.
    fn watch(&self, now: kvspace_protocol::id::Millis) -> kvspace_protocol::id::Millis {
        now.plus(self.stepped_ms)
    }

    /// Whether a request or an answer of this node may tell this peer something of a space.
    pub(crate) fn may_tell(&self, real_ms: i64, space: &SpaceId, peer: &HostKey) -> bool {
        let now = self.now(real_ms);
        self.spaces.get(space).is_some_and(|hosted| hosted.host.core.access().hosts(now).contains(peer))
    }

    /// A client's call was sent to this space's core.
    pub(crate) fn note_call(&mut self, space: &SpaceId, call: CallId) {
        if let Some(hosted) = self.spaces.get_mut(space) {
            hosted.writes.push(call);
        }
    }

    pub(crate) fn connected(&mut self, real_ms: i64, peer: HostKey) {
        let watch = self.watch(self.now(real_ms));
        self.replicator.handle_connected(watch, peer);
    }

    pub(crate) fn disconnected(&mut self, real_ms: i64, peer: &HostKey) {
        let watch = self.watch(self.now(real_ms));
        self.replicator.handle_disconnected(watch, peer);
    }

    /// What comes after every input: answers of the cores, commits to be pushed, and what the replicator wants.
    pub(crate) fn go_on(&mut self, real_ms: i64) {
        let now = self.now(real_ms);
        let spaces: Vec<SpaceId> = self.spaces.keys().cloned().collect();
        for space in spaces {
            self.settle(now, &space);
        }
        self.replicator.handle_timeout(self.watch(now));
        while let Some(output) = self.replicator.poll_output() {
            self.perform(now, output);
        }
    }

    /// When it wants to be woken, by the real clock.
    pub(crate) fn next_time(&self) -> Option<i64> {
        let cores = self.spaces.values().filter_map(|hosted| hosted.host.core.poll_timeout());
        let replicator = self.replicator.poll_timeout().map(|time| time.plus(-self.stepped_ms));
        replicator.into_iter().chain(cores).min().map(|time| time.0 - self.skew_ms)
    }

    pub(crate) fn wake(&mut self) {
        for hosted in self.spaces.values_mut() {
            if hosted.host.core.poll_timeout().is_some_and(|time| time <= hosted.host.now()) {
                hosted.host.wait(0);
            }
        }
    }

    fn settle(&mut self, now: kvspace_protocol::id::Millis, space: &SpaceId) {
        let watch = self.watch(now);
        let Some(hosted) = self.spaces.get_mut(space) else { return };
        hosted.index();
        let mut open = std::mem::take(&mut hosted.writes);
        open.retain(|call| match hosted.host.reply(*call) {
            None => true,
            Some(reply) => {
                match reply {
                    Ok(Reply::Written(written)) => drop(hosted.acknowledged.insert(written.version.epoch)),
                    Ok(Reply::Taken(epoch)) => drop(hosted.acknowledged.insert(epoch)),
                    Ok(Reply::Held) | Err(_) => {}
                }
                false
            }
        });
        hosted.writes = open;
        let commits = std::mem::take(&mut hosted.host.commits);
        let hosts = if commits.is_empty() { BTreeSet::new() } else { hosted.host.core.access().hosts(now) };
        let hosts: Vec<HostKey> = hosts.into_iter().filter(|key| *key != self.key).collect();
        for logged in commits {
            let new = |logged: kvspace_protocol::space::Logged| New {
                sent: Arc::new(Sent {
                    epoch: logged.signed,
                    values: logged.values.into_iter().map(|(_, bytes)| bytes).collect(),
                }),
                told: logged.told,
            };
            let epochs = logged.into_iter().map(new).collect();
            self.replicator.handle_committed(watch, Committed { space: space.clone(), epochs, hosts: hosts.clone() });
        }
        let answered: Vec<_> = hosted.host.taken.keys().copied().collect();
        for call in answered {
            let taken = hosted.host.taken.remove(&call).expect("just listed");
            let missing = if self.knobs.repairs { taken.missing } else { vec![] };
            match hosted.delivered.remove(&call) {
                Some(Delivered::Pull { call, heads, next, tell_branches, refused }) => {
                    let is_held = |id: &EpochId| hosted.host.view.epoch(id).expect("the view reads").is_some();
                    let unknown = heads.iter().filter(|head| self.knobs.repairs && !is_held(head)).copied().collect();
                    let outcome = Pulled::Answered {
                        heads,
                        unknown,
                        taken: taken.taken,
                        held: taken.held,
                        refused: refused + taken.refused.len(),
                        missing,
                        next,
                        tell_branches,
                    };
                    self.replicator.handle_pulled(watch, call, outcome);
                }
                Some(Delivered::Push { from }) if !missing.is_empty() => {
                    self.replicator.handle_behind(watch, from, space.clone());
                }
                Some(Delivered::Push { .. }) | None => {}
            }
        }
    }

    fn perform(&mut self, now: kvspace_protocol::id::Millis, output: Output) {
        let watch = self.watch(now);
        match output {
            Output::Compare(call, _) if !self.knobs.compares => {
                self.replicator.handle_compared(watch, call, Compared::Differ(vec![]));
            }
            Output::Compare(call, peer) => {
                let (comparison, message) = Comparison::begin(&self.items(now, &peer));
                self.send(peer, &Request::Compare(message), About::Compare(call, peer, comparison));
            }
            Output::Pull(call, pull) => {
                let hosted = &self.spaces[&pull.space];
                let dag = hosted.dag();
                let shown = vec![hosted.delegation.bytes().to_vec().into()];
                let space = pull.space.clone();
                let request = match pull.ask.clone() {
                    Ask::ByHeads(after) => Request::Pull { space, have: Have::heads(&dag), after, shown },
                    Ask::ByBranches(tips, after) => {
                        // Few, so that more have to be told.
                        let have = Have::branches(&dag, tips / 16);
                        Request::Pull { space, have, after, shown }
                    }
                    Ask::Epochs(epochs) => Request::Get { space, epochs, shown },
                };
                self.send(pull.peer, &request, About::Pull(call, pull));
            }
            Output::Push(call, peer, batch) => self.send(peer, &Request::Push(batch), About::Push(call)),
            Output::Renew(peer) => self.renew.push(peer),
        }
    }

    fn send(&mut self, to: HostKey, request: &Request, about: About) {
        self.outgoing.push(Outgoing { to, request: request.encode(), about });
    }

    fn is_host(&self, now: kvspace_protocol::id::Millis, space: &SpaceId, peer: &HostKey) -> bool {
        let hosted = self.spaces.get(space);
        hosted.is_some_and(|hosted| hosted.host.core.access().host_proof(&peer.did(), now, &|_| true).is_some())
    }

    fn items(&self, now: kvspace_protocol::id::Millis, peer: &HostKey) -> Items {
        Items::of(self.named_items(now, peer))
    }

    fn named_items(&self, now: kvspace_protocol::id::Millis, peer: &HostKey) -> BTreeMap<[u8; 32], SpaceId> {
        let shared = self.spaces.iter().filter(|(space, _)| self.is_host(now, space, peer));
        let named = shared.map(|(space, hosted)| {
            let frontier: Vec<EpochId> = hosted.dag().frontier().collect();
            (item(space, &frontier), space.clone())
        });
        named.collect()
    }

    /// The answer to a request came, or none did.
    pub(crate) fn answered(&mut self, real_ms: i64, about: About, answer: Option<&[u8]>) {
        let watch = self.watch(self.now(real_ms));
        let answer = answer.and_then(|bytes| Response::decode(bytes).ok());
        match (about, answer) {
            (About::Compare(call, peer, mut comparison), Some(Response::Compare(bytes))) => {
                match comparison.step(&bytes) {
                    Ok(Step::Send(message)) => {
                        self.send(peer, &Request::Compare(message), About::Compare(call, peer, comparison));
                    }
                    Ok(Step::Done(items)) => {
                        let named = comparison.items();
                        let differ = items.iter().filter_map(|item| named.space_of(item).cloned()).collect();
                        self.replicator.handle_compared(watch, call, Compared::Differ(differ));
                    }
                    Err(_) => self.replicator.handle_compared(watch, call, Compared::Failed),
                }
            }
            (About::Compare(call, ..), _) => self.replicator.handle_compared(watch, call, Compared::Failed),
            (About::Pull(call, pull), Some(Response::Epochs { heads, epochs, next, tell_branches })) => {
                let came = epochs.len();
                let arrived = self.arrived(epochs, &[pull.peer]);
                let refused = came - arrived.len();
                let Some(hosted) = self.spaces.get_mut(&pull.space) else { return };
                let waits = Delivered::Pull { call, heads, next, tell_branches, refused };
                let delivery = hosted.host.deliver(arrived);
                hosted.delivered.insert(delivery, waits);
            }
            (About::Pull(call, _), Some(Response::Refused(Refused::NotFound))) => {
                self.replicator.handle_pulled(watch, call, Pulled::NotFound);
            }
            (About::Pull(call, _), _) => self.replicator.handle_pulled(watch, call, Pulled::Later),
            (About::Push(call), Some(Response::Push(verdicts))) => {
                self.replicator.handle_pushed(watch, call, Some(verdicts));
            }
            (About::Push(call), _) => self.replicator.handle_pushed(watch, call, None),
        }
        self.go_on(real_ms);
    }

    fn arrived(&self, epochs: Vec<Sent>, told: &[HostKey]) -> Vec<Arrived> {
        let told: BTreeSet<HostKey> = told.iter().copied().collect();
        let arrived = |sent: Sent| {
            let checked = check(&self.checked, &sent.epoch)?;
            Some(Arrived { checked, values: sent.values, told: told.clone() })
        };
        epochs.into_iter().filter_map(arrived).collect()
    }

    /// Answers a peer.
    pub(crate) fn answer(&mut self, real_ms: i64, from: HostKey, request: &[u8]) -> Bytes {
        let now = self.now(real_ms);
        let response = match Request::decode(request) {
            Err(_) => Response::Refused(Refused::Malformed),
            Ok(Request::Compare(message)) => match self.items(now, &from).answer(&message) {
                Ok(answer) => Response::Compare(answer),
                Err(_) => Response::Refused(Refused::Malformed),
            },
            Ok(Request::Pull { space, have, after, shown }) => match self.admit(now, &space, &from, &shown) {
                Some(hosted) => serve_pull(&hosted.source(), &have, after, PULL_BYTES).expect("the view reads"),
                None => Response::Refused(Refused::NotFound),
            },
            Ok(Request::Get { space, epochs, shown }) => match self.admit(now, &space, &from, &shown) {
                Some(hosted) => serve_get(&hosted.source(), &epochs, PULL_BYTES).expect("the view reads"),
                None => Response::Refused(Refused::NotFound),
            },
            Ok(Request::Proofs { .. }) => Response::Refused(Refused::NotFound),
            Ok(Request::Push(pushed)) => {
                Response::Push(pushed.into_iter().map(|pushed| self.take(now, from, pushed)).collect())
            }
        };
        self.go_on(real_ms);
        response.encode()
    }

    fn take(&mut self, now: kvspace_protocol::id::Millis, from: HostKey, pushed: Pushed) -> Verdict {
        let Pushed { space, epochs, told } = pushed;
        if !self.is_host(now, &space, &from) {
            return Verdict::Refused(Refused::NotFound);
        }
        let told: Vec<HostKey> = told.into_iter().chain([from]).collect();
        let arrived = self.arrived(epochs, &told);
        let Some(hosted) = self.spaces.get_mut(&space) else { return Verdict::Refused(Refused::NotFound) };
        let delivery = hosted.host.deliver(arrived);
        hosted.delivered.insert(delivery, Delivered::Push { from });
        self.replicator.handle_heard(&from);
        Verdict::Taken
    }

    /// Whoever is a host of the space, or shows that it is one.
    fn admit(
        &mut self,
        now: kvspace_protocol::id::Millis,
        space: &SpaceId,
        from: &HostKey,
        shown: &[Bytes],
    ) -> Option<&Hosted> {
        if !self.is_host(now, space, from) {
            let hosted = self.spaces.get_mut(space)?;
            for bytes in shown {
                let token = Token::from_stored(bytes.clone()).ok()?.verify().ok()?;
                if is_host_delegation(&token, space, &from.did()) {
                    hosted.host.send_token(Arc::new(token), vec![]);
                    hosted.index();
                }
            }
        }
        self.spaces.get(space).filter(|_| self.is_host(now, space, from))
    }
}

fn settings() -> Settings {
    Settings {
        compare_interval_ms: INTERVAL_MS,
        pulls_per_peer_max: 2,
        pulls_max: 4,
        push_bytes_max: 100_000,
        push_batch_bytes: 8_000,
    }
}

impl Hosted {
    /// Whether a call waits for its answer, or an epoch for its time.
    pub(crate) fn is_busy(&self) -> bool {
        self.host.out.is_some() || !self.writes.is_empty() || self.host.core.poll_timeout().is_some()
    }

    /// What is durable.
    pub(crate) fn dag(&self) -> Dag {
        Dag::of(self.host.view.branches().to_vec())
    }

    fn index(&mut self) {
        for at in self.places.len()..self.host.log.len() {
            let id = world::id(&self.host.log[at]);
            let place = self.host.view.epoch(&id).expect("the view reads").expect("it is in the log").place;
            self.places.insert(place, (Cursor(at as u64), at));
        }
    }

    fn source(&self) -> Durable<'_> {
        Durable { hosted: self, dag: self.dag() }
    }
}

struct Durable<'a> {
    hosted: &'a Hosted,
    dag: Dag,
}

impl Durable<'_> {
    fn view(&self) -> &MemoryView {
        &self.hosted.host.view
    }
}

impl View for Durable<'_> {
    fn epoch(&self, id: &EpochId) -> Result<Option<EpochAt>, ViewError> {
        self.view().epoch(id)
    }

    fn winner(&self, key: &str) -> Result<Option<Operation>, ViewError> {
        self.view().winner(key)
    }

    fn history(&self, key: &str) -> Result<Vec<Operation>, ViewError> {
        self.view().history(key)
    }

    fn occurrences(&self, key: &str, identity: &Identity) -> Result<Vec<Operation>, ViewError> {
        self.view().occurrences(key, identity)
    }

    fn keys_under(&self, affected: &dyn Fn(&Address) -> bool) -> Result<BTreeSet<Key>, ViewError> {
        self.view().keys_under(affected)
    }
}

impl Source for Durable<'_> {
    fn dag(&self) -> &Dag {
        &self.dag
    }

    fn position(&self, place: Place) -> Result<Option<Cursor>, ViewError> {
        Ok(self.hosted.places.get(&place).map(|(cursor, _)| *cursor))
    }

    fn read(&self, place: Place, _: usize) -> Result<Sent, ViewError> {
        let (_, at) = self.hosted.places[&place];
        Ok(Sent { epoch: self.hosted.host.log[at].clone(), values: vec![] })
    }
}
