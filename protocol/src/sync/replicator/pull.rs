//! One pull of one space from one peer, step by step: what to ask after each answer, and when to end.

use super::{Ask, random::Random};
use crate::{
    id::EpochId,
    limits::{IDLE_PAGES_MAX, NAMES_MAX, TIPS_FIRST, TIPS_MAX, WALK_STEPS_MAX},
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
    /// What was lacking when it was last asked for by name.
    lacking: Vec<EpochId>,
    /// All was asked for, because the way back by name was too long.
    whole: bool,
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
    pub(super) fn new(cause: Cause) -> Self {
        Self { cause, ask: Ask::ByHeads(None), took: false, idle: 0, lacking: Vec::new(), whole: false }
    }

    /// Whether it brought anything.
    pub(super) fn took(&self) -> bool {
        self.took
    }

    pub(super) fn step(&mut self, answer: Answer, random: &mut Random) -> Next {
        self.took |= answer.taken > 0;
        self.idle = if answer.taken > 0 { 0 } else { self.idle + 1 };
        let withheld = !answer.unknown.is_empty();
        let ask = match (&self.ask, answer.tell_branches) {
            (Ask::ByHeads(_), true) => Some(Ask::ByBranches(TIPS_FIRST, None)),
            (Ask::ByBranches(tips, _), true) => {
                (*tips > 0 && *tips < TIPS_MAX).then(|| Ask::ByBranches((tips * 4).min(TIPS_MAX), None))
            }
            (Ask::ByHeads(last), false) if answer.next.is_some() => {
                self.page(*last, &answer).map(|at| Ask::ByHeads(Some(at)))
            }
            (Ask::ByBranches(tips, last), false) if answer.next.is_some() => {
                self.page(*last, &answer).map(|at| Ask::ByBranches(*tips, Some(at)))
            }
            (Ask::ByHeads(_) | Ask::ByBranches(..), false) | (Ask::Epochs(_), _) => self.by_name(answer, random),
        };
        match ask {
            Some(ask) => {
                self.ask = ask;
                Next::Ask
            }
            None => Next::End { withheld },
        }
    }

    /// Where the next page begins: behind the last, after a page that brought something.
    fn page(&self, last: Option<Cursor>, answer: &Answer) -> Option<Cursor> {
        let brought = answer.taken + answer.held > 0 || self.idle < WALK_STEPS_MAX;
        answer.next.filter(|next| last.is_none_or(|last| last < *next) && brought && self.idle < IDLE_PAGES_MAX)
    }

    /// What is still lacking, by name; as long as something comes of it.
    fn by_name(&mut self, answer: Answer, random: &mut Random) -> Option<Ask> {
        let Answer { unknown, mut missing, taken, .. } = answer;
        let mut lacking: Vec<EpochId> = unknown.iter().chain(&missing).copied().collect();
        lacking.sort_unstable();
        lacking.dedup();
        let asked = matches!(self.ask, Ask::Epochs(_));
        if lacking.is_empty() || (asked && taken == 0 && lacking == self.lacking) {
            return None;
        }
        if asked && self.idle > WALK_STEPS_MAX {
            // The way back is longer than the waiting room: from the beginning, then.
            return (!std::mem::replace(&mut self.whole, true)).then(|| {
                self.idle = 0;
                Ask::ByBranches(0, None)
            });
        }
        // Whoever fills the waiting room with what nobody has must not keep the rest from being asked for.
        let start = usize::try_from(random.below(i64::try_from(missing.len()).unwrap_or(i64::MAX))).unwrap_or(0);
        missing.rotate_left(start);
        let mut names = unknown;
        names.extend(missing);
        names.truncate(NAMES_MAX);
        names.sort_unstable();
        names.dedup();
        self.lacking = lacking;
        Some(Ask::Epochs(names))
    }
}
