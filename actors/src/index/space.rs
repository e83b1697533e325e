//! The index of one space, for reading.

use std::collections::{BTreeMap, BTreeSet};

use kvspace_protocol::{
    dag::Place,
    id::{Address, BlobHash, Did, EpochId, Identity, Key, Millis, SpaceId},
    kv::{Effect, Operation, Value, Version},
    limits::INLINE_BYTES_MAX,
    space::{DeadReason, EpochAt, View, ViewError},
};

use super::{
    Index, IndexError, Summary,
    format::{self, DeadRecord, Entry, EpochRecord, PlaceRecord, Stored},
    keys::{InSpace, RUN_EPOCHS, Rest},
};
use crate::log::Position;

/// The index of one space. Clones are the same.
#[derive(Clone)]
pub(crate) struct SpaceIndex {
    pub(super) index: Index,
    pub(super) id: SpaceId,
    pub(super) names: InSpace,
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It wins its key.
    Wins,
    /// It does not, since `at`.
    Lost {
        /// Since when.
        at: Millis,
        /// Who wins; none when all are void.
        winner: Option<Box<Stored>>,
    },
    /// The index does not know it: it is dead.
    Unknown,
}

/// A write that was unsound for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeadWrite {
    /// The version it would have had.
    pub(crate) version: Version,
    /// Where its epoch stands.
    pub(crate) place: Place,
    /// Why.
    pub(crate) reason: DeadReason,
}

/// Which keys to read.
pub(crate) struct PageQuery<'a> {
    /// The first key to look at.
    pub(crate) from: &'a str,
    /// Keys must begin with this.
    pub(crate) prefix: &'a str,
    /// Which keys to take.
    pub(crate) wanted: &'a (dyn Fn(&str) -> bool + Sync),
    /// Take at most so many.
    pub(crate) take_max: usize,
    /// Look at no more than so many.
    pub(crate) look_max: usize,
}

/// The keys of one look at the index.
#[derive(Debug, Clone, Default)]
pub(crate) struct PageOfKeys {
    /// The keys, ascending.
    pub(crate) keys: Vec<Key>,
    /// Whether one more was found than was to be taken.
    pub(crate) has_more: bool,
    /// Where to go on if not everything was looked at.
    pub(crate) next: Option<Key>,
}

impl SpaceIndex {
    pub(super) fn new(index: Index, id: SpaceId, number: u32) -> Self {
        Self { index, id, names: InSpace(number) }
    }

    /// The space.
    pub(crate) fn id(&self) -> &SpaceId {
        &self.id
    }

    /// Its number in this index.
    pub(crate) fn number(&self) -> u32 {
        self.names.0
    }

    /// The index of the whole node.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// The operation that wins a key, with its stored headers.
    pub(crate) fn find(&self, key: &str) -> Result<Option<Stored>, IndexError> {
        self.entry(key)?.winner.map(|stored| self.with_meta(stored)).transpose()
    }

    /// What is known of a token's operation of this version on a key.
    pub(crate) fn fate(&self, key: &str, identity: &Identity, version: &Version) -> Result<Fate, IndexError> {
        // The entry first: what loses goes to the history in the same step. What wins again leaves it in one step too, so
        // what is found in neither is unknown only if the entry has stayed the same.
        let mut entry = self.entry(key)?;
        loop {
            if entry.winner.as_ref().is_some_and(|winner| winner.operation.version == *version) {
                return Ok(Fate::Wins);
            }
            if let Some(stored) = self.lost(key, identity, version)? {
                return Ok(Fate::Lost { at: stored.lost_at, winner: entry.winner.map(Box::new) });
            }
            let again = self.entry(key)?;
            if again == entry {
                return Ok(Fate::Unknown);
            }
            entry = again;
        }
    }

    /// Whether an epoch is held.
    pub(crate) fn holds_epoch(&self, id: &EpochId) -> Result<bool, IndexError> {
        Ok(self.index.records.get(&self.names.epoch(id))?.is_some())
    }

