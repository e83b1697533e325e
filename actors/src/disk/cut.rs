//! A disk for tests of a whole node: real files in a folder, and the knowledge of what a power cut would leave of them.
//!
//! Nothing is really synced: what was synced is kept in memory. The index's store (`index/db`) writes its files itself;
//! of those a sync keeps the content as it is then, and a cut mixes that with the content of its own moment.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{RngExt as _, rngs::StdRng};

use super::{Disk, DiskFile, OsDisk};

/// The log's next file, and how long a piece of it takes: in real life it is large, and commits go on meanwhile.
const SPARE: &str = "next.zeros";
const SPARE_TIME: Duration = Duration::from_millis(5);

/// What survives of what was never synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsynced {
    /// Nothing.
    Lost,
    /// Any blocks of this size, any names.
    Mixed(usize),
}

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trouble {
    /// Bytes the files may take.
    pub(crate) capacity_bytes: Option<u64>,
    /// Whether nobody hears of the capacity before a write meets it, as with a quota.
    pub(crate) is_hidden: bool,
    /// Whether each sync fails, and loses what it should have made durable.
    pub(crate) syncs_fail: bool,
}

/// What is called before the operation at which the power is cut.
type AtCut = Box<dyn FnOnce(&State) + Send>;

/// What a cut waits for before it counts operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum During {
    /// A segment is being written anew.
    Compaction,
    /// A segment has just been begun.
    Roll,
}

/// A cut to come.
struct Armed {
    operations: u64,
    during: Option<During>,
    at_cut: AtCut,
}

#[derive(Clone)]
pub(crate) struct CutDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    root: PathBuf,
    files: Vec<Known>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    /// The store's own files: content by inode, and names, as they were last synced.
    store_content: BTreeMap<u64, Vec<u8>>,
    store_names: BTreeMap<PathBuf, u64>,
    armed: Option<Armed>,
    trouble: Trouble,
    /// Whether a segment was begun since a cut was armed.
    rolled: bool,
}

/// A file that is written through the seam.
#[derive(Default)]
struct Known {
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    size: usize,
}

struct CutFile {
    disk: CutDisk,
    real: Arc<dyn DiskFile>,
    path: PathBuf,
    id: Option<usize>,
}

impl CutDisk {
    /// What lies in this folder is durable.
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let mut state = State { root: root.to_owned(), ..State::default() };
        for path in files(root)? {
            let content = fs::read(&path)?;
            if is_of_the_store(&path) {
                let inode = fs::metadata(&path)?.ino();
                state.store_content.insert(inode, content);
                state.store_names.insert(path, inode);
            } else {
                let id = state.add(&path);
                state.files[id] = Known { size: content.len(), durable: content, unsynced: Vec::new() };
                state.durable.insert(path, id);
            }
        }
        Ok(Self { state: Arc::new(Mutex::new(state)) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state before an operation that changes something.
    fn step(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        if let Some(armed) = &state.armed {
            let (operations, during) = (armed.operations, armed.during);
            let counts = match during {
                None => true,
                Some(During::Compaction) => state.compacts(),
                Some(During::Roll) => state.rolled,
            };
            if counts && operations == 0 {
                state.cut();
            } else if counts && let Some(armed) = &mut state.armed {
                armed.operations -= 1;
            }
        }
        state
    }

    /// Calls `at_cut` before the operation after so many.
    pub(crate) fn arm(&self, operations: u64, during: Option<During>, at_cut: impl FnOnce(&State) + Send + 'static) {
        let mut state = self.state();
        state.rolled = false;
        state.armed = Some(Armed { operations, during, at_cut: Box::new(at_cut) });
    }

    /// Calls it now, if it was not called yet.
    pub(crate) fn cut_now(&self) {
        self.state().cut();
    }

    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        self.state().trouble = trouble;
    }

    /// What the files take, but for those of the store.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }
}

impl State {
    fn add(&mut self, path: &Path) -> usize {
        self.files.push(Known::default());
        self.live.insert(path.to_owned(), self.files.len() - 1);
        self.files.len() - 1
    }

