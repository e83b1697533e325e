//! One hosted space as everybody sees it: its index, its published authority, and the way to its actor. In memory while
//! it is in use.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::Addr;
use kvspace_protocol::{
    authority::{Access, AccessChange},
    dag::Dag,
    id::{EpochId, HostKey, Millis, SpaceId},
    space::{Change, Space, View},
};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, watch};

use crate::{
    index::{IndexError, SpaceIndex},
    serve::SpaceSource,
    space::SpaceActor,
};

/// Calls that one space takes before others wait.
const CALLS_MAX: usize = 1024;

/// Refused epochs that one space remembers.
const REFUSED_MAX: usize = 64;

/// An epoch that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedEpoch {
    pub(crate) epoch: EpochId,
    /// Who brought it, if it was judged while it was being brought.
    pub(crate) from: Option<HostKey>,
    pub(crate) at: Millis,
    pub(crate) reason: String,
}

/// A space on this node. What is read here is durable.
pub(crate) struct Hosted {
    pub(crate) id: SpaceId,
    pub(crate) index: SpaceIndex,
    access: RwLock<Access>,
    /// Whoever serves from it holds a clone of the `Arc`; a commit meanwhile copies it once.
    dag: RwLock<Arc<Dag>>,
    /// Counts commits that the index shows.
    commits: watch::Sender<u64>,
    /// Places for calls under way.
    pub(crate) places: Arc<Semaphore>,
    /// The place for a question that takes the actor or the index long.
    pub(crate) questions: Arc<Semaphore>,
    /// The running actor. Whoever starts one holds the lock, so there is one writer.
    pub(crate) actor: AsyncMutex<Option<Addr<SpaceActor>>>,
    /// Held by a commit until the index shows it.
    pub(crate) committing: Arc<AsyncMutex<()>>,
    /// The core as the space was opened with, until an actor takes it.
    pub(crate) ready: Mutex<Option<Space>>,
    /// Oldest first.
    refused: Mutex<VecDeque<RefusedEpoch>>,
    /// Epochs that waited when peers brought some last.
    waiting: AtomicU64,
    used: AtomicU64,
}

impl Hosted {
    /// A space of which nothing is held yet.
    pub(crate) fn new(index: SpaceIndex) -> Self {
        let id = index.id().clone();
        Self {
            access: RwLock::new(Access::new(id.clone())),
            id,
            index,
            dag: RwLock::default(),
            waiting: AtomicU64::new(0),
            commits: watch::Sender::new(0),
            places: Arc::new(Semaphore::new(CALLS_MAX)),
            questions: Arc::new(Semaphore::new(1)),
            actor: AsyncMutex::new(None),
            committing: Arc::new(AsyncMutex::new(())),
            ready: Mutex::new(None),
            refused: Mutex::default(),
            used: AtomicU64::new(0),
        }
    }

    /// A space with all that `core` holds, which then stands ready.
    pub(crate) fn opened(index: SpaceIndex, core: Space) -> Self {
        let hosted = Self::new(index);
        hosted.publish_all(&core);
        *hosted.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(core);
        hosted
    }

    /// The durable state for the core.
    pub(crate) fn view(&self) -> &dyn View {
        &self.index
    }

    /// The authority that requests are judged by.
    pub(crate) fn access(&self) -> RwLockReadGuard<'_, Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a durable step of authority known.
    pub(crate) fn publish(&self, change: AccessChange) {
        self.access.write().unwrap_or_else(PoisonError::into_inner).apply(change);
    }

