//! The index against its twin in memory: both take in what real cores say, and must show the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use kvspace_protocol::{
    dag::Place,
    id::{BlobHash, EpochId, Incarnation, Millis},
    kv::{Condition, Effect, Operation, Value},
    space::{Arrived, CallId, CheckedEpoch, Commit, MemoryView, NewValue, Output, Space, View, Write},
    sync::Source as _,
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use self::actors::{Party, START_MS, owner_of, revocation};
use super::{Durable, Fate, Index, PageQuery, SpaceIndex, Wanted, compare, signed};
use crate::{
    blobs::Blobs,
    disk::fake::FakeDisk,
    log::{self, EpochRecord, Log, LogOptions, Position},
    node::Recovery,
    records::{Batch, MemoryStore, Records},
    registry::open_core,
    serve::SpaceSource,
};

mod actors;
mod kept;
mod serving;

/// One host with its log, its index and the twin.
struct Host {
    party: Party,
    disk: FakeDisk,
    files: Blobs,
    _files_dir: tempfile::TempDir,
    log: Log,
    index: SpaceIndex,
    twin: MemoryView,
    core: Space,
    incarnation: u64,
    now: Millis,
    calls: u64,
    /// Where each value of the log lies.
    blobs: BTreeMap<EpochId, Vec<(BlobHash, Position)>>,
    runtime: tokio::runtime::Runtime,
}

impl Host {
    fn new(seed: u8, owner: &Party) -> Self {
        let party = Party::new(seed);
        let disk = FakeDisk::default();
        let log = Log::open(Path::new("/log"), log_on(&disk), |_, _| Ok::<_, Infallible>(())).expect("a log");
        let records = Records::over(Arc::new(MemoryStore::new())).expect("records");
        let index = Index::new(records, log.reader()).expect("an index").new_space(&owner.space);
        let core = Space::new(owner.space.clone(), party.key.clone(), Incarnation([seed; 8]));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (twin, now, blobs) = (MemoryView::default(), Millis(START_MS), BTreeMap::new());
        let files_dir = tempfile::tempdir().expect("a folder");
        let files = Blobs::open(files_dir.path()).expect("opens");
        Self {
            party,
            disk,
            files,
            _files_dir: files_dir,
            log,
            index,
            twin,
            core,
            incarnation: u64::from(seed) << 32,
            now,
            calls: 0,
            blobs,
            runtime,
        }
    }

    fn call(&mut self) -> CallId {
        self.calls += 1;
        CallId(self.calls)
    }

    fn token(&mut self, token: kvspace_protocol::authority::Proof) {
        let call = self.call();
        self.core.handle_token(self.now, &self.index, call, token, vec![]).expect("the index reads");
    }

    fn write(&mut self, token: kvspace_protocol::authority::Proof, value: Option<(Vec<u8>, BTreeMap<String, String>)>) {
        let call = self.call();
        let value = value.map(|(bytes, meta)| {
            let (blob, size) = (BlobHash::of(&bytes), bytes.len() as u64);
            NewValue { blob, size, meta, inline: Some(bytes.into()) }
        });
        let write = Write { token, authorized_at: u64::MAX, borrowed: vec![], value, condition: Condition::Always };
        self.core.handle_invocation(self.now, &self.index, call, write).expect("the index reads");
    }

    /// Takes in epochs, with the values of some of them.
    fn receive(&mut self, epochs: Vec<(CheckedEpoch, Vec<Bytes>)>, rng: &mut StdRng) {
        let arrived = |(checked, values): (CheckedEpoch, Vec<Bytes>)| {
            let values = if rng.random_bool(0.5) { values } else { Vec::new() };
            Arrived { checked, values, told: BTreeSet::new() }
        };
        let epochs = epochs.into_iter().map(arrived).collect::<Vec<_>>();
        self.core.handle_epochs(self.now, &self.index, CallId(0), None, epochs).expect("the index reads");
    }

    /// Makes durable what is to be; the index may be cut off within a commit and be made whole again.
    fn settle(&mut self, rng: &mut StdRng) {
        while let Some(output) = self.core.poll_output() {
            let Output::Commit(commit) = output else { continue };
            let is_cut_off = self.commit(commit, rng);
            if is_cut_off {
                return self.settle(rng);
            }
            self.core.handle_committed(self.now, &self.index).expect("the index reads");
        }
    }

