//! A run: nodes, their clients, the network between them and its faults, all from one seed.

mod checks;
mod writes;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use bytes::Bytes;
use kvspace_protocol::{
    authority::Proof,
    epoch::SignedEpoch,
    id::{EpochId, HostKey, SpaceId},
};

use crate::{
    Knobs,
    dice::Dice,
    liar::Liar,
    node::{About, INTERVAL_MS, Node, Outgoing},
    oracle::Truth,
    world::{self, Owner, START_MS, Session},
};

const NODES: usize = 5;
const SPACES: usize = 2;
/// How long faults and writes go on.
const FAULTS_MS: i64 = 100_000;
/// When faults and writes end.
pub(crate) const START_OF_PEACE_MS: i64 = START_MS + FAULTS_MS;
/// How long a request waits for its answer.
const ANSWER_MS: i64 = 5_000;
/// The same, where it may be the liar who answers.
const LIAR_ANSWER_MS: i64 = 30_000;
/// How far the clock steps that a replicator is told.
const STEP_MS: i64 = 3_600_000;
/// How far ahead the clock of a host may be; half a minute more than an epoch may be at once.
const AHEAD_MS: i64 = 90_000;
const SKEW_MS: i64 = 30_000;
/// Within this all hosts are equal after the last fault: three comparisons at their longest, and what an epoch made by the
/// host that is furthest ahead waits at the host that is furthest behind.
pub(crate) const BOUND_MS: i64 = 3 * (INTERVAL_MS * 5 / 4) + (AHEAD_MS + SKEW_MS - 60_000);

/// What happens at some time.
enum Event {
    Deliver { from: usize, to: usize, packet: Packet },
    NoAnswer { node: usize, id: u64 },
    Wake { node: usize },
    Durable { node: usize, generation: u64, space: SpaceId },
    Connect { pair: (usize, usize), on: bool },
    Start { node: usize },
    Step,
}

#[derive(Clone)]
enum Packet {
    Ask { id: u64, bytes: Bytes },
    Answer { id: u64, bytes: Bytes },
}

/// A client's session with what it rests on.
struct Client {
    session: Session,
    chain: Vec<Proof>,
}

pub(crate) struct Cluster {
    dice: Dice,
    now_ms: i64,
    events: BTreeMap<(i64, u64), Event>,
    numbers: u64,
    pub(crate) nodes: Vec<Node>,
    liar: Option<Liar>,
    owners: Vec<Owner>,
    clients: Vec<Vec<Client>>,
    /// Requests without an answer, with who asked.
    open: BTreeMap<u64, (usize, About)>,
    /// Both ends of a pair know of the connection.
    connected: BTreeSet<(usize, usize)>,
    /// Ways on which nothing arrives.
    cut: BTreeSet<(usize, usize)>,
    loss_percent: u64,
    disk_ms: Vec<i64>,
    generations: Vec<u64>,
    scheduled: BTreeSet<(usize, SpaceId)>,
    wakes: Vec<Option<i64>>,
    removed: BTreeSet<HostKey>,
    truths: BTreeMap<BTreeSet<EpochId>, Rc<Truth>>,
    seen: BTreeMap<(usize, SpaceId), (u64, usize)>,
    check_percent: u64,
    has_faults: bool,
    /// Some write on when the faults have ended.
    has_writers: bool,
}

/// How a run ended.
pub(crate) struct Outcome {
    /// How long after the last fault all hosts were equal, `None` if they were not within the bound.
    pub(crate) equal_after_ms: Option<i64>,
    /// Messages and what they were like.
    pub(crate) epochs: usize,
}