    /// Whether the log holds the bytes of a delegation.
    pub(crate) fn holds(&self, address: &Address) -> Result<bool, IndexError> {
        let prefix = self.names.delegation_places(address);
        Ok(self.index.records.scan(&prefix, &prefix).next().transpose()?.is_some())
    }

    /// A token's operation of this version that does not win the key.
    pub(super) fn lost(&self, key: &str, identity: &Identity, version: &Version) -> Result<Option<Stored>, IndexError> {
        let name = self.names.operation(key, identity, version);
        let found = self.index.records.get(&name)?;
        let rest = &name[self.names.history(key).len()..];
        found.map(|value| Stored::decode(key.into(), &mut Rest(rest), &value)).transpose()
    }

    /// The live values from `query.from` on, in byte order of key, until there are enough.
    pub(crate) fn page(&self, query: &PageQuery<'_>) -> Result<PageOfKeys, IndexError> {
        let entries = self.names.entries();
        let prefix = self.names.entry(query.prefix);
        let from = self.names.entry(query.from.max(query.prefix));
        let mut page = PageOfKeys::default();
        for (looked, record) in self.index.records.scan(&prefix, &from).enumerate() {
            let (name, value) = record?;
            let key = key_of(&name[entries.len()..])?;
            if looked == query.look_max {
                page.next = Some(key.into());
                break;
            }
            if !(query.wanted)(key) {
                continue;
            }
            let is_live = Entry::is_live(&value);
            if is_live && page.keys.len() == query.take_max {
                page.has_more = true;
                break;
            }
            if is_live {
                page.keys.push(key.into());
            }
        }
        Ok(page)
    }

    /// The ids of the heads, ascending.
    pub(crate) fn frontier(&self) -> Result<Vec<EpochId>, IndexError> {
        let prefix = self.names.branches();
        let mut frontier = Vec::new();
        for record in self.index.records.scan(&prefix, &prefix) {
            let branch = format::decode_branch(&record?.1)?;
            frontier.extend(branch.is_head.then_some(branch.tip));
        }
        frontier.sort_unstable();
        Ok(frontier)
    }

    /// The dead writes on a key that are kept, ascending by version.
    pub(crate) fn dead(&self, key: &str) -> Result<Vec<DeadWrite>, IndexError> {
        let prefix = self.names.dead(key);
        let mut dead = Vec::new();
        for record in self.index.records.scan(&prefix, &prefix) {
            let (name, value) = record?;
            let version = Rest(&name[prefix.len()..]).version();
            let version = version.ok_or_else(|| IndexError::new("the index has a dead write without a version"))?;
            let (place, reason) = format::decode::<DeadRecord>(&value)?.told();
            dead.push(DeadWrite { version, place, reason });
        }
        Ok(dead)
    }

    /// Counts for the operator.
    pub(crate) fn summary(&self) -> Result<Summary, IndexError> {
        let summary = self.index.records.get(&self.names.summary())?;
        summary.map_or_else(|| Ok(Summary::default()), |summary| format::decode(&summary))
    }

    pub(super) fn entry(&self, key: &str) -> Result<Entry, IndexError> {
        let entry = self.index.records.get(&self.names.entry(key))?;
        entry.map_or_else(|| Ok(Entry::default()), |entry| Entry::decode(key, &entry))
    }

    /// The operations of a token on a key that do not win it.
    fn stored(&self, key: &str, identity: &Identity) -> Result<Vec<Stored>, IndexError> {
        self.scan_history(key, &self.names.history_of(key, identity))
    }

    fn scan_history(&self, key: &str, prefix: &[u8]) -> Result<Vec<Stored>, IndexError> {
        let history = self.names.history(key);
        let mut found = Vec::new();
        for record in self.index.records.scan(prefix, prefix) {
            let (name, value) = record?;
            let mut rest = Rest(&name[history.len()..]);
            found.push(Stored::decode(key.into(), &mut rest, &value)?);
        }
        Ok(found)
    }

