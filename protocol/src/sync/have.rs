//! What a host says it has of a space, and what it therefore lacks.
//!
//! A host has an epoch only with its whole Past, so one id that is known here proves a whole [`Vector`]. An id that is not
//! known here still proves something: whoever is further on a chain has what is here of it, unless the chain has forked.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::{
    dag::{Branch, Dag, Place, Vector},
    id::{EpochId, HostKey, Incarnation},
    limits::{HEADS_MAX, TIPS_MAX},
    space::{View, ViewError},
};

/// What a host has of a space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Have {
    /// Its heads.
    Heads(Vec<EpochId>),
    /// The last epochs of its branches, newest clock first, and a digest of those that did not fit.
    Branches {
        /// The branches.
        tips: Vec<Tip>,
        /// BLAKE3 over the encoding of the others, `None` when there are none.
        #[serde(with = "digest")]
        rest: Option<[u8; 32]>,
    },
}

/// The last epoch of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "TipParts", into = "TipParts")]
pub struct Tip {
    /// The host.
    pub host: HostKey,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The number of the branch's first epoch.
    pub first_n: u64,
    /// The number of its last epoch.
    pub n: u64,
    /// The clock of its last epoch.
    pub seq: u64,
    /// Its last epoch.
    pub id: EpochId,
}

/// Epochs of one branch that a peer lacks: from `from_n` to the branch's last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The branch, by this replica's number.
    pub branch: u32,
    /// The first that is lacking.
    pub from_n: u64,
}

/// What a peer lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lacking {
    /// These; empty when nothing.
    Ranges(Vec<Range>),
    /// Its heads are not known here: it has to tell its branches, more of them than it did.
    Unknown,
}

impl Have {
    /// What a replica with this DAG says first.
    #[must_use]
    pub fn heads(dag: &Dag) -> Self {
        let heads = dag.frontier();
        if heads.len() <= HEADS_MAX { Self::Heads(heads.collect()) } else { Self::branches(dag, HEADS_MAX) }
    }

    /// What it says when its heads are not known to the other: at most `tips_max` branches. With none all counts as lacking,
    /// unless all is equal.
    #[must_use]
    pub fn branches(dag: &Dag, tips_max: usize) -> Self {
        let mut tips = all_tips(dag);
        let rest = tips.split_off(tips_max.min(TIPS_MAX).min(tips.len()));
        Self::Branches { tips, rest: digest_of(&rest) }
    }

    /// What a peer that has this lacks of what `dag` holds. Where a chain has forked and neither side shows it, something
    /// may be left out; the peer finds that an ancestor is missing, and asks for it.
    ///
    /// # Errors
    /// [`ViewError`] when the index cannot be read.
    pub fn lacking(&self, dag: &Dag, view: &dyn View) -> Result<Lacking, ViewError> {
        let mut held = Vector::default();
        match self {
            Self::Heads(heads) => {
                for head in heads {
                    let Some(at) = view.epoch(head)? else { return Ok(Lacking::Unknown) };
                    dag.gather(&mut held, at.place);
                }
            }
            Self::Branches { tips, rest } => {
                let chains = Chains::of(dag, tips);
                for tip in tips {
                    let proven = match view.epoch(&tip.id)? {
                        Some(at) => Some(at.place),
                        None => chains.proven(tip),
                    };
                    // The newest come first, so most of the others are in their Past and cost nothing.
                    if let Some(place) = proven {
                        dag.gather(&mut held, place);
                    }
                }
                match our_rest(tips, dag) {
                    _ if rest.is_none() => {}
                    ours if digest_of(&ours) == *rest => {
                        for tip in ours {
                            if let Some(at) = view.epoch(&tip.id)? {
                                dag.gather(&mut held, at.place);
                            }
                        }
                    }
                    // Whoever has told as many as a message holds, or means to tell none, lacks what it did not tell.
                    _ if tips.is_empty() || tips.len() >= TIPS_MAX => {}
                    _ => return Ok(Lacking::Unknown),
                }
            }
        }
        Ok(Lacking::Ranges(ranges(&held, dag)))
    }
}

fn ranges(held: &Vector, dag: &Dag) -> Vec<Range> {
    let numbered = (0..).zip(dag.branches());
    let range = |(number, branch): (u32, &Branch)| {
        let from_n = held.last(number).map_or(branch.first_n, |last| last + 1);
        (from_n <= branch.tip_n).then_some(Range { branch: number, from_n })
    };
    numbered.filter_map(range).collect()
}

