//! What is to be done with one connected peer.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Call, PeerState,
    pull::{Cause, Task},
    random::Random,
};
use crate::{
    id::{HostKey, Millis, SpaceId},
    limits::{EPOCH_BODY_BYTES_MAX, MESSAGE_EPOCHS_MAX, NAMES_MAX, NOT_FOUND_INTERVALS, PULLS_WAITING_MAX, RETRY_MS},
    sync::message::{Pushed, Sent},
};

/// A connected peer.
pub(super) struct Peer {
    connected: Millis,
    /// When it is compared with next.
    pub(super) compare_at: Millis,
    pub(super) comparing: Option<Call>,
    pub(super) compared: Option<Millis>,
    /// Comparisons in a row that failed.
    pub(super) failed: u32,
    /// Comparisons in a row that found what should have been pushed.
    pub(super) late: u32,
    /// Whether the last did.
    is_late: bool,
    pub(super) pulls: Pulls,
    pub(super) pushes: Pushes,
    pub(super) pushing: Option<Call>,
    pub(super) refused: u64,
    pub(super) withheld: u64,
}

impl Peer {
    pub(super) fn new(now: Millis) -> Self {
        Self {
            connected: now,
            compare_at: now,
            comparing: None,
            compared: None,
            failed: 0,
            late: 0,
            is_late: false,
            pulls: Pulls::default(),
            pushes: Pushes::default(),
            pushing: None,
            refused: 0,
            withheld: 0,
        }
    }

    /// A comparison has come to its end.
    pub(super) fn begin_comparison(&mut self, now: Millis, cause: Cause) {
        self.compared = Some(now);
        self.failed = 0;
        if cause == Cause::Interval && !self.is_late {
            self.late = 0;
        }
        self.is_late = false;
    }

    /// The last comparison found what should have been pushed. True when that happens for the `most`th time in a row.
    pub(super) fn note_late(&mut self, most: u32) -> bool {
        if self.is_late {
            return false;
        }
        (self.is_late, self.late) = (true, self.late + 1);
        let renew = self.late >= most;
        if renew {
            self.late = 0;
        }
        renew
    }

    /// When something is to be done.
    pub(super) fn next_time(&self) -> Option<Millis> {
        let compare = self.comparing.is_none().then_some(self.compare_at);
        compare.into_iter().chain(self.pulls.next_time()).min()
    }

    pub(super) fn state(&self, peer: HostKey) -> PeerState {
        PeerState {
            peer,
            connected: Some(self.connected),
            compared: self.compared,
            behind: self.pulls.wants.len(),
            to_push: self.pushes.queue.len(),
            to_push_bytes: self.pushes.bytes,
            dropped: self.pushes.dropped,
            refused: self.refused,
            withheld: self.withheld,
        }
    }
}

/// The spaces that are to be pulled. After each step a space goes to the end of the queue, so a long pull stops no other.
#[derive(Default)]
pub(super) struct Pulls {
    wants: BTreeMap<SpaceId, Want>,
    /// Those that may be asked for, the one that has waited longest first.
    ready: VecDeque<SpaceId>,
    /// Those that rest until then.
    resting: BTreeSet<(Millis, SpaceId)>,
    under_way: usize,
    rests: BTreeMap<SpaceId, Rest>,
}

struct Want {
    task: Task,
    /// Something new is there since it was asked for.
    again: Option<Cause>,
}

/// A space that is not asked for until then.
#[derive(Clone, Copy)]
struct Rest {
    until: Millis,
    failures: u32,
}

impl Pulls {
    /// A space is to be pulled.
    pub(super) fn want(&mut self, now: Millis, space: SpaceId, cause: Cause) {
        if cause == Cause::Behind {
            self.wake(now, &space);
        }
        if let Some(want) = self.wants.get_mut(&space) {
            want.again = Some(cause);
        } else if self.wants.len() < PULLS_WAITING_MAX {
            self.wants.insert(space.clone(), Want { task: Task::new(cause), again: None });
            self.enqueue(now, space);
        }
    }

    /// A resting space has cause to be asked for earlier.
    fn wake(&mut self, now: Millis, space: &SpaceId) {
        let soon = now.plus(RETRY_MS);
        let Some(rest) = self.rests.get_mut(space).filter(|rest| rest.until > soon) else { return };
        if self.resting.remove(&(rest.until, space.clone())) {
            self.resting.insert((soon, space.clone()));
        }
        rest.until = soon;
    }

    fn enqueue(&mut self, now: Millis, space: SpaceId) {
        match self.rests.get(&space).filter(|rest| rest.until > now) {
            Some(rest) => drop(self.resting.insert((rest.until, space))),
            None => self.ready.push_back(space),
        }
    }

    /// Those that have rested wait for their turn from now on.
    pub(super) fn end_rests(&mut self, now: Millis) {
        while self.resting.first().is_some_and(|(until, _)| *until <= now) {
            self.ready.extend(self.resting.pop_first().map(|(_, space)| space));
        }
    }