    fn commit(&mut self, commit: Commit, rng: &mut StdRng) -> bool {
        let space = self.index.id().clone();
        let record = |epoch: &kvspace_protocol::epoch::SignedEpoch| EpochRecord {
            space: space.clone(),
            header: epoch.header.clone(),
            body: epoch.body.clone(),
            signature: epoch.signature,
        };
        let values = commit.epochs.iter().flat_map(|logged| logged.values.iter().cloned());
        let blobs: BTreeMap<BlobHash, Bytes> = values.collect();
        let signed: Vec<_> = commit.epochs.into_iter().map(|logged| logged.signed).collect();
        let hashes: Vec<_> = blobs.keys().copied().collect();
        let epochs: Vec<_> = signed.iter().map(record).collect();
        let appended = log::Commit { blobs: blobs.into_iter().collect(), epochs };
        let appended = self.runtime.block_on(self.log.commit(appended)).expect("committed");
        let blobs: Vec<_> = hashes.into_iter().zip(appended.blobs).collect();
        let ids = signed.iter().map(|epoch| EpochId::of(&epoch.header));
        let positions: BTreeMap<_, _> = ids.zip(appended.epochs).collect();
        self.blobs.extend(positions.keys().map(|id| (*id, blobs.clone())));
        let durable = Durable { changes: &commit.changes, blobs: &blobs, epochs: &positions };
        let batches = self.index.batches(&durable).expect("the index reads");
        let is_cut_off = batches.len() > 1 && rng.random_bool(0.3);
        if is_cut_off {
            let first = rng.random_range(0..batches.len());
            self.fill(batches.into_iter().take(first).collect());
            self.reopen();
            let checked = signed.into_iter();
            let checked: Vec<_> = checked.map(|epoch| CheckedEpoch::check(epoch).expect("our own")).collect();
            let replay = self.core.replay(&self.index, &checked).expect("the index reads");
            assert!(replay.passed_over.is_empty());
            let durable = Durable { changes: &replay.changes, blobs: &blobs, epochs: &positions };
            let batches = self.index.batches(&durable).expect("the index reads");
            self.fill(batches);
        } else {
            self.fill(batches);
        }
        commit.changes.iter().for_each(|change| self.twin.absorb(change));
        if is_cut_off {
            self.compare();
        }
        is_cut_off
    }

    fn fill(&self, batches: Vec<Batch>) {
        let records = &self.index.index().records;
        let room = records.room_blocking(batches.iter().map(Batch::len).sum::<usize>() as u32).expect("room");
        records.begin(Vec::new()).fill(room, batches).expect("filled");
    }

    /// A new core from what the index keeps.
    fn reopen(&mut self) {
        self.incarnation += 1;
        let incarnation = Incarnation(self.incarnation.to_be_bytes());
        self.core = open_core(&self.index, &self.party.key, incarnation).expect("it opens");
    }

    /// What others are answered from.
    fn source(&self) -> SpaceSource {
        SpaceSource::new(self.index.clone(), Arc::new(self.core.dag().clone()))
    }

    /// The values that are wanted.
    fn wanted(&self, after: Option<&[u8]>) -> Vec<Wanted> {
        self.index.index().wanted(&self.files, after).map(|wanted| wanted.expect("the index reads")).collect()
    }

    /// An index that is made from the log is this one.
    fn compare_with_its_log(self) {
        self.log.close();
        let records = Records::over(Arc::new(MemoryStore::new())).expect("records");
        let mut recovery = Recovery::new(records, self.party.key.clone(), Incarnation([0; 8]), 10);
        let take = |reader: &_, replayed| recovery.take(reader, replayed);
        let log = Log::open(Path::new("/log"), log_on(&self.disk), take).expect("the log opens");
        let made = recovery.finish(&log.reader()).expect("made");
        let mut differences = Vec::new();
        let each = &mut |difference| differences.push(difference);
        compare(self.index.index(), &made, &log.reader(), each).expect("the indexes read");
        assert_eq!(differences, []);
        log.close();
    }

    fn operations(&self) -> impl Iterator<Item = Operation> {
        self.twin.keys().flat_map(|key| self.twin.history(key).expect("the twin reads"))
    }