/// The chains that are known here, each with its lowest fork that either side shows.
struct Chains(BTreeMap<(HostKey, Incarnation), Chain>);

#[derive(Default)]
struct Chain {
    /// The last epoch here of the branch that begins the chain.
    trunk: Option<Place>,
    fork: Option<u64>,
}

impl Chain {
    fn note(&mut self, first_n: u64) {
        if first_n > 0 {
            self.fork = Some(self.fork.map_or(first_n, |fork| fork.min(first_n)));
        }
    }
}

impl Chains {
    fn of(dag: &Dag, tips: &[Tip]) -> Self {
        let mut chains: BTreeMap<_, Chain> = BTreeMap::new();
        for (number, branch) in (0..).zip(dag.branches()) {
            let chain = chains.entry((branch.host, branch.incarnation)).or_default();
            chain.note(branch.first_n);
            if branch.first_n == 0 && chain.trunk.is_none() {
                chain.trunk = Some(Place { branch: number, n: branch.tip_n });
            }
            // Two first epochs are a fork below which nothing lies.
            else if branch.first_n == 0 {
                chain.fork = Some(0);
            }
        }
        for tip in tips {
            if let Some(chain) = chains.get_mut(&(tip.host, tip.incarnation)) {
                chain.note(tip.first_n);
            }
        }
        Self(chains)
    }

    /// What a peer with this tip, which is not known here, has of the chain as it is here.
    fn proven(&self, tip: &Tip) -> Option<Place> {
        let chain = self.0.get(&(tip.host, tip.incarnation))?;
        let trunk = chain.trunk?;
        match chain.fork {
            // All branches have in common what lies below the lowest fork.
            Some(fork) => Some(Place { n: fork.checked_sub(1)?.min(tip.n).min(trunk.n), ..trunk }),
            None if tip.n > trunk.n => Some(trunk),
            // Another epoch has this number here: the chain has forked, who knows where.
            None => None,
        }
    }
}

/// The last epochs of all branches, newest clock first.
fn all_tips(dag: &Dag) -> Vec<Tip> {
    let tip = |branch: &Branch| Tip {
        host: branch.host,
        incarnation: branch.incarnation,
        first_n: branch.first_n,
        n: branch.tip_n,
        seq: branch.tip_seq,
        id: branch.tip,
    };
    let mut tips: Vec<Tip> = dag.branches().iter().map(tip).collect();
    tips.sort_unstable_by_key(order);
    tips
}

fn order(tip: &Tip) -> (Reverse<u64>, EpochId) {
    (Reverse(tip.seq), tip.id)
}

/// Our tips that come behind the last that a peer has told.
fn our_rest(told: &[Tip], dag: &Dag) -> Vec<Tip> {
    let mut tips = all_tips(dag);
    match told.last() {
        Some(last) => tips.split_off(tips.partition_point(|tip| order(tip) <= order(last))),
        None => tips,
    }
}

fn digest_of(tips: &[Tip]) -> Option<[u8; 32]> {
    let encode = || serde_ipld_dagcbor::to_vec(tips).expect("plain data encodes to memory");
    (!tips.is_empty()).then(|| *blake3::hash(&encode()).as_bytes())
}

/// [`Tip`] on the wire.
#[derive(Serialize, Deserialize)]
struct TipParts(HostKey, Incarnation, u64, u64, u64, EpochId);

impl From<TipParts> for Tip {
    fn from(TipParts(host, incarnation, first_n, n, seq, id): TipParts) -> Self {
        Self { host, incarnation, first_n, n, seq, id }
    }
}

impl From<Tip> for TipParts {
    fn from(tip: Tip) -> Self {
        Self(tip.host, tip.incarnation, tip.first_n, tip.n, tip.seq, tip.id)
    }
}

mod digest {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_bytes::ByteArray;

    pub(super) fn serialize<S: Serializer>(digest: &Option<[u8; 32]>, serializer: S) -> Result<S::Ok, S::Error> {
        digest.map(ByteArray::new).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[u8; 32]>, D::Error> {
        Ok(Option::<ByteArray<32>>::deserialize(deserializer)?.map(ByteArray::into_array))
    }
}

#[cfg(test)]
mod tests;
