//! The mark at the end of a backup: how much there is before it, and a digest of it.

use super::part::Part;

/// What a mark begins with: the format of backups.
const WORDS: &str = "kvspace backup 1\n";
/// No mark is longer.
pub(super) const MARK_BYTES_MAX: u64 = 1024;

/// What the mark says, as it grows.
#[derive(Debug, Clone, Default)]
pub(super) struct Digest {
    parts: u64,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl Digest {
    /// Adds the next part, by the hash of its bytes.
    pub(super) fn add(&mut self, part: &Part, size_bytes: u64, hash: &[u8; 32]) {
        self.parts += 1;
        self.bytes += size_bytes;
        let path = part.path();
        self.hasher.update(&(path.len() as u64).to_le_bytes());
        self.hasher.update(path.as_bytes()).update(&size_bytes.to_le_bytes()).update(hash);
    }

    /// The mark of what was added.
    pub(super) fn mark(&self) -> String {
        format!("{WORDS}parts {}\nbytes {}\nblake3 {}\n", self.parts, self.bytes, self.hasher.finalize())
    }

    /// Whether this is the mark of a backup of another format.
    pub(super) fn is_of_other_format(mark: &str) -> bool {
        mark.starts_with("kvspace backup ") && !mark.starts_with(WORDS)
    }
}
