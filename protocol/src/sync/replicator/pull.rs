//! One pull of one space from one peer, step by step: what to ask after each answer, and when to end.

use std::collections::BTreeSet;

use super::{Ask, random::Random};
use crate::{
    id::EpochId,
    limits::{IDLE_PAGES_MAX, NAMES_MAX, RETRY_MS, TIPS_FIRST, TIPS_MAX, WALK_STEPS_MAX},
    sync::message::Cursor,
};

/// Why a space is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The comparison when the peer was connected.
    Connected,
    /// A later comparison.
    Interval,
    /// The peer has something that is lacking here.
    Behind,
}

/// A pull: pages first, then by name what is still lacking. Whatever a peer answers, it ends.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) cause: Cause,
    /// What to ask next.
    pub(super) ask: Ask,
    /// Whether anything came into the log.
    took: bool,
    /// Steps in a row that brought nothing into the log.
    idle: usize,
    /// Digest of what was lacking when it was last asked for by name.
    lacking: Option<[u8; 32]>,
    whole: Whole,
}

/// Asking for all, once, when asking by name has come to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    May,
    /// It did not help the last time.
    NotYet,
    InVain,
    Helped,
}

/// What a peer answered, as far as the next step depends on it.
pub(super) struct Answer {
    pub(super) unknown: Vec<EpochId>,
    pub(super) taken: usize,
    pub(super) held: usize,
    pub(super) missing: Vec<EpochId>,
    pub(super) next: Option<Cursor>,
    pub(super) tell_branches: bool,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask once more.
    Ask,
    /// Nothing: all is here, or this peer does not give it.
    End {
        /// It named heads that it did not give.
        withheld: bool,
    },
}

impl Task {
    pub(super) fn new(cause: Cause, whole: Whole) -> Self {
        Self { cause, ask: Ask::ByHeads(None), took: false, idle: 0, lacking: None, whole }
    }

    /// Whether it goes on by name.
    pub(super) fn is_by_name(&self) -> bool {
        matches!(self.ask, Ask::Epochs(_))
    }

    /// Forgets the names: they are found again from the heads.
    pub(super) fn begin_again(&mut self) {
        (self.ask, self.lacking) = (Ask::ByHeads(None), None);
    }

    /// Whether all was asked for, and what came of it.
    pub(super) fn whole(&self) -> Whole {
        self.whole
    }

    /// Whether it brought anything.
    pub(super) fn took(&self) -> bool {
        self.took
    }

    pub(super) fn step(&mut self, answer: Answer, random: &mut Random) -> Next {
        self.took |= answer.taken > 0;
        if answer.taken > 0 && self.whole == Whole::InVain {
            self.whole = Whole::Helped;
        }
        self.idle = if answer.taken > 0 { 0 } else { self.idle + 1 };
        let withheld = !answer.unknown.is_empty();
        let ask = match (&self.ask, answer.tell_branches) {
            (Ask::ByHeads(_), true) => Some(Ask::ByBranches(TIPS_FIRST, None)),
            (Ask::ByBranches(tips, _), true) => {
                (*tips > 0 && *tips < TIPS_MAX).then(|| Ask::ByBranches((tips * 4).min(TIPS_MAX), None))
            }
            (Ask::ByHeads(last), false) => {
                let next = self.page(*last, &answer).map(|at| Ask::ByHeads(Some(at)));
                next.or_else(|| self.by_name(answer, random))
            }
            (Ask::ByBranches(tips, last), false) => {
                let next = self.page(*last, &answer).map(|at| Ask::ByBranches(*tips, Some(at)));
                next.or_else(|| self.by_name(answer, random))
            }
            (Ask::Epochs(_), _) => self.by_name(answer, random),
        };
        match ask {
            Some(ask) => {
                self.ask = ask;
                Next::Ask
            }
            None => Next::End { withheld },
        }
    }

    /// How long to leave the peer alone before the next step. The time of one that brings nothing is better given to others.
    pub(super) fn rest_ms(&self, took_ms: i64) -> i64 {
        let slow_ms = if self.idle > 0 && took_ms > RETRY_MS { took_ms } else { 0 };
        let is_idle = !self.is_by_name() && self.idle > 0 && self.idle.is_multiple_of(WALK_STEPS_MAX);
        let idle_ms = if is_idle { RETRY_MS } else { 0 };
        slow_ms.max(idle_ms)
    }

    /// Where the next page begins: behind the last, after a page that brought something.
    fn page(&self, last: Option<Cursor>, answer: &Answer) -> Option<Cursor> {
        let brought = answer.taken + answer.held > 0 || self.idle < WALK_STEPS_MAX;
        answer.next.filter(|next| last.is_none_or(|last| last < *next) && brought && self.idle < IDLE_PAGES_MAX)
    }

    /// What is still lacking, by name; as long as something comes of it. Then all, once.
    fn by_name(&mut self, answer: Answer, random: &mut Random) -> Option<Ask> {
        let Answer { mut unknown, mut missing, taken, .. } = answer;
        let lacking = digest_of(&unknown, &missing)?;
        if !self.is_by_name() {
            self.idle = 0;
        } else if self.idle > WALK_STEPS_MAX || (taken == 0 && self.lacking == Some(lacking)) {
            // The way back is longer than the waiting room, or others have filled it: from the beginning, then.
            if self.whole != Whole::May {
                return None;
            }
            (self.whole, self.idle, self.lacking) = (Whole::InVain, 0, None);
            return Some(Ask::ByBranches(0, None));
        }
        // Neither who names heads that nobody has, nor who fills the waiting room with what rests on such, keeps the rest
        // from being asked for: each kind has half of the names, and which of them is left to chance.
        rotate(&mut unknown, random);
        rotate(&mut missing, random);
        unknown.truncate(NAMES_MAX - missing.len().min(NAMES_MAX / 2));
        missing.truncate(NAMES_MAX - unknown.len());
        let mut names = [unknown, missing].concat();
        names.sort_unstable();
        names.dedup();
        self.lacking = Some(lacking);
        Some(Ask::Epochs(names))
    }
}

fn rotate(ids: &mut [EpochId], random: &mut Random) {
    let start = random.below(i64::try_from(ids.len()).unwrap_or(i64::MAX));
    ids.rotate_left(usize::try_from(start).unwrap_or(0));
}

/// Of all that is lacking; `None` when nothing is.
fn digest_of(unknown: &[EpochId], missing: &[EpochId]) -> Option<[u8; 32]> {
    let lacking: BTreeSet<&EpochId> = unknown.iter().chain(missing).collect();
    let mut hasher = blake3::Hasher::new();
    for id in &lacking {
        hasher.update(id.as_bytes());
    }
    (!lacking.is_empty()).then(|| *hasher.finalize().as_bytes())
}