    /// Whatever is asked, the index and its twin say the same.
    fn compare(&self) {
        let (index, twin) = (&self.index, &self.twin);
        let mut live = Vec::new();
        let mut live_bytes = 0;
        let mut pending = BTreeSet::new();
        for key in twin.keys() {
            assert_eq!(index.winner(key).map(bare), twin.winner(key).map(bare), "{key}");
            assert_eq!(index.history(key).map(bare), twin.history(key).map(bare), "{key}");
            // Some of them each time; which ones changes with the number of epochs.
            let history = twin.history(key).expect("the twin reads");
            let first = usize::try_from(twin.branches()[0].tip_n).expect("few") % 9;
            for operation in history.iter().skip(first).step_by(9) {
                let identity = &operation.identity;
                let sorted = |mut found: Vec<Operation>| {
                    found.sort_by_key(|operation| operation.version);
                    bare(found)
                };
                let (here, there) = (index.occurrences(key, identity), twin.occurrences(key, identity));
                assert_eq!(here.map(sorted), there.map(sorted), "{key}");
                self.compare_fate(operation);
            }
            if let Some(value) = twin.winner(key).expect("reads").and_then(|won| won.effect.value().cloned()) {
                live.push(key.clone());
                live_bytes += value.size;
                let found = index.find(key).expect("the index reads").expect("it wins");
                let branch = &twin.branches()[found.operation.place.branch as usize];
                // Not every value of another host comes with its epoch.
                assert!(found.at.is_some() || branch.host.0 != self.party.key.verifying_key().to_bytes());
                match found.at {
                    Some(at) => assert_eq!(BlobHash::of(&self.log.read_blob(at).expect("readable")), value.blob),
                    None if self.files.exists(&value.blob) => {}
                    None => drop(pending.insert((value.blob, value.size))),
                }
            }
        }
        let wanted: BTreeSet<_> = self.wanted(None).into_iter().map(|wanted| (wanted.hash, wanted.size)).collect();
        assert_eq!(wanted, pending);
        let everything =
            PageQuery { from: "", prefix: "", wanted: &|_| true, take_max: usize::MAX, look_max: usize::MAX };
        assert_eq!(index.page(&everything).expect("the index reads").keys, live);
        let summary = index.summary().expect("the index reads");
        assert_eq!((summary.keys, summary.live_bytes), (live.len() as u64, live_bytes));
        assert_eq!(summary.epochs, self.twin.branches().iter().map(|b| b.tip_n - b.first_n + 1).sum::<u64>());
        self.compare_held();
        // This reads all epochs, so not every time.
        let branches = twin.branches();
        if branches.iter().map(|branch| branch.tip_n).sum::<u64>() % 8 == 0 {
            self.compare_keys_under();
        }
        assert_eq!(index.keys_under(&|_| false), Ok(BTreeSet::new()));
    }

    fn compare_keys_under(&self) {
        let (index, twin) = (&self.index, &self.twin);
        let all_roots: BTreeSet<_> =
            self.operations().flat_map(|op| op.standing.roots().copied().collect::<Vec<_>>()).collect();
        for root in &all_roots {
            let affected = |other: &_| other == root;
            let under = index.keys_under(&affected).expect("the index reads");
            assert!(under.is_superset(&twin.keys_under(&affected).expect("the twin reads")), "{root}");
        }
    }

    fn compare_fate(&self, operation: &Operation) {
        let fate = self.index.fate(&operation.key, &operation.identity, &operation.version).expect("the index reads");
        let winner = self.twin.winner(&operation.key).expect("the twin reads");
        let wins = winner.as_ref().is_some_and(|winner| winner.version == operation.version);
        match fate {
            Fate::Wins => assert!(wins),
            Fate::Lost { winner: other, .. } => {
                assert!(!wins);
                assert_eq!(other.map(|stored| stored.operation.version), winner.map(|winner| winner.version));
            }
            Fate::Unknown => panic!("{operation:?} is not known"),
        }
    }

    fn compare_held(&self) {
        let held = self.index.held().expect("the index reads");
        assert_eq!(held.branches, self.twin.branches());
        let delegations: BTreeMap<_, BTreeSet<Place>> = held
            .delegations
            .into_iter()
            .map(|(proof, places)| (proof.address(), places.into_iter().collect()))
            .collect();
        let places = |places: &Vec<(Place, u16)>| places.iter().map(|(place, _)| *place).collect();
        let twins: BTreeMap<_, _> = self.twin.delegations().iter().map(|(address, p)| (*address, places(p))).collect();
        assert_eq!(delegations, twins);
        let revoking: Vec<_> = held.revoking.iter().map(|checked| checked.epoch().id).collect();
        assert_eq!(revoking, self.twin.revoking());
        let mut heads: Vec<_> = self.twin.branches().iter().filter(|b| b.is_head).map(|b| b.tip).collect();
        heads.sort_unstable();
        assert_eq!(self.index.frontier().expect("the index reads"), heads);
    }

    /// The epochs that another host does not have.
    fn epochs_for(&self, other: &Self) -> Vec<(CheckedEpoch, Vec<Bytes>)> {
        let mut all = Vec::new();
        for branch in 0..self.twin.branches().len() as u32 {
            let run = &self.twin.branches()[branch as usize];
            for n in run.first_n..=run.tip_n {
                let at = self.index.position(Place { branch, n }).expect("it is held");
                let epoch = signed(self.log.read_epoch(at).expect("readable"));
                if other.index.epoch(&EpochId::of(&epoch.header)).expect("the index reads").is_none() {
                    let checked = CheckedEpoch::check(epoch).expect("well formed");
                    let values = self.source().read(Place { branch, n }, usize::MAX).expect("readable").values;
                    all.push((checked, values));
                }
            }
        }
        all
    }
}

