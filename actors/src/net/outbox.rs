//! Events that the node has not taken yet: kept in order, none lost, at most two a peer.

use std::{collections::VecDeque, future};

use tokio::sync::mpsc;

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

    /// Tells the next event when there is room, and waits for ever if there is none. Nothing is lost if it is dropped.
    pub(super) async fn tell(&mut self, events: &mpsc::Sender<Event>) {
        if self.events.is_empty() {
            future::pending::<()>().await;
        }
        let place = events.reserve().await;
        if let (Some(event), Ok(place)) = (self.events.pop_front(), place) {
            place.send(event);
        }
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
        outbox.events.into()
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

    #[tokio::test]
    async fn events_wait_for_room_and_stay_in_order() {
        let peers = [1, 2, 3].map(|number| Event::Connected(HostKey([number; 32])));
        let (events, mut told) = mpsc::channel(1);
        let mut outbox = Outbox::default();
        peers.iter().for_each(|event| outbox.push(*event));
        outbox.tell(&events).await;
        assert!(futures::poll!(Box::pin(outbox.tell(&events))).is_pending(), "there is no room");
        for event in peers {
            assert_eq!(told.try_recv(), Ok(event));
            assert!(futures::poll!(Box::pin(outbox.tell(&events))).is_ready() || outbox.events.is_empty());
        }
    }
}