    /// The newest operations on a key that are not dead. All of them are read, and no more kept.
    pub(crate) fn newest(&self, key: &str, max: usize) -> Result<Vec<Operation>, IndexError> {
        let Entry { winner, has_history } = self.entry(key)?;
        let history = self.names.history(key);
        let mut newest: BTreeMap<Version, Operation> =
            winner.into_iter().map(|winner| (winner.operation.version, winner.operation)).collect();
        let older = if has_history { Some(self.index.records.scan(&history, &history)) } else { None };
        for record in older.into_iter().flatten() {
            let (name, value) = record?;
            let mut rest = Rest(&name[history.len()..]);
            let operation = Stored::decode(key.into(), &mut rest, &value)?.operation;
            newest.insert(operation.version, operation);
            if newest.len() > max {
                newest.pop_first();
            }
        }
        Ok(newest.into_values().collect())
    }

    /// Where the epoch at `place` lies in the log; `None` if none stands there.
    pub(crate) fn find_position(&self, place: Place) -> Result<Option<Position>, IndexError> {
        let record = self.index.records.get(&self.names.place(place))?;
        record.map(|record| format::decode(&record).map(|PlaceRecord { at, .. }| format::position(at))).transpose()
    }

    /// The same of an epoch that is held.
    pub(super) fn position(&self, place: Place) -> Result<Position, IndexError> {
        let broken = || IndexError::new("the index has no epoch at a place that it names");
        self.find_position(place)?.ok_or_else(broken)
    }

    /// What wins a key, as it is kept: large headers may be missing.
    pub(crate) fn winning(&self, key: &str) -> Result<Option<Stored>, IndexError> {
        Ok(self.entry(key)?.winner)
    }

    /// An operation of this epoch that puts this value, if one is known.
    pub(crate) fn value_of(&self, epoch: &EpochId, hash: &BlobHash) -> Result<Option<Stored>, IndexError> {
        let Some(record) = self.index.records.get(&self.names.epoch(epoch))? else { return Ok(None) };
        let EpochRecord { branch, n, .. } = format::decode(&record)?;
        let read = self.index.read_epoch(self.position(Place { branch, n })?)?;
        for (version, key, value) in
            read.writes().filter(|(_, _, value)| value.is_some_and(|value| value.blob == *hash))
        {
            let (Some(token), Some(_)) = (read.token(version.event()), value) else { continue };
            if let Some(stored) = self.operation(key, &token.identity(), &version)? {
                return Ok(Some(stored));
            }
        }
        Ok(None)
    }

    /// A token's operation of this version on a key, whether it wins or not; its headers may have to be looked up.
    pub(crate) fn operation(
        &self,
        key: &str,
        identity: &Identity,
        version: &Version,
    ) -> Result<Option<Stored>, IndexError> {
        match self.winning(key)?.filter(|winner| winner.operation.version == *version) {
            Some(winner) => Ok(Some(winner)),
            None => self.lost(key, identity, version),
        }
    }

    /// Who signed the token of an operation of the epoch at `place`; `None` if that cannot be read.
    pub(crate) fn signer(&self, place: Place, version: &Version) -> Option<Did> {
        let epoch = self.position(place).and_then(|at| self.index.read_epoch(at)).ok()?;
        epoch.token(version.event()).map(|token| token.issuer().clone())
    }

    /// Looks large headers up in the log.
    fn with_meta(&self, mut stored: Stored) -> Result<Stored, IndexError> {
        if !stored.meta_in_log {
            return Ok(stored);
        }
        let epoch = self.index.read_epoch(self.position(stored.operation.place)?)?;
        let version = stored.operation.version;
        let value = epoch.writes().find(|(at, _, _)| *at == version).and_then(|(_, _, value)| value);
        let value: Value =
            value.ok_or_else(|| IndexError::new("the index names a value that is not in the log"))?.clone();
        stored.operation.effect = Effect::Put(value.into());
        stored.meta_in_log = false;
        Ok(stored)
    }

