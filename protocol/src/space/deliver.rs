//! Deliveries of epochs: each is answered when all that it brought and unlocked is durable, waits, or was refused.

use std::collections::{BTreeMap, BTreeSet};

use super::effect::{CallId, Taken};

/// The deliveries that are not answered.
#[derive(Default)]
pub(super) struct Deliveries {
    open: BTreeMap<CallId, Delivery>,
    /// Those that wait for nothing but the commit that is out.
    to_be_durable: Vec<(CallId, Taken)>,
}

#[derive(Default)]
struct Delivery {
    taken: Taken,
    /// Epochs that it brought or unlocked and that are still to be looked at.
    awaited: usize,
}

impl Deliveries {
    /// A delivery comes.
    pub(super) fn begin(&mut self, call: CallId) -> &mut Taken {
        &mut self.open.entry(call).or_default().taken
    }

    /// It brought or unlocked an epoch that is to be looked at.
    pub(super) fn await_one(&mut self, call: CallId) {
        self.open.entry(call).or_default().awaited += 1;
    }

    /// An epoch that these await was looked at.
    pub(super) fn settle(&mut self, calls: &BTreeSet<CallId>, count: impl Fn(&mut Taken)) {
        for call in calls {
            if let Some(delivery) = self.open.get_mut(call) {
                delivery.awaited -= 1;
                count(&mut delivery.taken);
            }
        }
    }

    /// Those that await nothing more: what they brought is durable, or in the commit that is about to go out.
    pub(super) fn finished(&mut self) -> Vec<(CallId, Taken)> {
        let finished = self.open.extract_if(.., |_, delivery| delivery.awaited == 0);
        finished.map(|(call, delivery)| (call, delivery.taken)).collect()
    }

    /// Those that are finished are answered once the commit is durable.
    pub(super) fn hold_back(&mut self) {
        let finished = self.finished();
        self.to_be_durable.extend(finished);
    }

    /// The commit is durable.
    pub(super) fn durable(&mut self) -> Vec<(CallId, Taken)> {
        std::mem::take(&mut self.to_be_durable)
    }
}
