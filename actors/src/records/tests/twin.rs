//! Random commits, filled in any order, against a plain map.

use super::*;
use crate::disk::OsDisk;

const KEYS: usize = 400;
/// Commits that wait for one before them, at most: their records must fit in the tail.
const OPEN_MAX: usize = 6;

/// What was begun, and what of it a reader must see.
#[derive(Default)]
struct Plan {
    /// The result of all commits before `rest`.
    base: Model,
    rest: Vec<(Option<Slot>, Option<Room>, Vec<Batch>)>,
    begun: u64,
}

impl Plan {
    fn visible(&self) -> Model {
        let mut model = self.base.clone();
        for (_, _, batches) in self.rest.iter().filter(|(slot, ..)| slot.is_none()) {
            batches.iter().for_each(|batch| apply(&mut model, batch));
        }
        model
    }

    fn open(&self) -> Vec<usize> {
        (0..self.rest.len()).filter(|i| self.rest[*i].0.is_some()).collect()
    }

    fn fill(&mut self, i: usize) {
        let (slot, room, batches) = &mut self.rest[i];
        let (slot, room) = (slot.take().expect("open"), room.take().expect("open"));
        slot.fill(room, batches.clone()).expect("filled");
        while self.rest.first().is_some_and(|(slot, ..)| slot.is_none()) {
            let (_, _, batches) = self.rest.remove(0);
            batches.iter().for_each(|batch| apply(&mut self.base, batch));
        }
    }
}

fn key(dice: &mut Dice) -> Vec<u8> {
    let n = dice.roll(KEYS);
    format!("{}{:03}", ["a", "b", "ba", "c"][n % 4], n).into_bytes()
}

fn batch(dice: &mut Dice, records: usize) -> Batch {
    let record = |dice: &mut Dice| {
        let value = (dice.roll(4) > 0).then(|| vec![dice.roll(256) as u8; dice.roll(40)]);
        (key(dice), value)
    };
    (0..records).map(|_| record(dice)).collect()
}

fn batches(dice: &mut Dice) -> Vec<Batch> {
    match dice.roll(20) {
        0 => (0..2 + dice.roll(3)).map(|_| batch(dice, 150)).collect(),
        1 => Vec::new(),
        2 => vec![batch(dice, 300)],
        3 => vec![Batch::new()],
        _ => {
            let records = 1 + dice.roll(8);
            vec![batch(dice, records)]
        }
    }
}

/// One run; every answer is compared.
fn run(records: &Records, seed: u64, steps: usize) -> Plan {
    let dice = &mut Dice(seed);
    let mut plan = Plan::default();
    for step in 0..steps {
        match dice.roll(10) {
            0..4 => {
                if plan.rest.len() >= OPEN_MAX {
                    plan.fill(0);
                }
                let batches = batches(dice);
                let count = batches.iter().map(Batch::len).sum::<usize>() as u32;
                let room = records.room_blocking(count).expect("room");
                plan.begun += 1;
                let slot = records.begin(plan.begun.to_be_bytes().to_vec());
                plan.rest.push((Some(slot), Some(room), batches));
            }
            4..7 => {
                let open = plan.open();
                if !open.is_empty() {
                    plan.fill(open[dice.roll(open.len())]);
                }
            }
            7 if dice.roll(3) == 0 => records.settle().expect("settled"),
            _ => {}
        }
        let model = plan.visible();
        for _ in 0..3 {
            let key = key(dice);
            assert_eq!(records.get(&key), Ok(model.get(&key).cloned()), "seed {seed} step {step}");
        }
        let prefix: &[u8] = [&b""[..], b"a", b"b", b"ba", b"c1", b"d"][dice.roll(6)];
        let from = if dice.roll(2) == 0 { Vec::new() } else { key(dice) };
        let take = if dice.roll(2) == 0 { 5 } else { usize::MAX };
        let found: Vec<_> = records.scan(prefix, &from).take(take).map(|record| record.expect("readable")).collect();
        let expected = model.range(from.clone()..).filter(|(key, _)| key.starts_with(prefix)).take(take);
        let expected: Vec<_> = expected.map(|(key, value)| (key.clone(), value.clone())).collect();
        assert_eq!(found, expected, "seed {seed} step {step} prefix {prefix:?} from {from:?}");
    }
    while let Some(i) = plan.open().pop() {
        plan.fill(i);
    }
    records.settle().expect("settled");
    assert!(records.shared().tail.read().expect("no panic").is_empty());
    assert_eq!(all(records), plan.base, "seed {seed}");
    plan
}