impl Cluster {
    pub(crate) fn new(seed: u64, knobs: Knobs) -> Self {
        let mut dice = Dice::new(seed);
        let owners: Vec<Owner> = (0..SPACES).map(|space| Owner::new(u8::try_from(space).expect("few") + 1)).collect();
        let checked = Rc::new(RefCell::new(BTreeMap::new()));
        let liar = (knobs.liar && !seed.is_multiple_of(3)).then(|| Liar::new(&owners[0], 99));
        let ahead = dice.below(2 * NODES);
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let skew_ms = if number == ahead { AHEAD_MS } else { dice.between(-SKEW_MS, SKEW_MS) };
            nodes.push(Node::new(number as u64, skew_ms, checked.clone(), knobs));
        }
        let keys: Vec<HostKey> = nodes.iter().map(|node| node.key).chain(liar.iter().map(|liar| liar.key)).collect();
        let mut cluster = Self {
            now_ms: START_MS,
            events: BTreeMap::new(),
            numbers: 0,
            liar,
            owners,
            clients: Vec::new(),
            open: BTreeMap::new(),
            connected: BTreeSet::new(),
            cut: BTreeSet::new(),
            loss_percent: dice.next() % 30,
            disk_ms: (0..NODES).map(|_| if dice.chance(20) { 2_000 } else { 20 }).collect(),
            generations: vec![0; NODES],
            scheduled: BTreeSet::new(),
            wakes: vec![None; NODES],
            removed: BTreeSet::new(),
            truths: BTreeMap::new(),
            seen: BTreeMap::new(),
            check_percent: knobs.check_percent,
            has_faults: true,
            has_writers: seed % 4 == 1 && knobs.compares && knobs.repairs,
            nodes,
            dice,
        };
        cluster.found(&keys, knobs);
        cluster
    }

    /// The owners name their hosts, and sessions are opened.
    fn found(&mut self, keys: &[HostKey], knobs: Knobs) {
        let first = self.nodes[0].key;
        for (number, owner) in self.owners.iter().enumerate() {
            // The second space is not on the last node.
            for node in &mut self.nodes[..NODES - number] {
                node.set_clock(START_MS);
                node.host_space(owner, &first);
            }
            for key in &keys[1..NODES - number] {
                // Some have to show who they are, when they pull after a comparison.
                if self.dice.chance(60) || !knobs.compares {
                    let hosted = self.nodes[0].spaces.get_mut(&owner.space).expect("the first hosts all");
                    hosted.host.send_token(owner.host_delegation(&key.did()), vec![]);
                    hosted.host.finish_all();
                    hosted.host.slow = true;
                }
            }
            let session = owner.session(u8::try_from(10 + number).expect("few"));
            self.clients.push(vec![Client { chain: vec![session.delegation.clone()], session }]);
        }
        if let Some(liar) = &self.liar {
            let owner = &self.owners[0];
            let hosted = self.nodes[0].spaces.get_mut(&owner.space).expect("the first hosts all");
            hosted.host.send_token(owner.host_delegation(&liar.key.did()), vec![]);
            hosted.host.finish_all();
            hosted.host.slow = true;
        }
        for pair in self.pairs() {
            let delay_ms = self.dice.between(0, 3_000);
            self.at(delay_ms, Event::Connect { pair, on: true });
        }
        self.at(100, Event::Step);
    }

    fn ends(&self) -> usize {
        NODES + usize::from(self.liar.is_some())
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let ends = self.ends();
        (0..NODES).flat_map(|one| (one + 1..ends).map(move |other| (one, other))).collect()
    }

    fn at(&mut self, delay_ms: i64, event: Event) {
        self.numbers += 1;
        self.events.insert((self.now_ms + delay_ms, self.numbers), event);
    }

    fn key(&self, end: usize) -> HostKey {
        self.nodes.get(end).map_or_else(|| self.liar.as_ref().expect("the last end").key, |node| node.key)
    }

    fn end(&self, key: &HostKey) -> Option<usize> {
        (0..self.ends()).find(|end| self.key(*end) == *key)
    }

    /// Runs it: faults, and then peace until all are equal or the bound has passed.
    pub(crate) fn run(&mut self) -> Outcome {
        self.run_until(START_OF_PEACE_MS, |_| false);
        self.heal();
        if self.has_writers {
            self.write_steadily();
        }
        let healed_ms = self.now_ms;
        let is_equal = |cluster: &Self| cluster.difference().is_none();
        self.run_until(healed_ms + BOUND_MS, is_equal);
        let equal_after_ms = self.difference().is_none().then_some(self.now_ms - healed_ms);
        let epochs = self.nodes.iter().flat_map(|node| node.spaces.values()).map(|hosted| hosted.host.log.len()).sum();
        Outcome { equal_after_ms, epochs }
    }

    pub(crate) fn run_until(&mut self, end_ms: i64, done: impl Fn(&Self) -> bool) {
        let mut looked_ms = self.now_ms;
        while let Some(next) = self.events.first_entry().filter(|next| next.key().0 <= end_ms) {
            let ((at_ms, _), event) = next.remove_entry();
            self.now_ms = at_ms;
            self.happen(event);
            if at_ms >= looked_ms + 250 {
                looked_ms = at_ms;
                if done(self) {
                    return;
                }
            }
        }
        self.now_ms = end_ms;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, packet } => self.deliver(from, to, packet),
            Event::NoAnswer { node, id } => {
                if let Some((_, about)) = self.open.remove(&id) {
                    self.touch(node, |node, now_ms| node.answered(now_ms, about, None));
                }
            }
            Event::Wake { node } => {
                self.wakes[node] = None;
                self.touch(node, |node, _| node.wake());
            }
            Event::Durable { node, generation, space } => {
                self.scheduled.remove(&(node, space.clone()));
                if self.generations[node] == generation {
                    self.touch(node, |node, _| {
                        let hosted = node.spaces.get_mut(&space).expect("it is hosted");
                        if hosted.host.out.is_some() {
                            hosted.host.finish();
                        }
                    });
                }
            }
            Event::Connect { pair, on } => self.connect(pair, on),
            Event::Start { node } => {
                self.nodes[node].is_up = true;
                for pair in self.pairs() {
                    if pair.0 == node || pair.1 == node {
                        let delay_ms = self.dice.between(0, 1_000);
                        self.at(delay_ms, Event::Connect { pair, on: true });
                    }
                }
            }
            Event::Step => {
                if self.has_faults {
                    self.step();
                    let delay_ms = self.dice.between(500, 4_000);
                    self.at(delay_ms, Event::Step);
                } else if self.liar.is_some() {
                    self.lie();
                    let delay_ms = self.dice.between(2_000, 20_000);
                    self.at(delay_ms, Event::Step);
                }
            }
        }
    }

    /// Lets a node do something, and sends what it then wants to send.
    fn touch(&mut self, number: usize, act: impl FnOnce(&mut Node, i64)) {
        let now_ms = self.now_ms;
        let Some(node) = self.nodes.get_mut(number).filter(|node| node.is_up) else { return };
        node.set_clock(now_ms);
        act(node, now_ms);
        node.go_on(now_ms);
        let outgoing = std::mem::take(&mut node.outgoing);
        let renew = std::mem::take(&mut node.renew);
        let next = node.next_time();
        let out: Vec<SpaceId> = node
            .spaces
            .iter()
            .filter(|(_, hosted)| hosted.host.out.is_some())
            .map(|(space, _)| space.clone())
            .collect();
        for space in out {
            if self.scheduled.insert((number, space.clone())) {
                let delay_ms = self.dice.between(1, self.disk_ms[number]);
                let generation = self.generations[number];
                self.at(delay_ms, Event::Durable { node: number, generation, space });
            }
        }
        for Outgoing { to, request, about } in outgoing {
            self.numbers += 1;
            let id = self.numbers;
            self.open.insert(id, (number, about));
            let to = self.end(&to);
            let wait_ms = if to.is_some_and(|to| to >= NODES) { LIAR_ANSWER_MS } else { ANSWER_MS };
            self.at(wait_ms, Event::NoAnswer { node: number, id });
            if let Some(to) = to {
                self.assert_may_tell(number, to, &request);
                self.post(number, to, Packet::Ask { id, bytes: request });
            }
        }
        for peer in renew {
            if let Some(end) = self.end(&peer) {
                let pair = (number.min(end), number.max(end));
                self.at(0, Event::Connect { pair, on: false });
                self.at(500, Event::Connect { pair, on: true });
            }
        }
        if let Some(next) = next {
            let next = next.max(now_ms + 1);
            if self.wakes[number].is_none_or(|known| known > next) {
                self.wakes[number] = Some(next);
                self.at(next - now_ms, Event::Wake { node: number });
            }
        }
        self.check(number);
    }

    fn post(&mut self, from: usize, to: usize, packet: Packet) {
        let pair = (from.min(to), from.max(to));
        if self.cut.contains(&(from, to)) || !self.connected.contains(&pair) || self.dice.chance(self.loss_percent) {
            return;
        }
        for copy in 0..2 {
            if copy == 0 || (self.has_faults && self.dice.chance(5)) {
                let slow = self.has_faults && self.dice.chance(5);
                let delay_ms = if slow { self.dice.between(1_000, 6_000) } else { self.dice.between(5, 150) };
                self.at(delay_ms, Event::Deliver { from, to, packet: packet.clone() });
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, packet: Packet) {
        let sender = self.key(from);
        match packet {
            Packet::Ask { id, bytes } if to < NODES => {
                let mut answer = None;
                let request = bytes;
                self.touch(to, |node, now_ms| answer = Some(node.answer(now_ms, sender, &request)));
                if let Some(bytes) = answer {
                    self.assert_may_answer(to, from, &request, &bytes);
                    self.post(to, from, Packet::Answer { id, bytes });
                }
            }
            Packet::Ask { id, bytes } => {
                let log = self.some_log(0);
                let liar = self.liar.as_mut().expect("the last end");
                if let Some(bytes) = liar.answer(&mut self.dice, &log, &bytes) {
                    let packet = Packet::Answer { id, bytes };
                    if self.dice.chance(30) {
                        // Just in time.
                        self.at(LIAR_ANSWER_MS - 1_000, Event::Deliver { from: to, to: from, packet });
                    } else {
                        self.post(to, from, packet);
                    }
                }
            }
            Packet::Answer { id, bytes } => {
                if let Some((node, about)) = self.open.remove(&id) {
                    self.touch(node, |node, now_ms| node.answered(now_ms, about, Some(&bytes)));
                }
            }
        }
    }

    fn connect(&mut self, pair: (usize, usize), on: bool) {
        let (one, other) = pair;
        let is_up = |end: usize| self.nodes.get(end).is_none_or(|node| node.is_up);
        let changed = match on {
            true => is_up(one) && is_up(other) && self.connected.insert(pair),
            false => self.connected.remove(&pair),
        };
        if !changed {
            return;
        }
        let keys = (self.key(one), self.key(other));
        for (end, peer) in [(one, keys.1), (other, keys.0)] {
            if !on {
                let gone: Vec<u64> = self
                    .open
                    .iter()
                    .filter(|(_, (node, about))| *node == end && is_about(about, &peer))
                    .map(|(id, _)| *id)
                    .collect();
                gone.iter().for_each(|id| drop(self.open.remove(id)));
            }
            self.touch(end, |node, now_ms| match on {
                true => node.connected(now_ms, peer),
                false => node.disconnected(now_ms, &peer),
            });
        }
    }

    /// A client, an owner, a fault or the liar does something.
    fn step(&mut self) {
        match self.dice.below(100) {
            0..70 => (0..=self.dice.below(3)).for_each(|_| self.call()),
            70..77 => self.cut_off(),
            77..83 => self.restart(),
            83..87 => {
                let node = self.dice.below(NODES);
                self.nodes[node].stepped_ms = STEP_MS;
            }
            _ => self.lie(),
        }
    }

    fn call(&mut self) {
        let number = self.dice.below(SPACES);
        let node = self.dice.below(NODES - number);
        let space = self.owners[number].space.clone();
        if !self.nodes[node].is_up {
            return;
        }
        self.nodes[node].set_clock(self.now_ms);
        let host = &self.nodes[node].spaces[&space].host;
        let after = if self.dice.chance(50) { durable_frontier(host) } else { vec![] };
        let clients = &self.clients[number];
        // Most use what the owner gave first, which is seldom taken away.
        let is_first = self.dice.chance(40);
        let client = &clients[if is_first { 0 } else { self.dice.below(clients.len()) }];
        let holds = |proof: &&Proof| !host.core.access().holds(&proof.address());
        let borrowed: Vec<Proof> = client.chain.iter().filter(holds).cloned().collect();
        let path = format!("k{}", self.dice.below(4));
        let kind = self.dice.below(100);
        let (mut write, mut token) = (None, None);
        let mut new_client = None;
        match kind {
            0..70 => {
                let invocation = client.session.invocation(&path, "put", host.now_ms + 60_000, &after);
                let bytes = invocation.address().to_string();
                write = Some(world::write(invocation, Some(bytes.as_bytes())));
            }
            70..80 => {
                write = Some(world::write(client.session.invocation(&path, "del", host.now_ms + 60_000, &after), None));
            }
            80..86 => {
                let session = self.owners[number].session(u8::try_from(20 + clients.len()).expect("few"));
                token = Some((session.delegation.clone(), vec![]));
                new_client = Some(Client { chain: vec![session.delegation.clone()], session });
            }
            86..91 => {
                let session = client.session.delegate(u8::try_from(20 + clients.len()).expect("few"));
                token = Some((session.delegation.clone(), borrowed.clone()));
                let chain = client.chain.iter().cloned().chain([session.delegation.clone()]).collect();
                new_client = Some(Client { session, chain });
            }
            91..95 if !is_first => {
                let revocation = self.owners[number].revoke(&client.session.delegation, &after);
                token = Some((revocation, borrowed.clone()));
            }
            91..98 => {}
            _ => {
                // The owner no longer wants the last host of the first space.
                let key = self.nodes[NODES - 1].key;
                let owner = &self.owners[0];
                if number == 0 && node < NODES - 1 && host.core.access().hosts(host.now()).contains(&key) {
                    token = Some((owner.revoke(&owner.host_delegation(&key.did()), &after), vec![]));
                    self.removed.insert(key);
                }
            }
        }
        self.clients[number].extend(new_client);
        self.touch(node, |node, _| {
            let host = &mut node.spaces.get_mut(&space).expect("it is hosted").host;
            let call = match (write, token) {
                (Some(write), _) => Some(host.send(kvspace_protocol::space::Write { borrowed, ..write })),
                (None, Some((token, borrowed))) => Some(host.send_token(token, borrowed)),
                (None, None) => None,
            };
            if let Some(call) = call {
                node.note_call(&space, call);
            }
        });
    }

    fn cut_off(&mut self) {
        let (one, other) = (self.dice.below(NODES), self.dice.below(NODES));
        match self.dice.below(3) {
            0 => drop(self.cut.insert((one, other))),
            1 => self.cut.clear(),
            _ => {
                // Some on this side, the others on that.
                let side: Vec<bool> = (0..self.ends()).map(|_| self.dice.chance(50)).collect();
                let length_ms = self.dice.between(5_000, 60_000);
                for pair in self.pairs().into_iter().filter(|pair| side[pair.0] != side[pair.1]) {
                    self.at(0, Event::Connect { pair, on: false });
                    self.at(length_ms, Event::Connect { pair, on: true });
                }
            }
        }
    }

    fn restart(&mut self) {
        let number = self.dice.below(NODES);
        if !self.nodes[number].is_up {
            return;
        }
        let kept_percent = if self.dice.chance(25) { 50 + self.dice.below(50) } else { 100 };
        self.generations[number] += 1;
        self.scheduled.retain(|(node, _)| *node != number);
        self.wakes[number] = None;
        self.open.retain(|_, (node, _)| *node != number);
        self.nodes[number].set_clock(self.now_ms);
        self.nodes[number].restart(kept_percent);
        self.nodes[number].is_up = false;
        for pair in self.pairs().into_iter().filter(|pair| pair.0 == number || pair.1 == number) {
            self.connect(pair, false);
        }
        let delay_ms = self.dice.between(100, 20_000);
        self.at(delay_ms, Event::Start { node: number });
    }

    fn lie(&mut self) {
        let everybody: Vec<HostKey> = (0..self.ends()).map(|end| self.key(end)).collect();
        let Some(mut liar) = self.liar.take() else { return };
        let logs = (0..SPACES).map(|number| (self.owners[number].space.clone(), self.some_log(number))).collect();
        let sessions: Vec<Session> = self.clients[0].iter().map(|client| client.session.clone()).collect();
        for _ in 0..1 + self.dice.below(3) {
            let attack = liar.attack(&mut self.dice, &logs, &sessions, &everybody, !self.has_faults);
            if let Some(bytes) = attack {
                let to = self.dice.below(NODES);
                self.numbers += 1;
                let packet = Packet::Ask { id: self.numbers, bytes };
                self.post(NODES, to, packet);
            }
        }
        self.liar = Some(liar);
    }

    /// What some node has of a space.
    fn some_log(&mut self, number: usize) -> Vec<SignedEpoch> {
        let node = &self.nodes[self.dice.below(NODES - number)];
        node.spaces.get(&self.owners[number].space).map(|hosted| hosted.host.log.clone()).unwrap_or_default()
    }

    /// No more faults: all are up and connected, and nothing gets lost.
    fn heal(&mut self) {
        self.has_faults = false;
        self.loss_percent = 0;
        self.cut.clear();
        self.disk_ms.fill(20);
        self.events.retain(|_, event| !matches!(event, Event::Start { .. } | Event::Connect { .. }));
        for node in &mut self.nodes {
            node.is_up = true;
            node.stepped_ms = 0;
        }
        for pair in self.pairs() {
            self.connect(pair, true);
        }
        if self.liar.is_some() {
            self.at(1_000, Event::Step);
        }
    }
}

fn is_about(about: &About, peer: &HostKey) -> bool {
    match about {
        About::Compare(_, of, _) => of == peer,
        About::Pull(_, pull) => pull.peer == *peer,
        // A late outcome of a push is one of nobody.
        About::Push(_) => false,
    }
}

fn durable_frontier(host: &world::Host) -> Vec<EpochId> {
    let mut heads: Vec<EpochId> =
        host.view.branches().iter().filter(|branch| branch.is_head).map(|branch| branch.tip).collect();
    heads.sort_unstable();
    heads.truncate(8);
    heads
}
