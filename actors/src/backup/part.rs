//! The parts of a backup: their names, which are nothing else, and their order.

use std::{fmt, path::PathBuf};

use kvspace_protocol::id::BlobHash;

use crate::{blobs, log};

/// One file of a backup. Parts sort in the order in which they stand in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The format of the data folder.
    Format,
    /// The node's key.
    Key,
    /// A file of the log.
    Segment(u32),
    /// A large value.
    Blob(BlobHash),
    /// The mark at the end.
    Complete,
}

impl Part {
    /// Its path within the backup, parts separated by `/`.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Format => "format".to_owned(),
            Self::Key => "node.key".to_owned(),
            Self::Segment(number) => format!("log/{}", log::file_name(*number)),
            Self::Blob(hash) => blobs::file_of(&PathBuf::from("blobs"), hash).display().to_string(),
            Self::Complete => "backup-complete".to_owned(),
        }
    }

    /// The part of this path; `None` if no part is spelled so.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        let part = match path.split('/').next()? {
            "format" => Self::Format,
            "node.key" => Self::Key,
            "log" => Self::Segment(name.strip_suffix(".seg")?.parse().ok().filter(|number| *number > 0)?),
            "blobs" => Self::Blob(BlobHash(*blake3::Hash::from_hex(name).ok()?.as_bytes())),
            "backup-complete" => Self::Complete,
            _ => return None,
        };
        (part.path() == path).then_some(part)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_part_only_if_it_is_spelled_as_one() {
        let blob = Part::Blob(BlobHash::of(b"value"));
        let parts = [Part::Format, Part::Key, Part::Segment(1), Part::Segment(123), blob.clone(), Part::Complete];
        for part in &parts {
            assert_eq!(Part::parse(&part.path()).as_ref(), Some(part));
        }
        assert!(parts.is_sorted());
        let hash = blob.path().rsplit('/').next().map(str::to_owned).expect("a name");
        for path in [
            "",
            "/format",
            "./format",
            "../format",
            "format/",
            "log",
            "log/1.seg",
            "log/00000000.seg",
            "log/../00000001.seg",
            "log//00000001.seg",
            "log/00000001.seg.new",
            "index/state",
            "lock",
            &format!("blobs/{hash}"),
            &format!("blobs/zz/{hash}"),
            &format!("blobs/{}/{}", &hash[..2], hash.to_uppercase()),
        ] {
            assert_eq!(Part::parse(path), None, "{path}");
        }
    }
}