#[test]
fn over_memory_every_answer_is_that_of_a_plain_map() {
    for seed in 0..10 {
        let records = Records::over(Arc::new(MemoryStore::new())).expect("started");
        run(&records, seed, 200);
    }
}

#[test]
fn over_sled_every_answer_is_that_of_a_plain_map_and_stays_so_after_a_close() {
    for seed in 100..106 {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let options = RecordsOptions { cache_bytes: 1 << 20, ..RecordsOptions::default() };
        let records = Records::open(dir.path(), &options).expect("opened").records;
        let plan = run(&records, seed, 120);
        records.close().expect("closed");
        let opened = Records::open(dir.path(), &options).expect("opened");
        assert_eq!(opened.fresh, None);
        assert_eq!(opened.covered, Some(plan.begun.to_be_bytes().to_vec()));
        assert_eq!(all(&opened.records), plan.base, "seed {seed}");
    }
}

#[test]
fn the_twins_answer_alike() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let disk = SledStore::create(&dir.path().join("db"), 1 << 20, Arc::new(OsDisk)).expect("created");
    let memory = MemoryStore::new();
    let dice = &mut Dice(7);
    for _ in 0..60 {
        let batch = batch(dice, 30);
        disk.apply(&batch).expect("applied");
        memory.apply(&batch).expect("applied");
        let (key, max) = (key(dice), dice.roll(40));
        assert_eq!(disk.get(&key), memory.get(&key));
        for prefix in [&b"a"[..], b"b"] {
            assert_eq!(disk.page(prefix, &key, max), memory.page(prefix, &key, max));
        }
    }
    for store in [&disk as &dyn Store, &memory] {
        store.close().expect("closed");
        assert_eq!(store.get(b"a"), Err(StoreError::closed()));
        assert_eq!(store.apply(&Batch::new()), Err(StoreError::closed()));
        assert_eq!(store.close(), Err(StoreError::closed()));
    }
}

/// Stops the store after any number of batches: what is in it is the first commits up to the mark, and of the next at
/// most whole first batches.
#[test]
fn wherever_it_stops_the_store_has_what_its_mark_says() {
    for seed in 0..40 {
        let dice = &mut Dice(seed);
        let watched = Watched::new();
        watched.batches_max.store(dice.roll(12), std::sync::atomic::Ordering::SeqCst);
        let records = Records::over(Arc::clone(&watched) as Arc<dyn Store>).expect("started");
        let commits: Vec<_> = (0..30).map(|_| batches(dice)).collect();
        let mut slots = Vec::new();
        for (i, commit) in commits.iter().enumerate() {
            let Ok(room) = records.room_blocking(0) else { break };
            slots.push((records.begin(vec![i as u8]), room, commit.clone()));
            while slots.len() > dice.roll(5) {
                let (slot, room, batches) = slots.swap_remove(dice.roll(slots.len()));
                slot.fill(room, batches).ok();
            }
        }
        for (slot, room, batches) in slots {
            slot.fill(room, batches).ok();
        }
        records.settle().ok();
        let mut store = Model::new();
        for batch in &*watched.applied.lock().expect("no panic") {
            apply(&mut store, batch);
            agrees(&store, &commits, batch, seed);
        }
        let inner: Model = watched.inner.page(b"", b"", usize::MAX).expect("readable").into_iter().collect();
        assert_eq!(inner, store, "seed {seed}: nothing but batches");
    }
}

/// Asserts that after `last` the store is the result of whole commits up to its mark, and of first batches of the next.
fn agrees(store: &Model, commits: &[Vec<Batch>], last: &Batch, seed: u64) {
    let largest = commits.iter().flatten().map(Batch::len).max().unwrap_or_default();
    let covered = store.get(MARK).map_or(0, |mark| usize::from(mark[0]) + 1);
    let mut store = store.clone();
    store.remove(MARK);
    let mut expected = Model::new();
    commits[..covered].iter().flatten().for_each(|batch| apply(&mut expected, batch));
    assert!(last.len() <= queue::BATCH_RECORDS_MAX.max(largest + 1), "seed {seed}: {} records", last.len());
    if last.contains_key(MARK) {
        assert_eq!(store, expected, "seed {seed}: the mark says {covered} commits");
        return;
    }
    let begun = commits[covered].split_last().map_or(&[][..], |(_, first)| first);
    let fits = begun.iter().any(|part| {
        apply(&mut expected, part);
        expected == store
    });
    assert!(fits, "seed {seed}: first batches of the commit after the {covered} covered ones");
}
