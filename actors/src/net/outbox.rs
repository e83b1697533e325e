//! Events that the node has not taken yet: kept in order, none lost, at most two a peer.

use std::collections::VecDeque;

use super::Event;

/// What is still to be told.
///
/// A connection that came and went before it was told is not told at all. One that went and came again is told as
/// both, because what was asked over it is lost. So a peer has at most two events here.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    events: VecDeque<Event>,
}

impl Outbox {
    /// Adds what happened.
    pub(super) fn push(&mut self, event: Event) {
        if let Event::Disconnected(peer) = event
            && let Some(at) = self.position(Event::Connected(peer))
        {
            self.events.remove(at);
            return;
        }
        self.events.push_back(event);
    }

    /// The next event to tell.
    pub(super) fn pop(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether all is told.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn position(&self, event: Event) -> Option<usize> {
        self.events.iter().position(|other| *other == event)
    }
}

#[cfg(test)]
mod tests {
    use kvspace_protocol::id::HostKey;

    use super::*;

    fn told(events: &[Event]) -> Vec<Event> {
        let mut outbox = Outbox::default();
        for event in events {
            outbox.push(*event);
        }
        std::iter::from_fn(|| outbox.pop()).collect()
    }

    #[test]
    fn what_came_and_went_untold_is_not_told() {
        let (a, b) = (HostKey([1; 32]), HostKey([2; 32]));
        let events = [Event::Connected(a), Event::Connected(b), Event::Disconnected(a)];
        assert_eq!(told(&events), [Event::Connected(b)]);
    }

    #[test]
    fn a_new_connection_is_told_as_both_however_often_it_flaps() {
        let a = HostKey([1; 32]);
        let flaps = [Event::Disconnected(a), Event::Connected(a)];
        assert_eq!(told(&flaps.repeat(9)), flaps);
    }
}
