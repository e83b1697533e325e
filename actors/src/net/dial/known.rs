//! What is known about one peer.

use kvspace_protocol::id::Millis;
use libp2p::Multiaddr;

/// Addresses of one peer that were learnt.
pub(super) const LEARNT_MAX: usize = 8;
/// Failures in a row after which a learnt address is forgotten.
pub(super) const ADDRESS_FAILURES_MAX: u32 = 5;

/// Where an address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The configuration: it is never forgotten.
    Configured,
    /// A peer, the local network, or an earlier connection.
    Learnt,
}

/// One peer.
#[derive(Debug)]
pub(super) struct Known {
    /// Since when it is connected.
    pub(super) connected: Option<Millis>,
    pub(super) is_dialling: bool,
    pub(super) is_blocked: bool,
    /// Whether it was found on the local network.
    pub(super) is_discovered: bool,
    /// Whether it is dialled once, wanted or not.
    pub(super) is_once: bool,
    /// Whether it is known not to be a node like this one.
    pub(super) is_foreign: bool,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Not dialled before this.
    pub(super) next: Millis,
    pub(super) last_error: Option<String>,
    places: Vec<Place>,
}

/// An address.
#[derive(Debug)]
struct Place {
    address: Multiaddr,
    source: Source,
    failures: u32,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            connected: None,
            is_dialling: false,
            is_blocked: false,
            is_discovered: false,
            is_once: false,
            is_foreign: false,
            failures: 0,
            next: Millis(0),
            last_error: None,
            places: Vec::new(),
        }
    }
}

impl Known {
    /// Adds an address; a learnt one takes the place of the worst if there are too many.
    pub(super) fn add(&mut self, address: Multiaddr, source: Source) {
        if let Some(place) = self.places.iter_mut().find(|place| place.address == address) {
            if source == Source::Configured {
                place.source = source;
            }
            return;
        }
        let learnt = self.places.iter().enumerate().filter(|(_, place)| place.source == Source::Learnt);
        if source == Source::Learnt && learnt.clone().count() >= LEARNT_MAX {
            // Of equal ones the first, which is the oldest.
            let worst = learnt.min_by_key(|(_, place)| std::cmp::Reverse(place.failures)).map(|(at, _)| at);
            worst.map(|at| self.places.remove(at));
        }
        self.places.push(Place { address, source, failures: 0 });
    }

    /// Forgets an address.
    pub(super) fn remove(&mut self, address: &Multiaddr) {
        self.places.retain(|place| place.address != *address);
    }

    /// Whether an address is known.
    pub(super) fn has(&self, address: &Multiaddr) -> bool {
        self.places.iter().any(|place| place.address == *address)
    }

    /// The peer answered at this address.
    pub(super) fn answered(&mut self, address: &Multiaddr) {
        for place in self.places.iter_mut().filter(|place| place.address == *address) {
            place.failures = 0;
        }
    }

    /// Nobody answered at these addresses.
    pub(super) fn failed(&mut self, addresses: &[Multiaddr]) {
        for place in self.places.iter_mut().filter(|place| addresses.contains(&place.address)) {
            place.failures += 1;
        }
        self.places.retain(|place| place.source == Source::Configured || place.failures < ADDRESS_FAILURES_MAX);
    }

    /// It is no node like this one: what it said about itself is of no use.
    pub(super) fn turn_foreign(&mut self) {
        self.is_foreign = true;
        self.is_discovered = false;
        self.places.retain(|place| place.source == Source::Configured);
    }

    /// Its addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Multiaddr> {
        self.places.iter().map(|place| &place.address)
    }

    /// Whether there is one.
    pub(super) fn has_addresses(&self) -> bool {
        !self.places.is_empty()
    }

    /// Whether the configuration names it.
    pub(super) fn is_configured(&self) -> bool {
        self.places.iter().any(|place| place.source == Source::Configured)
    }

    /// Whether a dial could be made.
    pub(super) fn can_be_dialled(&self) -> bool {
        self.connected.is_none() && !self.is_dialling && !self.is_blocked && !self.places.is_empty()
    }

    /// Whether nothing is lost but its addresses if it is forgotten.
    pub(super) fn is_idle(&self) -> bool {
        self.connected.is_none() && !self.is_dialling && !self.is_blocked && !self.is_once && !self.is_configured()
    }
}