    fn cut(&mut self) {
        if let Some(armed) = self.armed.take() {
            (armed.at_cut)(self);
        }
    }

    fn used_bytes(&self) -> u64 {
        self.live.values().map(|id| self.files[*id].size as u64).sum()
    }

    fn free_bytes(&self) -> u64 {
        self.trouble.capacity_bytes.map_or(1 << 50, |capacity| capacity.saturating_sub(self.used_bytes()))
    }

    /// Whether a segment is being written anew.
    pub(crate) fn compacts(&self) -> bool {
        self.live.keys().any(|path| path.to_string_lossy().ends_with(".seg.new"))
    }

    /// Puts what a power cut leaves into another folder.
    pub(crate) fn leave(&self, to: &Path, unsynced: Unsynced, random: &mut StdRng) -> io::Result<()> {
        let chance = [0.1, 0.5, 0.9, 0.995][random.random_range(0..4)];
        let mut coin = || unsynced != Unsynced::Lost && random.random_bool(chance);
        let block = match unsynced {
            Unsynced::Lost => 512,
            Unsynced::Mixed(bytes) => bytes,
        };
        let mut names = self.durable.clone();
        for (path, id) in &self.live {
            if self.durable.get(path) != Some(id) && coin() {
                names.retain(|_, other| other != id);
                names.insert(path.clone(), *id);
            }
        }
        let lives = |id: &usize| self.live.values().any(|other| other == id);
        // A name that was given to another file is one of both; only what was removed may be gone.
        names.retain(|path, id| self.live.contains_key(path) || lives(id) || !coin());
        for (path, id) in names {
            let known = &self.files[id];
            let mut content = known.durable.clone();
            for (offset, bytes) in &known.unsynced {
                for (i, piece) in bytes.chunks(block).enumerate() {
                    if coin() {
                        place(&mut content, offset + i * block, piece);
                    }
                }
            }
            self.write(to, &path, &content)?;
        }
        copy_folders(&self.root, to)?;
        // The data folder makes its own files durable.
        for path in files(&self.root)? {
            if path.parent() == Some(&self.root) {
                self.write(to, &path, &fs::read(&path)?)?;
            }
        }
        let mut present = BTreeMap::new();
        for path in files(&self.root)?.into_iter().filter(|path| is_of_the_store(path)) {
            present.insert(path.clone(), fs::metadata(&path)?.ino());
        }
        let mut names = self.store_names.clone();
        for (path, inode) in &present {
            if names.get(path) != Some(inode) && coin() {
                names.insert(path.clone(), *inode);
            }
        }
        names.retain(|path, _| present.contains_key(path) || !coin());
        for (path, inode) in names {
            let durable = self.store_content.get(&inode).cloned().unwrap_or_default();
            let now = if present.get(&path) == Some(&inode) { fs::read(&path)? } else { durable.clone() };
            let mut content = durable;
            for (i, piece) in now.chunks(block).enumerate() {
                let at = i * block;
                if content.get(at..at + piece.len()) != Some(piece) && coin() {
                    place(&mut content, at, piece);
                }
            }
            self.write(to, &path, &content)?;
        }
        Ok(())
    }

    fn write(&self, to: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
        let path = to.join(path.strip_prefix(&self.root).map_err(io::Error::other)?);
        fs::create_dir_all(path.parent().unwrap_or(to))?;
        fs::write(path, content)
    }
}

fn place(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset..end].copy_from_slice(bytes);
}

/// Whether the index's store writes this file itself.
fn is_of_the_store(path: &Path) -> bool {
    let inside = path.components().any(|part| matches!(part.as_os_str().to_str(), Some("db" | "db.aside")));
    inside && !path.ends_with("written") && path.file_name().is_some()
}

