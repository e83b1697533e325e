//! Which spaces broken bytes of the log belong to, as far as they still tell.

use std::{collections::BTreeSet, fs::File, os::unix::fs::FileExt as _, path::Path};

use kvspace_protocol::id::SpaceId;

/// Bytes looked at behind a broken place.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Spaces that are named.
const SPACES_MAX: usize = 100;
/// Every space id begins so.
const BEGINNING: &[u8] = b"tinycloud:";
/// From the length of the space id in an epoch's record to the id: that length, the header's, the signature.
const LENGTH_BEFORE: usize = 2 + 4 + 64;

/// The spaces named by what is left of epochs in this part of a file.
pub(super) fn spaces_in(path: &Path, offset: u32, length: u32) -> BTreeSet<SpaceId> {
    let mut bytes = vec![0; (length as usize).min(READ_BYTES_MAX)];
    let read = File::open(path).and_then(|file| file.read_at(&mut bytes, u64::from(offset)));
    named_in(&bytes[..read.unwrap_or_default()])
}

fn named_in(bytes: &[u8]) -> BTreeSet<SpaceId> {
    let mut spaces = BTreeSet::new();
    for at in LENGTH_BEFORE..bytes.len() {
        if spaces.len() < SPACES_MAX && bytes[at..].starts_with(BEGINNING) {
            let length = [bytes[at - LENGTH_BEFORE], bytes[at - LENGTH_BEFORE + 1]];
            let text = bytes.get(at..at + usize::from(u16::from_le_bytes(length)));
            let text = text.and_then(|text| std::str::from_utf8(text).ok());
            spaces.extend(text.and_then(|text| text.parse::<SpaceId>().ok()));
        }
    }
    spaces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_an_epoch_names_its_space() {
        let space = "tinycloud:pkh:eip155:1:0x71C7656EC7ab88b098defB751B7401B5f6d8976F:default";
        let length = u16::try_from(space.len()).expect("short").to_le_bytes();
        let epoch = [&[9; 33][..], &length, &[7; 68], space.as_bytes(), b"header and body"].concat();
        assert_eq!(named_in(&epoch), BTreeSet::from([space.parse().expect("an id")]));
        assert_eq!(named_in(&epoch[40..]), BTreeSet::new());
        assert_eq!(named_in(&epoch[..150]), BTreeSet::new());
    }
}
