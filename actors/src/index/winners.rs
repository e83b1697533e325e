//! Every value that a space shows.

use super::{IndexError, SpaceIndex, Stored, format::Entry};

impl SpaceIndex {
    /// The live values with the keys they win, in byte order of key.
    pub(crate) fn winners(&self) -> impl Iterator<Item = Result<Stored, IndexError>> {
        let prefix = self.names.entries();
        self.index.records.scan(&prefix, &prefix).filter_map(move |record| {
            let winner = record.and_then(|(name, value)| {
                let key = std::str::from_utf8(&name[prefix.len()..]);
                let key = key.map_err(|_| IndexError::new("the index has a key that is no text"))?;
                Ok(Entry::decode(key, &value)?.winner)
            });
            winner.transpose().filter(|won| won.as_ref().map_or(true, |won| won.operation.effect.value().is_some()))
        })
    }
}