fn log_on(disk: &FakeDisk) -> LogOptions {
    LogOptions { segment_bytes: 1 << 22, disk: Arc::new(disk.clone()), ..LogOptions::default() }
}

/// Operations without the headers of their values: the rules ask for none, and large ones stay in the log.
fn bare<T: IntoIterator<Item = Operation>>(operations: T) -> Vec<Operation> {
    let bare = |operation: Operation| match operation.effect.value() {
        Some(value) => {
            let value = Value { meta: BTreeMap::new(), ..Value::clone(value) };
            Operation { effect: Effect::Put(value.into()), ..operation }
        }
        None => operation,
    };
    operations.into_iter().map(bare).collect()
}

/// Random calls on two hosts that exchange epochs now and then.
fn run(seed: u64) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let owner = owner_of(1);
    let mut hosts = [Host::new(2, &owner), Host::new(3, &owner)];
    let sessions: Vec<_> = (10..13).map(|seed| owner.session(seed)).collect();
    let mut tokens = Vec::new();
    for host in &mut hosts {
        host.token(owner.host_delegation(&host.party.did()));
        host.settle(rng);
    }
    let mut revoked = BTreeSet::new();
    for step in 0..50_u64 {
        let at = rng.random_range(0..2);
        let host = &mut hosts[at];
        host.now = host.now.plus(rng.random_range(0..2_000));
        for _ in 0..rng.random_range(1..12) {
            let key = format!("k{}", rng.random_range(0..6));
            let (session, delegation) = &sessions[rng.random_range(0..sessions.len())];
            match rng.random_range(0..10) {
                0 => host.token(delegation.clone()),
                1..=2 => host.write(session.invoke(&key, "del", delegation, rng.next_u64()), None),
                3 if !tokens.is_empty() => {
                    let (token, bytes): &(_, Vec<u8>) = &tokens[rng.random_range(0..tokens.len())];
                    host.write(Arc::clone(token), Some((bytes.clone(), BTreeMap::new())));
                }
                _ => {
                    let token = session.invoke(&key, "put", delegation, rng.next_u64());
                    let bytes = rng.next_u64().to_be_bytes()[..rng.random_range(1..8)].to_vec();
                    // Now and then headers beyond what a record takes.
                    let meta = if rng.random_bool(0.1) {
                        [("a".to_owned(), "m".repeat(4_000))].into()
                    } else {
                        BTreeMap::new()
                    };
                    if meta.is_empty() {
                        tokens.push((token.clone(), bytes.clone()));
                    }
                    host.write(token, Some((bytes, meta)));
                }
            }
        }
        host.settle(rng);
        host.compare();
        if rng.random_bool(0.1) && step > 20 {
            let (_, delegation) = &sessions[rng.random_range(0..sessions.len())];
            if revoked.insert(delegation.address()) {
                let after: Vec<_> = if rng.random_bool(0.5) { host.core.dag().frontier().collect() } else { vec![] };
                host.token(revocation(&owner.key, &owner.space, delegation, &after));
                host.settle(rng);
                host.compare();
            }
        }
        if rng.random_bool(0.2) {
            let epochs = hosts[at].epochs_for(&hosts[1 - at]);
            let other = &mut hosts[1 - at];
            other.now = other.now.max(Millis(START_MS + 500_000));
            other.receive(epochs, rng);
            other.settle(rng);
            other.compare();
        }
        if rng.random_bool(0.1) {
            hosts[at].reopen();
        }
    }
    for host in hosts {
        host.compare_with_its_log();
    }
}

#[test]
fn the_index_says_what_its_twin_says_whatever_happens() {
    for seed in 0..8 {
        run(seed);
    }
}

#[test]
fn headers_beyond_a_record_are_read_from_the_log() {
    let rng = &mut StdRng::seed_from_u64(0);
    let owner = owner_of(1);
    let mut host = Host::new(2, &owner);
    host.token(owner.host_delegation(&host.party.did()));
    let (session, delegation) = owner.session(9);
    host.token(delegation.clone());
    let meta: BTreeMap<_, _> = (0..8).map(|n| (format!("h{n}"), "x".repeat(1_000))).collect();
    host.write(session.invoke("k", "put", &delegation, 1), Some((vec![1], meta.clone())));
    host.settle(rng);
    let found = host.index.find("k").expect("the index reads").expect("it is there");
    assert_eq!(found.operation.effect.value().expect("a value").meta, meta);
    host.write(session.invoke("k", "del", &delegation, 2), None);
    host.settle(rng);
    assert_eq!(host.index.history("k").expect("the index reads").len(), 2);
    host.log.close();
}