/// Makes the same folders; one that is missing says no more than an empty one.
fn copy_folders(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            copy_folders(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Every file beneath a folder; what vanishes meanwhile is left out.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return Ok(found) };
    for entry in entries {
        let path = entry?.path();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => found.extend(files(&path)?),
            Ok(_) => found.push(path),
            Err(_) => {}
        }
    }
    Ok(found)
}

fn broken() -> io::Error {
    io::Error::other("the disk is broken")
}

impl Disk for CutDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.step();
        // A new inode: who has the former one open keeps it.
        fs::remove_file(path).ok();
        let real = OsDisk.create(path)?;
        let id = Some(state.add(path));
        Ok(Arc::new(CutFile { disk: self.clone(), real, path: path.to_owned(), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        let real = OsDisk.open(path)?;
        let id = state.live.get(path).copied();
        Ok(Arc::new(CutFile { disk: self.clone(), real, path: path.to_owned(), id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step();
        fs::rename(from, to)?;
        state.rolled |= from.ends_with(SPARE);
        // A folder takes along what is in it. That counts as durable at once: its only use syncs right behind it.
        let moved = |path: &PathBuf| {
            path.strip_prefix(from)
                .ok()
                .map(|rest| if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) })
        };
        let is_dir = to.is_dir();
        let State { live, durable, store_names, .. } = &mut *state;
        *live = std::mem::take(live).into_iter().map(|(path, id)| (moved(&path).unwrap_or(path), id)).collect();
        if is_dir {
            *durable =
                std::mem::take(durable).into_iter().map(|(path, id)| (moved(&path).unwrap_or(path), id)).collect();
            *store_names =
                std::mem::take(store_names).into_iter().map(|(path, id)| (moved(&path).unwrap_or(path), id)).collect();
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step();
        fs::remove_file(path)?;
        state.live.remove(path);
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step();
        if state.trouble.syncs_fail {
            return Err(broken());
        }
        let inside = |name: &Path| name.parent() == Some(path);
        state.durable.retain(|name, _| !inside(name));
        let live: Vec<_> = state.live.iter().filter(|(name, _)| inside(name)).map(|(n, id)| (n.clone(), *id)).collect();
        state.durable.extend(live);
        state.store_names.retain(|name, _| !inside(name));
        for name in fs::read_dir(path)? {
            let name = name?.path();
            if is_of_the_store(&name) && name.is_file() {
                let inode = fs::metadata(&name)?.ino();
                state.store_names.insert(name, inode);
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(path)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(if state.trouble.is_hidden { 1 << 50 } else { state.free_bytes() })
    }
}

impl DiskFile for CutFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.real.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.step();
        let id = self.id.ok_or_else(|| io::Error::other("the store writes its files itself"))?;
        let end = offset as usize + bytes.len();
        let growth = end.saturating_sub(state.files[id].size) as u64;
        if growth > state.free_bytes() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.real.write_at(bytes, offset)?;
        let known = &mut state.files[id];
        known.size = known.size.max(end);
        known.unsynced.push((offset as usize, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.path.ends_with(SPARE) {
            std::thread::sleep(SPARE_TIME);
        }
        let mut state = self.disk.step();
        let fails = state.trouble.syncs_fail;
        match self.id {
            Some(id) => {
                let known = &mut state.files[id];
                for (offset, bytes) in std::mem::take(&mut known.unsynced) {
                    if !fails {
                        place(&mut known.durable, offset, &bytes);
                    }
                }
            }
            None if !fails => {
                let inode = fs::metadata(&self.path)?.ino();
                state.store_content.insert(inode, fs::read(&self.path)?);
            }
            None => {}
        }
        if fails { Err(broken()) } else { Ok(()) }
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.real.size_bytes()
    }
}

impl fmt::Debug for CutDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CutDisk").field("root", &self.state().root).finish_non_exhaustive()
    }
}
