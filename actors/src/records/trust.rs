//! Whether the files of an index may be believed: a small file beside them says how they were left.
//!
//! The folder of the index holds `db`, the store, and `state`, one line. The store alone cannot tell whether it is
//! whole: nothing of it is synced while it is open, so a power cut may leave any mixture. The line tells: `closed` was
//! written after everything had been synced; `open` with the id of the present boot means that at most the process
//! was killed, and what it had written is still in the operating system's hands.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::store::StoreError;
use crate::{disk::Disk, failpoint};

/// The format of the index folder that this program writes and reads. Any other is made anew.
const FORMAT: u32 = 2;
/// What stands before the number in the state file.
const WORDS: &str = "kvspace index ";
/// Larger state files are not ours.
const STATE_BYTES_MAX: usize = 256;

/// Why an index was begun anew, as a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// There was nothing.
    #[error("there is no index yet")]
    Nothing,
    /// The machine was started since the index was last open, and it was not closed before.
    #[error("the machine went down while the index was open")]
    OtherBoot,
    /// It went wrong while it was open.
    #[error("the index was found damaged in the last run")]
    Distrusted,
    /// Another release wrote it.
    #[error("the index has format {0}, this kvspace reads format {FORMAT}")]
    OtherFormat(u32),
    /// The state file is missing or says nothing known.
    #[error("nothing says how the index was left")]
    Unknown,
    /// The files are not what was written.
    #[error("the index is damaged: {0}")]
    Damaged(StoreError),
}

/// The state file, and the knowledge of the present boot.
#[derive(Debug)]
pub(super) struct Trust {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    boot_id: Option<String>,
    /// Whether the index was distrusted since it was opened: nothing makes that good.
    distrusted: Mutex<bool>,
}

/// What the state file says of a store that may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Left {
    /// Closed, with this covered mark.
    Closed(String),
    /// Open, and the machine has not been down since.
    Open,
}

impl Trust {
    pub(super) fn new(dir: &Path, disk: Arc<dyn Disk>, boot_id: Option<String>) -> Self {
        Self { dir: dir.to_owned(), disk, boot_id, distrusted: Mutex::new(false) }
    }

    /// Where the store lies.
    pub(super) fn db(&self) -> PathBuf {
        self.dir.join("db")
    }

    /// How the store was left, or why it is not to be believed.
    pub(super) fn read(&self) -> Result<Left, Reason> {
        match self.state() {
            Ok(text) => self.judge(&text),
            Err(_) if self.db().exists() => Err(Reason::Unknown),
            Err(_) => Err(Reason::Nothing),
        }
    }

    fn state(&self) -> io::Result<String> {
        let file = self.disk.open(&self.dir.join("state"))?;
        let mut bytes = vec![0; STATE_BYTES_MAX];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        String::from_utf8(bytes).map_err(io::Error::other)
    }

    fn judge(&self, text: &str) -> Result<Left, Reason> {
        let line = text.strip_prefix(WORDS).and_then(|rest| rest.strip_suffix('\n')).ok_or(Reason::Unknown)?;
        let mut words = line.split(' ');
        let format = words.next().and_then(|number| number.parse::<u32>().ok()).ok_or(Reason::Unknown)?;
        if format != FORMAT {
            return Err(Reason::OtherFormat(format));
        }
        match (words.next(), words.next(), words.next()) {
            (Some("closed"), Some(mark), None) => Ok(Left::Closed(mark.to_owned())),
            (Some("open"), Some(boot), None) if self.boot_id.as_deref() == Some(boot) => Ok(Left::Open),
            (Some("open"), Some(_), None) => Err(Reason::OtherBoot),
            (Some("distrusted"), None, None) => Err(Reason::Distrusted),
            _ => Err(Reason::Unknown),
        }
    }

    /// Says durably that the store is open.
    pub(super) fn open(&self) -> io::Result<()> {
        self.say(&format!("open {}", self.boot_id.as_deref().unwrap_or("unknown")))
    }

    /// Says durably that the store was closed and synced with this covered mark, unless it is distrusted.
    pub(super) fn closed(&self, mark: Option<&[u8]>) -> io::Result<()> {
        self.say(&format!("closed {}", spelled(mark)))
    }

    /// Says durably that the store is not to be believed at the next start.
    pub(super) fn distrust(&self) {
        let mut distrusted = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        if !*distrusted {
            *distrusted = true;
            if let Err(error) = self.write("distrusted") {
                tracing::error!(dir = %self.dir.display(), %error, "cannot write that the index is damaged");
            }
        }
    }

    fn say(&self, what: &str) -> io::Result<()> {
        let distrusted = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        if *distrusted { Ok(()) } else { self.write(what) }
    }

    fn write(&self, what: &str) -> io::Result<()> {
        let (new, state) = (self.dir.join("state.new"), self.dir.join("state"));
        let file = self.disk.create(&new)?;
        file.write_at(format!("{WORDS}{FORMAT} {what}\n").as_bytes(), 0)?;
        file.sync()?;
        self.disk.rename(&new, &state)?;
        self.disk.sync_dir(&self.dir)
    }

    /// Removes the store's files. They are put aside first, all at once: half of them would be a store that nobody can
    /// tell from a whole one. Nobody reads them again, and the new store may need their room.
    pub(super) fn remove(&self) -> io::Result<()> {
        let db = self.db();
        if db.exists() {
            self.say("distrusted")?;
            failpoint::reached("index.aside.said");
            self.remove_aside()?;
            self.disk.rename(&db, &self.aside())?;
            failpoint::reached("index.aside.moved");
            self.disk.sync_dir(&self.dir)?;
        }
        self.remove_aside()
    }

    /// Removes what was put aside and has outlived its process or a power cut.
    pub(super) fn remove_aside(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.aside()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn aside(&self) -> PathBuf {
        self.dir.join("db.aside")
    }
}

/// A covered mark as the state file spells it: enough to tell whether the store has gone back behind it.
pub(super) fn spelled(mark: Option<&[u8]>) -> String {
    mark.map_or_else(|| "empty".to_owned(), |mark| blake3::hash(mark).to_hex()[..32].to_owned())
}

/// The id of the machine's present boot, if the operating system tells.
pub(super) fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = id.trim();
    let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    plain.then(|| id.to_owned())
}
