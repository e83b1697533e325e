//! How the index's records are named: a one, the number of the space (0 for the whole node), a letter, then what is
//! looked up.
//!
//! Numbers are big-endian, so that records sort by them. A key holds no zero byte, so one ends it.

use kvspace_protocol::{
    dag::Place,
    id::{Address, BlobHash, EpochId, HostKey, Identity, SpaceId},
    kv::Version,
};

/// Epochs of one branch that share a record of what they stand on.
pub(super) const RUN_EPOCHS: u64 = 64;
/// The node's own records.
const NODE: u32 = 0;

/// Builds a name.
struct Name(Vec<u8>);

impl Name {
    fn new(number: u32, letter: u8) -> Self {
        let mut name = Vec::with_capacity(64);
        // Names that begin with a zero belong to the records below.
        name.push(1);
        name.extend(number.to_be_bytes());
        name.push(letter);
        Self(name)
    }

    fn and(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn place(self, place: Place) -> Self {
        self.and(&place.branch.to_be_bytes()).and(&place.n.to_be_bytes())
    }

    fn version(self, version: &Version) -> Self {
        self.and(&version.seq.to_be_bytes()).and(version.epoch.as_bytes()).and(&version.number.to_be_bytes())
    }
}

/// All hosted spaces.
pub(super) fn spaces() -> Vec<u8> {
    Name::new(NODE, b's').0
}

/// The number of a hosted space.
pub(super) fn space(id: &SpaceId) -> Vec<u8> {
    Name::new(NODE, b's').and(id.as_str().as_bytes()).0
}

/// All delegations of any space.
pub(super) fn all_delegations() -> Vec<u8> {
    Name::new(NODE, b'd').0
}

/// How many places of the log were found broken, over all starts.
pub(super) fn damaged() -> Vec<u8> {
    Name::new(NODE, b'x').0
}

/// Where the bytes of a delegation stand, in any space.
pub(super) fn delegation(address: &Address) -> Vec<u8> {
    Name::new(NODE, b'd').and(address.as_bytes()).0
}

/// All operations that need a file.
pub(super) fn files() -> Vec<u8> {
    Name::new(NODE, b'f').0
}

/// The operations that need the file of this hash.
pub(super) fn file(hash: &BlobHash) -> Vec<u8> {
    Name::new(NODE, b'f').and(hash.as_bytes()).0
}

/// That this operation needs the file of this hash. The value is [`super::format::FileUse`].
pub(super) fn file_use(hash: &BlobHash, number: u32, version: &Version) -> Vec<u8> {
    Name::new(NODE, b'f').and(hash.as_bytes()).and(&number.to_be_bytes()).version(version).0
}

/// All that hosts are named for.
pub(super) fn all_hosted() -> Vec<u8> {
    Name::new(NODE, b'h').0
}

/// The spaces that this host was ever named for.
pub(super) fn hosted(host: &HostKey) -> Vec<u8> {
    Name::new(NODE, b'h').and(&host.0).0
}

/// That this host was named for the space of this number. The value is the space's id.
pub(super) fn hosted_space(host: &HostKey, number: u32) -> Vec<u8> {
    Name::new(NODE, b'h').and(&host.0).and(&number.to_be_bytes()).0
}

/// Names the records of one space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InSpace(pub(super) u32);

impl InSpace {
    /// What all records of the space begin with; a letter follows.
    pub(super) fn all(self) -> Vec<u8> {
        let mut name = Name::new(self.0, 0).0;
        name.pop();
        name
    }

    /// All entries.
    pub(super) fn entries(self) -> Vec<u8> {
        Name::new(self.0, b'E').0
    }

    /// The entry of a key.
    pub(super) fn entry(self, key: &str) -> Vec<u8> {
        Name::new(self.0, b'E').and(key.as_bytes()).0
    }

    /// The operations of a key beside the winning one.
    pub(super) fn history(self, key: &str) -> Vec<u8> {
        Name::new(self.0, b'H').and(key.as_bytes()).and(&[0]).0
    }

    /// Those of one token.
    pub(super) fn history_of(self, key: &str, identity: &Identity) -> Vec<u8> {
        Name(self.history(key)).and(&identity.0).0
    }

