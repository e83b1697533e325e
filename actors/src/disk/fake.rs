//! A disk for tests: in memory, with a live image that a process sees and a durable one that a power cut leaves.
//!
//! It fails the way real ones do. In particular a failed sync drops what it should have made durable: the process goes
//! on reading its bytes, a later sync reports success, and only writing them again can save them.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use super::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

/// One thing that happened, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Write(String),
    Sync(String),
    SyncDir,
    /// What a test wants to see among the rest.
    Note(u32),
}

/// What is to go wrong next with a file whose name ends so. It happens once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Sync(&'static str),
    /// Half of the bytes are written.
    Write(&'static str),
    Rename(&'static str),
    SyncDir,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FakeDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<FileState>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    capacity_bytes: Option<u64>,
    /// Whether writes meet the capacity and nobody is told beforehand, as with a quota.
    capacity_hidden: bool,
    asked: Option<SyncSender<()>>,
    faults: Vec<Fault>,
    events: Vec<Event>,
    /// Every state there was since a test began to watch.
    moments: Option<Vec<FakeDisk>>,
}

#[derive(Debug, Default, Clone)]
struct FileState {
    name: String,
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Bytes that no read gives back.
    unreadable: Range<usize>,
}

struct FakeFile {
    state: Arc<Mutex<State>>,
    id: usize,
    is_writable: bool,
}

impl FakeDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fail_next(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    pub(crate) fn set_quota(&self, bytes: Option<u64>) {
        self.set_capacity(bytes);
        self.state().capacity_hidden = true;
    }

    /// Hears of every question for free room, after it was answered.
    pub(crate) fn questions(&self) -> Receiver<()> {
        let (tell, told) = sync_channel(1024);
        self.state().asked = Some(tell);
        told
    }

    pub(crate) fn note(&self, note: u32) {
        self.state().events.push(Event::Note(note));
    }

    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.state().events)
    }

    /// What a process sees in this file.
    pub(crate) fn content(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.files[state.live[path]].live.clone()
    }

    /// Has every read fail that meets one of these bytes of a file.
    pub(crate) fn make_unreadable(&self, path: &Path, bytes: Range<usize>) {
        let mut state = self.state();
        let id = state.live[path];
        state.files[id].unreadable = bytes;
    }

    pub(crate) fn names(&self) -> Vec<PathBuf> {
        self.state().live.keys().cloned().collect()
    }

    /// What a process sees: every file and its content.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state();
        state.live.iter().map(|(path, id)| (path.clone(), state.files[*id].live.clone())).collect()
    }

    /// Keeps from now on what the disk is after each change.
    pub(crate) fn watch(&self) {
        self.state().moments = Some(Vec::new());
    }

    /// The disk after each change since [`Self::watch`], and watches no more.
    pub(crate) fn take_moments(&self) -> Vec<Self> {
        self.state().moments.take().unwrap_or_default()
    }

    /// Puts a file there, durably.
    pub(crate) fn put(&self, path: &Path, content: &[u8]) {
        let mut state = self.state();
        let id = state.add(path);
        state.files[id].live = content.to_vec();
        state.files[id].durable = content.to_vec();
        state.durable.insert(path.to_owned(), id);
    }

    /// A copy of what a process sees, as after the process was killed. Pages that were lost by a failed sync stay lost.
    pub(crate) fn killed(&self) -> Self {
        self.state().copy()
    }

    /// What a power cut leaves: what was synced, and of the rest any sectors and names, as `coin` falls.
    pub(crate) fn power_cut(&self, mut coin: impl FnMut() -> bool) -> Self {
        let state = self.state();
        let left = Self::default();
        let mut names = state.durable.clone();
        for (path, id) in &state.live {
            if state.durable.get(path) != Some(id) && coin() {
                names.retain(|_, other| other != id);
                names.insert(path.clone(), *id);
            }
        }
        for (path, id) in names {
            let file = &state.files[id];
            let mut content = file.durable.clone();
            for (offset, bytes) in &file.unsynced {
                for (i, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    if coin() {
                        place(&mut content, offset + i * SECTOR_BYTES, sector);
                    }
                }
            }
            left.put(&path, &content);
        }
        left
    }
}

