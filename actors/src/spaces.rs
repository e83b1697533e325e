//! The spaces that are in memory: opened when they are asked for, put to rest when there are too many.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use kvspace_protocol::id::SpaceId;
use tokio::sync::{Mutex, MutexGuard};

use crate::{hosted::Hosted, index::Index, messages::Rest, node::NodeError, registry::Registry};

/// Spaces of which one after the other is opened or made.
const LANES: usize = 64;

/// The hosted spaces. Those in memory are few; the index knows all.
pub(crate) struct Spaces {
    index: Index,
    active_max: usize,
    active: RwLock<BTreeMap<SpaceId, Arc<Hosted>>>,
    /// Whoever holds a space's lane is the only one to bring it into memory.
    lanes: [Mutex<()>; LANES],
    tick: AtomicU64,
}

impl Spaces {
    /// All are at rest at first.
    pub(crate) fn new(index: Index, active_max: usize) -> Self {
        let lanes = std::array::from_fn(|_| Mutex::new(()));
        Self { index, active_max, active: RwLock::default(), lanes, tick: AtomicU64::new(0) }
    }

    /// A hosted space; `None` if it is not hosted here.
    pub(crate) async fn get(&self, id: &SpaceId, registry: &Registry) -> Result<Option<Arc<Hosted>>, NodeError> {
        if let Some(hosted) = self.active(id) {
            return Ok(Some(hosted));
        }
        if self.index.space(id)?.is_none() {
            return Ok(None);
        }
        let lane = self.lane(id).await;
        self.open(&lane, id, registry).await
    }

    /// As [`Spaces::get`], for who holds the lane.
    pub(crate) async fn open(
        &self,
        _lane: &MutexGuard<'_, ()>,
        id: &SpaceId,
        registry: &Registry,
    ) -> Result<Option<Arc<Hosted>>, NodeError> {
        if let Some(hosted) = self.active(id) {
            return Ok(Some(hosted));
        }
        let Some(index) = self.index.space(id)? else { return Ok(None) };
        let core = registry.open_core(index.clone()).await?;
        let hosted = Arc::new(Hosted::opened(index, core));
        self.insert(hosted.clone());
        Ok(Some(hosted))
    }

    /// The right to bring this space into memory.
    pub(crate) async fn lane(&self, id: &SpaceId) -> MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        self.lanes[(hash % LANES as u64) as usize].lock().await
    }

    /// Takes a space in, and puts those to rest that nobody has used for longest.
    pub(crate) fn insert(&self, hosted: Arc<Hosted>) {
        hosted.touch(self.tick.fetch_add(1, Ordering::Relaxed));
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        active.insert(hosted.id.clone(), hosted);
        // An eighth at a time, so that not every newcomer looks at all.
        if active.len() <= self.active_max + self.active_max / 8 {
            return;
        }
        let mut by_use: Vec<_> = active.values().map(|hosted| (hosted.used(), hosted.id.clone())).collect();
        by_use.sort_unstable();
        let many = active.len() - self.active_max;
        for (_, id) in by_use.into_iter().take(many) {
            // Nobody else has it, and nobody can get it while the map is locked.
            let is_unused = active.get(&id).is_some_and(|hosted| Arc::strong_count(hosted) == 1);
            if is_unused {
                active.remove(&id);
            } else if let Some(hosted) = active.get(&id) {
                rest(hosted);
            }
        }
    }

    /// Whether a space is in memory.
    pub(crate) fn is_active(&self, id: &SpaceId) -> bool {
        self.active.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// A space that is in memory; nobody's use of it.
    pub(crate) fn if_in_memory(&self, id: &SpaceId) -> Option<Arc<Hosted>> {
        self.active.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Those in memory.
    pub(crate) fn in_memory(&self) -> Vec<Arc<Hosted>> {
        self.active.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How many are in memory.
    pub(crate) fn active_count(&self) -> usize {
        self.active.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn active(&self, id: &SpaceId) -> Option<Arc<Hosted>> {
        let hosted = self.active.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()?;
        hosted.touch(self.tick.fetch_add(1, Ordering::Relaxed));
        Some(hosted)
    }
}

/// Asks an idle actor to end; whoever is about to use it keeps it.
fn rest(hosted: &Hosted) {
    if let Ok(slot) = hosted.actor.try_lock()
        && let Some(addr) = slot.as_ref()
    {
        drop(addr.try_send(Rest));
    }
}