    /// One of them.
    pub(super) fn operation(self, key: &str, identity: &Identity, version: &Version) -> Vec<u8> {
        Name(self.history_of(key, identity)).version(version).0
    }

    /// The dead writes on a key.
    pub(super) fn dead(self, key: &str) -> Vec<u8> {
        Name::new(self.0, b'D').and(key.as_bytes()).and(&[0]).0
    }

    /// One of them.
    pub(super) fn dead_write(self, key: &str, version: &Version) -> Vec<u8> {
        Name(self.dead(key)).version(version).0
    }

    /// An epoch by its id.
    pub(super) fn epoch(self, id: &EpochId) -> Vec<u8> {
        Name::new(self.0, b'e').and(id.as_bytes()).0
    }

    /// An epoch by its place.
    pub(super) fn place(self, place: Place) -> Vec<u8> {
        Name::new(self.0, b'p').place(place).0
    }

    /// The epochs of a branch.
    pub(super) fn places(self, branch: u32) -> Vec<u8> {
        Name::new(self.0, b'p').and(&branch.to_be_bytes()).0
    }

    /// All branches.
    pub(super) fn branches(self) -> Vec<u8> {
        Name::new(self.0, b'B').0
    }

    /// A branch.
    pub(super) fn branch(self, branch: u32) -> Vec<u8> {
        Name::new(self.0, b'B').and(&branch.to_be_bytes()).0
    }

    /// All that branches learnt from each other.
    pub(super) fn all_learned(self) -> Vec<u8> {
        Name::new(self.0, b'L').0
    }

    /// How far the epoch at `place` reaches in branch `other`.
    pub(super) fn learned(self, place: Place, other: u32) -> Vec<u8> {
        Name::new(self.0, b'L').and(&place.branch.to_be_bytes()).and(&other.to_be_bytes()).and(&place.n.to_be_bytes()).0
    }

    /// All delegations.
    pub(super) fn delegations(self) -> Vec<u8> {
        Name::new(self.0, b'T').0
    }

    /// Where a delegation's bytes stand.
    pub(super) fn delegation_places(self, address: &Address) -> Vec<u8> {
        Name::new(self.0, b'T').and(address.as_bytes()).0
    }

    /// That a delegation's bytes stand in the epoch at `place`.
    pub(super) fn delegation(self, address: &Address, place: Place) -> Vec<u8> {
        Name(self.delegation_places(address)).place(place).0
    }

    /// All epochs with revocations.
    pub(super) fn all_revoking(self) -> Vec<u8> {
        Name::new(self.0, b'V').0
    }

    /// That the epoch at `place` holds a revocation.
    pub(super) fn revoking(self, place: Place) -> Vec<u8> {
        Name::new(self.0, b'V').place(place).0
    }

    /// All of what operations stand on.
    pub(super) fn all_written(self) -> Vec<u8> {
        Name::new(self.0, b'W').0
    }

    /// What was written under a delegation.
    pub(super) fn written_under(self, root: &Address) -> Vec<u8> {
        Name::new(self.0, b'W').and(root.as_bytes()).0
    }

    /// That operations of the run of epochs around `place` stand on this delegation.
    pub(super) fn written(self, root: &Address, place: Place) -> Vec<u8> {
        let first = Place { n: place.n / RUN_EPOCHS * RUN_EPOCHS, ..place };
        Name::new(self.0, b'W').and(root.as_bytes()).place(first).0
    }

    /// Counts of the space.
    pub(super) fn summary(self) -> Vec<u8> {
        Name::new(self.0, b'S').0
    }
}

/// The bytes of a name behind `prefix`, taken apart from the front.
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

impl<'a> Rest<'a> {
    pub(super) fn of(name: &'a [u8], prefix: &[u8]) -> Option<Self> {
        name.strip_prefix(prefix).map(Self)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn place(&mut self) -> Option<Place> {
        Some(Place { branch: self.u32()?, n: self.u64()? })
    }

    pub(super) fn hash(&mut self) -> Option<[u8; 32]> {
        self.take()
    }

    pub(super) fn version(&mut self) -> Option<Version> {
        Some(Version { seq: self.u64()?, epoch: EpochId(self.hash()?), number: self.u32()? })
    }
}