impl State {
    fn add(&mut self, path: &Path) -> usize {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.files.push(FileState { name, ..FileState::default() });
        self.live.insert(path.to_owned(), self.files.len() - 1);
        self.files.len() - 1
    }

    fn copy(&self) -> FakeDisk {
        let copy = Self {
            files: self.files.clone(),
            live: self.live.clone(),
            durable: self.durable.clone(),
            ..Self::default()
        };
        FakeDisk { state: Arc::new(Mutex::new(copy)) }
    }

    fn changed(&mut self) {
        if self.moments.is_some() {
            let moment = self.copy();
            self.moments.iter_mut().for_each(|moments| moments.push(moment.clone()));
        }
    }

    fn fails(&mut self, is: impl Fn(Fault) -> bool) -> bool {
        let found = self.faults.iter().position(|fault| is(*fault));
        found.is_some_and(|at| {
            self.faults.remove(at);
            true
        })
    }

    fn free_bytes(&self) -> u64 {
        let used = self.live.values().map(|id| self.files[*id].live.len() as u64).sum::<u64>();
        self.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(used))
    }
}

fn place(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset..end].copy_from_slice(bytes);
}

fn broken() -> io::Error {
    io::Error::other("the disk is broken")
}

impl Disk for FakeDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let id = state.add(path);
        state.changed();
        Ok(Arc::new(FakeFile { state: Arc::clone(&self.state), id, is_writable: true }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let id = *self.state().live.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FakeFile { state: Arc::clone(&self.state), id, is_writable: true }))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let id = *self.state().live.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FakeFile { state: Arc::clone(&self.state), id, is_writable: false }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let name = to.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if state.fails(|fault| matches!(fault, Fault::Rename(end) if name.ends_with(end))) {
            return Err(broken());
        }
        let id = state.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files[id].name = name;
        state.live.insert(to.to_owned(), id);
        state.changed();
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.live.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.changed();
        Ok(())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.fails(|fault| fault == Fault::SyncDir) {
            return Err(broken());
        }
        state.events.push(Event::SyncDir);
        let inside = |name: &Path| name.parent() == Some(path);
        state.durable.retain(|name, _| !inside(name));
        let live: Vec<_> = state.live.iter().filter(|(name, _)| inside(name)).map(|(n, id)| (n.clone(), *id)).collect();
        state.durable.extend(live);
        state.changed();
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state.live.keys().filter(|name| name.parent() == Some(path));
        Ok(inside.filter_map(|name| Some(name.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let state = self.state();
        let free = if state.capacity_hidden { u64::MAX } else { state.free_bytes() };
        if let Some(asked) = &state.asked {
            asked.send(()).ok();
        }
        Ok(free)
    }
}

impl FakeFile {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskFile for FakeFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state();
        let FileState { live, unreadable, .. } = &state.files[self.id];
        let rest = live.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        if unreadable.start.max(offset as usize) < unreadable.end.min(offset as usize + read) {
            return Err(broken());
        }
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert!(self.is_writable, "opened for reading");
        let mut state = self.state();
        let name = state.files[self.id].name.clone();
        state.events.push(Event::Write(name.clone()));
        let file = &state.files[self.id];
        let growth = (offset as usize + bytes.len()).saturating_sub(file.live.len());
        if growth as u64 > state.free_bytes() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let torn = state.fails(|fault| matches!(fault, Fault::Write(end) if name.ends_with(end)));
        let bytes = if torn { &bytes[..bytes.len() / 2] } else { bytes };
        let file = &mut state.files[self.id];
        place(&mut file.live, offset as usize, bytes);
        file.unsynced.push((offset as usize, bytes.to_vec()));
        state.changed();
        if torn { Err(broken()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        let name = state.files[self.id].name.clone();
        let failed = state.fails(|fault| matches!(fault, Fault::Sync(end) if name.ends_with(end)));
        let file = &mut state.files[self.id];
        let unsynced = std::mem::take(&mut file.unsynced);
        if failed {
            return Err(broken());
        }
        for (offset, bytes) in unsynced {
            place(&mut file.durable, offset, &bytes);
        }
        state.events.push(Event::Sync(name));
        state.changed();
        Ok(())
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.state().files[self.id].live.len() as u64)
    }
}
