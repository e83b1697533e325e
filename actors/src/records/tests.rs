//! What is promised of records, over the store on disk and the one in memory.
#![expect(clippy::unwrap_in_result, reason = "a test that cannot go on panics")]

mod damage;
mod order;
mod tail;
mod trust;
mod twin;

use std::sync::{Mutex, atomic::AtomicUsize};

use super::*;

/// What a test does while a batch is about to be applied.
type BeforeApply = Box<dyn FnMut(&Batch) + Send>;
type Model = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    fn roll(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// A store that lets a test see, hold up and break what happens.
struct Watched {
    inner: Arc<dyn Store>,
    applied: Mutex<Vec<Batch>>,
    /// How many batches are applied before one fails.
    batches_max: AtomicUsize,
    before_apply: Mutex<Option<BeforeApply>>,
    after_read: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl Watched {
    fn over(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            applied: Mutex::default(),
            batches_max: AtomicUsize::new(usize::MAX),
            before_apply: Mutex::default(),
            after_read: Mutex::default(),
        })
    }

    fn new() -> Arc<Self> {
        Self::over(Arc::new(MemoryStore::new()))
    }

    fn read<T>(&self, result: T) -> T {
        let hook = self.after_read.lock().expect("no panic").take();
        if let Some(mut hook) = hook {
            hook();
        }
        result
    }
}

impl Store for Watched {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(self.inner.get(key))
    }

    fn page(&self, prefix: &[u8], from: &[u8], max: usize) -> Result<Vec<Pair>, StoreError> {
        self.read(self.inner.page(prefix, from, max))
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut applied = self.applied.lock().expect("no panic");
        if applied.len() >= self.batches_max.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(StoreError::new("the store is broken"));
        }
        if let Some(hook) = &mut *self.before_apply.lock().expect("no panic") {
            hook(batch);
        }
        applied.push(batch.clone());
        self.inner.apply(batch)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }
}

fn put(key: &str, value: &str) -> Batch {
    Batch::from([(key.into(), Some(value.into()))])
}

/// `n` records whose keys begin with `name`.
fn many(name: &str, n: usize) -> Batch {
    (0..n).map(|i| (format!("{name}{i:05}").into_bytes(), Some(format!("{name} {i}").into_bytes()))).collect()
}

/// A whole commit.
fn commit(records: &Records, mark: &str, batches: Vec<Batch>) {
    let count = batches.iter().map(Batch::len).sum::<usize>();
    let room = records.room_blocking(u32::try_from(count).expect("few")).expect("room");
    records.begin(mark.into()).fill(room, batches).expect("filled");
}

fn all(records: &Records) -> Model {
    records.scan(b"", b"").collect::<Result<_, _>>().expect("readable")
}

fn apply(model: &mut Model, batch: &Batch) {
    for (key, value) in batch {
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
}