    /// Takes the next out of the queue, unless enough are under way.
    pub(super) fn next(
        &mut self,
        pulling: &BTreeSet<SpaceId>,
        under_way_max: usize,
    ) -> Option<(SpaceId, Task)> {
        if self.under_way >= under_way_max {
            return None;
        }
        let free = self.ready.iter().position(|space| !pulling.contains(space))?;
        let space = self.ready.remove(free)?;
        let want = self.wants.get_mut(&space)?;
        // What was told before this question is answered by it.
        if let Some(cause) = want.again.take_if(|_| matches!(want.task.ask, super::Ask::ByHeads(None))) {
            want.task.cause = cause;
        }
        self.under_way += 1;
        Some((space, want.task.clone()))
    }

    /// The peer has answered for this space.
    pub(super) fn answered(&mut self, space: &SpaceId) -> Option<&mut Task> {
        self.wants.get_mut(space).map(|want| &mut want.task)
    }

    /// The pull goes on with its next step.
    pub(super) fn go_on(&mut self, space: SpaceId) {
        self.under_way -= 1;
        self.rests.remove(&space);
        self.ready.push_back(space);
    }

    /// The pull has come to its end. One that brought nothing is not begun again at once.
    pub(super) fn end(&mut self, now: Millis, space: SpaceId) {
        self.under_way -= 1;
        self.rests.remove(&space);
        let Some(Want { task, again }) = self.wants.remove(&space) else { return };
        if !task.took() {
            self.rests.insert(space.clone(), Rest { until: now.plus(RETRY_MS), failures: 0 });
        }
        if let Some(cause) = again {
            self.want(now, space, cause);
        }
    }

    /// The peer does not show it: that may change.
    pub(super) fn not_found(&mut self, now: Millis, space: SpaceId, interval_ms: i64, random: &mut Random) {
        self.under_way -= 1;
        self.rest(now, &space, interval_ms.saturating_mul(NOT_FOUND_INTERVALS), random);
        if let Some(cause) = self.wants.remove(&space).and_then(|want| want.again) {
            self.want(now, space, cause);
        }
    }

    /// The same once more, later.
    pub(super) fn later(&mut self, now: Millis, space: SpaceId, interval_ms: i64, random: &mut Random) {
        self.under_way -= 1;
        self.rest(now, &space, interval_ms, random);
        self.enqueue(now, space);
    }

    fn rest(&mut self, now: Millis, space: &SpaceId, most_ms: i64, random: &mut Random) {
        let failures = self.rests.get(space).map_or(1, |rest| rest.failures + 1);
        let until = now.plus(random.backoff(failures, most_ms));
        self.rests.insert(space.clone(), Rest { until, failures });
    }

    /// Forgets the failures with all other spaces: they are equal now.
    pub(super) fn keep_rests_of(&mut self, spaces: &[SpaceId]) {
        let kept: BTreeSet<&SpaceId> = spaces.iter().collect();
        self.rests.retain(|space, _| kept.contains(space) || self.wants.contains_key(space));
    }

    fn next_time(&self) -> Option<Millis> {
        self.resting.first().map(|(until, _)| *until)
    }
}

/// The epochs that are to be pushed, oldest first.
#[derive(Default)]
pub(super) struct Pushes {
    queue: VecDeque<Queued>,
    bytes: usize,
    dropped: u64,
}

struct Queued {
    space: SpaceId,
    sent: Arc<Sent>,
    told: Arc<BTreeSet<HostKey>>,
}

impl Pushes {
    /// Adds one; when too many wait the oldest are left to comparing.
    pub(super) fn add(&mut self, space: SpaceId, sent: Arc<Sent>, told: Arc<BTreeSet<HostKey>>, bytes_max: usize) {
        self.bytes += sent.size_bytes();
        self.queue.push_back(Queued { space, sent, told });
        while self.bytes > bytes_max && self.take_first().is_some() {
            self.dropped += 1;
        }
    }

    /// What fits one message, one epoch at least.
    pub(super) fn next_batch(&mut self, bytes_max: usize) -> Vec<Pushed> {
        let mut batch: Vec<Pushed> = Vec::new();
        let (mut bytes, mut epochs) = (0, 0);
        while let Some(first) = self.queue.front() {
            bytes += first.sent.size_bytes();
            epochs += 1;
            if epochs > 1 && (bytes > bytes_max || epochs > MESSAGE_EPOCHS_MAX || batch.len() >= NAMES_MAX) {
                break;
            }
            let Some(Queued { space, sent, told }) = self.take_first() else { break };
            let told: Vec<HostKey> = told.iter().copied().take(NAMES_MAX).collect();
            let sent = fitting(&sent);
            match batch.last_mut().filter(|last| last.space == space && last.told == told) {
                Some(last) => last.epochs.push(sent),
                None => batch.push(Pushed { space, epochs: vec![sent], told }),
            }
        }
        batch
    }

    fn take_first(&mut self) -> Option<Queued> {
        let first = self.queue.pop_front()?;
        self.bytes -= first.sent.size_bytes();
        Some(first)
    }
}

/// An epoch with as many of its values as a message holds beside the largest body.
fn fitting(sent: &Sent) -> Sent {
    let mut left = EPOCH_BODY_BYTES_MAX;
    let fits = |value: &&Bytes| {
        let rest = left.checked_sub(value.len());
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    Sent { epoch: sent.epoch.clone(), values: sent.values.iter().take_while(fits).cloned().collect() }
}