    /// Takes over all of a core's authority and heads: when it was opened and everything it holds is durable.
    pub(crate) fn publish_all(&self, core: &Space) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = core.access().clone();
        *self.dag.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(core.dag().clone());
        self.tell();
    }

    /// The ids of the heads.
    pub(crate) fn frontier(&self) -> Vec<EpochId> {
        self.dag.read().unwrap_or_else(PoisonError::into_inner).frontier().collect()
    }

    /// The DAG of the durable epochs, as it is now.
    pub(crate) fn dag(&self) -> Arc<Dag> {
        self.dag.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in the epochs of a commit that the index shows, and wakes who waits for them.
    pub(crate) fn advance(&self, changes: &[Change]) {
        {
            let mut dag = self.dag.write().unwrap_or_else(PoisonError::into_inner);
            let dag = Arc::make_mut(&mut dag);
            for change in changes {
                match change {
                    Change::Epoch(new) => dag.replay(new),
                    Change::Delegation { .. } | Change::Operation(_) | Change::Dead { .. } | Change::Winner { .. } => {}
                }
            }
        }
        self.tell();
    }

    fn tell(&self) {
        self.commits.send_modify(|commits| *commits = commits.wrapping_add(1));
    }

    /// What other hosts are answered from, as it is now.
    pub(crate) fn source(&self) -> SpaceSource {
        SpaceSource::new(self.index.clone(), self.dag())
    }

    /// Waits until these epochs are held, at most so long; then says which are not.
    ///
    /// # Errors
    /// [`IndexError`] when nobody can tell.
    pub(crate) async fn wait_for(
        &self,
        epochs: &[EpochId],
        wait: Duration,
    ) -> Result<Result<(), Vec<EpochId>>, IndexError> {
        // From here on no commit is missed.
        let mut commits = self.commits.subscribe();
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        let mut missing = epochs.to_vec();
        loop {
            let mut lacking = Vec::new();
            for epoch in missing {
                if !self.index.holds_epoch(&epoch)? {
                    lacking.push(epoch);
                }
            }
            missing = lacking;
            if missing.is_empty() {
                return Ok(Ok(()));
            }
            let is_changed = tokio::select! {
                changed = commits.changed() => changed.is_ok(),
                () = &mut over => false,
            };
            if !is_changed {
                return Ok(Err(missing));
            }
        }
    }

    /// Remembers a refused epoch; the oldest of many is forgotten.
    pub(crate) fn refuse(&self, refused: RefusedEpoch) {
        let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.epoch != refused.epoch);
        if all.len() == REFUSED_MAX {
            all.pop_front();
        }
        all.push_back(refused);
    }

    /// The refused epochs that are remembered, newest first.
    pub(crate) fn refused(&self) -> Vec<RefusedEpoch> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    /// How many epochs waited for an ancestor or the clock when peers brought some last.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn note_waiting(&self, epochs: usize) {
        self.waiting.store(epochs as u64, Ordering::Relaxed);
    }

    /// Notes that the space is in use.
    pub(crate) fn touch(&self, tick: u64) {
        self.used.store(tick, Ordering::Relaxed);
    }

    /// When it was last in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, convert::Infallible, path::Path, sync::atomic::AtomicBool};

    use kvspace_protocol::{
        dag::{Inserted, Place},
        id::{Did, HostKey, Incarnation},
        space::NewEpoch,
    };

    use super::*;
    use crate::{
        disk::fake::FakeDisk,
        index::{Durable, Index},
        log::{Log, LogOptions, Position},
        records::{Batch, MemoryStore, Pair, Records, Store, StoreError},
    };

    /// A store that does something once, behind a reader's back.
    struct Meddling {
        inner: MemoryStore,
        is_armed: AtomicBool,
        meddle: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    }

    impl Store for Meddling {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            let found = self.inner.get(key);
            if self.is_armed.swap(false, Ordering::SeqCst) {
                let meddle = self.meddle.lock().unwrap_or_else(PoisonError::into_inner).take();
                meddle.into_iter().for_each(|meddle| meddle());
            }
            found
        }

        fn page(&self, prefix: &[u8], from: &[u8], max: usize) -> Result<Vec<Pair>, StoreError> {
            self.inner.page(prefix, from, max)
        }

        fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
            self.inner.apply(batch)
        }

        fn close(&self) -> Result<(), StoreError> {
            self.inner.close()
        }
    }

    fn hosted() -> (Arc<Hosted>, Arc<Meddling>) {
        let options = LogOptions { disk: Arc::new(FakeDisk::default()), ..LogOptions::default() };
        let log = Log::open(Path::new("/log"), options, |_, _| Ok::<_, Infallible>(())).expect("a log");
        let (meddle, is_armed) = (Mutex::default(), AtomicBool::new(false));
        let store = Arc::new(Meddling { inner: MemoryStore::new(), is_armed, meddle });
        let records = Records::over(store.clone()).expect("records");
        let space = SpaceId::new(&Did::from_ed25519(&[1; 32]), "default").expect("a space id");
        let index = Index::new(records, log.reader()).expect("an index").new_space(&space);
        log.close();
        (Arc::new(Hosted::new(index)), store)
    }

    /// The epoch of this number on the only chain.
    fn epoch(n: u64) -> EpochId {
        EpochId([u8::try_from(n).expect("few"); 32])
    }

    fn commit(hosted: &Hosted, n: u64) {
        let inserted = Inserted { place: Place { branch: 0, n }, base: None, learned: vec![], ended: vec![] };
        let (host, incarnation) = (HostKey([2; 32]), Incarnation([0; 8]));
        let new = NewEpoch { id: epoch(n), seq: n, inserted, host, incarnation, revokes: false };
        let changes = [Change::Epoch(new)];
        let epochs = BTreeMap::from([(epoch(n), Position { segment: 1, offset: 0, length: 1 })]);
        let batches = hosted.index.batches(&Durable { changes: &changes, blobs: &[], epochs: &epochs });
        let records = hosted.index.index().records();
        let room = records.room_blocking(20).expect("room");
        records.begin(Vec::new()).fill(room, batches.expect("the index reads")).expect("filled");
        hosted.advance(&changes);
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_is_held_needs_no_waiting_and_what_is_not_is_named_at_the_deadline() {
        let (hosted, _) = hosted();
        commit(&hosted, 0);
        assert_eq!(hosted.wait_for(&[epoch(0)], Duration::ZERO).await, Ok(Ok(())));
        assert_eq!(
            hosted.wait_for(&[epoch(0), epoch(1), epoch(2)], Duration::ZERO).await,
            Ok(Err(vec![epoch(1), epoch(2)]))
        );
        assert_eq!((hosted.frontier(), hosted.dag().len()), (vec![epoch(0)], 1));
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_the_last_of_several_is_there() {
        let (hosted, _) = hosted();
        let waiting = tokio::spawn({
            let hosted = hosted.clone();
            async move { hosted.wait_for(&[epoch(0), epoch(2)], LONG).await }
        });
        for n in 0..3 {
            while hosted.commits.receiver_count() == 0 {
                tokio::task::yield_now().await;
            }
            assert!(!waiting.is_finished());
            commit(&hosted, n);
        }
        assert_eq!(waiting.await.expect("no panic"), Ok(Ok(())));
    }

    #[tokio::test]
    async fn a_commit_that_comes_while_somebody_looks_is_not_missed() {
        let (hosted, store) = hosted();
        *store.meddle.lock().expect("no panic") = Some(Box::new({
            let hosted = hosted.clone();
            move || commit(&hosted, 0)
        }));
        store.is_armed.store(true, Ordering::SeqCst);
        assert_eq!(hosted.wait_for(&[epoch(0)], LONG).await, Ok(Ok(())));
    }

    #[test]
    fn who_serves_keeps_the_dag_it_had() {
        let (hosted, _) = hosted();
        commit(&hosted, 0);
        let before = hosted.dag();
        commit(&hosted, 1);
        assert_eq!((before.len(), hosted.dag().len()), (1, 2));
        assert_eq!(hosted.frontier(), [epoch(1)]);
    }
}