    /// The keys that the epochs of a run write.
    fn keys_of_run(&self, branch: u32, first: u64, keys: &mut BTreeSet<Key>) -> Result<(), IndexError> {
        let prefix = self.names.places(branch);
        let from = self.names.place(Place { branch, n: first });
        for record in self.index.records.scan(&prefix, &from) {
            let (name, value) = record?;
            let n = Rest(&name[prefix.len()..]).u64();
            if n.is_none_or(|n| n >= first.saturating_add(RUN_EPOCHS)) {
                break;
            }
            let PlaceRecord { at, .. } = format::decode(&value)?;
            let epoch = self.index.read_epoch(format::position(at))?;
            keys.extend(epoch.writes().map(|(_, key, _)| Key::from(key)));
        }
        Ok(())
    }

    fn find_keys_under(&self, affected: &dyn Fn(&Address) -> bool) -> Result<BTreeSet<Key>, IndexError> {
        let all = self.names.all_written();
        let mut runs = BTreeSet::new();
        let mut from = all.clone();
        // From one delegation to the next, without the runs of those that are not affected.
        while let Some(record) = self.index.records.scan(&all, &from).next() {
            let (name, _) = record?;
            let broken = || IndexError::new("the index has a run without a delegation");
            let root = Address(Rest(&name[all.len()..]).hash().ok_or_else(broken)?);
            let under = self.names.written_under(&root);
            if affected(&root) {
                for record in self.index.records.scan(&under, &under) {
                    runs.extend(Rest(&record?.0[under.len()..]).place());
                }
            }
            from = [&under[..], &[0xff; 13]].concat();
        }
        let mut keys = BTreeSet::new();
        for Place { branch, n } in runs {
            self.keys_of_run(branch, n, &mut keys)?;
        }
        Ok(keys)
    }
}

fn key_of(name: &[u8]) -> Result<&str, IndexError> {
    std::str::from_utf8(name).map_err(|_| IndexError::new("the index has a key that is no text"))
}

impl View for SpaceIndex {
    fn epoch(&self, id: &EpochId) -> Result<Option<EpochAt>, ViewError> {
        let Some(record) = self.index.records.get(&self.names.epoch(id))? else { return Ok(None) };
        let EpochRecord { branch, n, seq } = format::decode(&record)?;
        Ok(Some(EpochAt { place: Place { branch, n }, seq }))
    }

    fn winner(&self, key: &str) -> Result<Option<Operation>, ViewError> {
        Ok(self.entry(key)?.winner.map(|stored| stored.operation))
    }

    fn history(&self, key: &str) -> Result<Vec<Operation>, ViewError> {
        let Entry { winner, has_history } = self.entry(key)?;
        let mut found = if has_history { self.scan_history(key, &self.names.history(key))? } else { Vec::new() };
        found.extend(winner);
        let mut history: Vec<_> = found.into_iter().map(|stored| stored.operation).collect();
        history.sort_by_key(|operation| operation.version);
        Ok(history)
    }

    fn occurrences(&self, key: &str, identity: &Identity) -> Result<Vec<Operation>, ViewError> {
        let Entry { winner, has_history } = self.entry(key)?;
        let mut found = if has_history { self.stored(key, identity)? } else { Vec::new() };
        found.extend(winner.filter(|winner| winner.operation.identity == *identity));
        Ok(found.into_iter().map(|stored| stored.operation).collect())
    }

    fn keys_under(&self, affected: &dyn Fn(&Address) -> bool) -> Result<BTreeSet<Key>, ViewError> {
        Ok(self.find_keys_under(affected)?)
    }
}

impl Stored {
    /// The hash of a value whose bytes are, or are to be, in a file: a large one, or one that came without them.
    pub(crate) fn file(&self) -> Option<BlobHash> {
        self.operation.effect.value().filter(|_| self.at.is_none()).map(|value| value.blob)
    }

    /// Whether its value is one that never lies in the log.
    pub(super) fn is_large(&self) -> bool {
        self.operation.effect.value().is_some_and(|value| value.size > INLINE_BYTES_MAX)
    }
}
