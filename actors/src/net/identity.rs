//! A host's key as libp2p spells it, and addresses as they are kept here.

use kvspace_protocol::id::HostKey;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol as Part};

/// A `PeerId` of an Ed25519 key: an identity hash of 36 bytes, which are the key's type and length, and then the key.
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Addresses taken from what one peer says of itself.
const TOLD_MAX: usize = 8;

/// The `PeerId` of this host.
pub(super) fn peer_id(key: &HostKey) -> PeerId {
    PeerId::from_bytes(&[&PREFIX[..], &key.0].concat()).expect("an identity hash of 36 bytes is a PeerId")
}

/// The host of this `PeerId`, if it has an Ed25519 key in it.
pub(super) fn host_key(peer: &PeerId) -> Option<HostKey> {
    peer.to_bytes().strip_prefix(&PREFIX)?.try_into().ok().map(HostKey)
}

/// Why a text is not the address of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    /// Not a multiaddress.
    #[error("not a multiaddress such as /ip4/192.0.2.1/tcp/4001 ({0})")]
    NotAMultiaddress(String),
    /// It ends in the id of a peer that has no Ed25519 key.
    #[error("the peer after /p2p/ has no Ed25519 key")]
    OtherKey,
    /// It goes through a relay.
    #[error("addresses through a relay are not supported")]
    Relayed,
    /// It has only the id of a peer, or nothing.
    #[error("it lacks the place itself, such as /ip4/192.0.2.1/tcp/4001")]
    NoPlace,
}

/// Reads an address, and the peer's key if it ends in one.
pub(super) fn read_address(text: &str) -> Result<(Multiaddr, Option<HostKey>), AddressError> {
    let whole: Multiaddr = text.parse().map_err(|error| AddressError::NotAMultiaddress(format!("{error}")))?;
    if whole.iter().any(|part| part == Part::P2pCircuit) {
        return Err(AddressError::Relayed);
    }
    let (address, peer) = split(whole);
    if address.is_empty() {
        return Err(AddressError::NoPlace);
    }
    let key = peer.map(|peer| host_key(&peer).ok_or(AddressError::OtherKey)).transpose()?;
    Ok((address, key))
}

/// The place of an address without the peer at its end, and the peer.
pub(super) fn split(mut address: Multiaddr) -> (Multiaddr, Option<PeerId>) {
    match address.pop() {
        Some(Part::P2p(peer)) => (address, Some(peer)),
        Some(other) => (address.with(other), None),
        None => (address, None),
    }
}

/// What is worth keeping of the addresses that a peer says it listens on. `link` is its end of the connection: only a
/// peer on this machine means this machine by a loopback address.
pub(super) fn told_places(told: Vec<Multiaddr>, id: PeerId, link: Option<&Multiaddr>) -> Vec<Multiaddr> {
    let is_near = link.is_some_and(is_loopback);
    let places = told.into_iter().filter_map(|address| own_place(address, id));
    places.filter(|address| is_near || !is_loopback(address)).take(TOLD_MAX).collect()
}

/// The place of a peer that is told with or without its id, if it can be dialled.
pub(super) fn own_place(address: Multiaddr, id: PeerId) -> Option<Multiaddr> {
    let (address, named) = split(address);
    (named.is_none_or(|named| named == id) && is_dialable(&address)).then_some(address)
}

/// Whether this address is on the machine itself.
fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Part::Ip4(ip)) => ip.is_loopback(),
        Some(Part::Ip6(ip)) => ip.is_loopback(),
        Some(_) | None => false,
    }
}

/// Whether an address that a peer says it listens on is one to dial: a place, a port, no relay.
fn is_dialable(address: &Multiaddr) -> bool {
    let mut has_port = false;
    for (at, part) in address.iter().enumerate() {
        let is_fine = match part {
            Part::Ip4(ip) => at == 0 && !ip.is_unspecified(),
            Part::Ip6(ip) => at == 0 && !ip.is_unspecified(),
            Part::Dns(_) | Part::Dns4(_) | Part::Dns6(_) => at == 0,
            Part::Tcp(port) | Part::Udp(port) => {
                has_port = true;
                at == 1 && port != 0
            }
            Part::QuicV1 => at == 2,
            _ => false,
        };
        if !is_fine {
            return false;
        }
    }
    has_port
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn a_host_key_and_its_peer_id_name_each_other() {
        let keypair = Keypair::ed25519_from_bytes([7; 32]).unwrap();
        let key = HostKey(ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes());
        assert_eq!(peer_id(&key), keypair.public().to_peer_id());
        assert_eq!(host_key(&peer_id(&key)), Some(key));
    }

    #[test]
    fn a_peer_that_has_no_ed25519_key_is_no_host() {
        assert_eq!(host_key(&PeerId::random()), None);
        let other = format!("/ip4/192.0.2.1/tcp/1/p2p/{}", PeerId::random());
        assert_eq!(read_address(&other), Err(AddressError::OtherKey));
    }

    #[test]
    fn an_address_is_read_with_and_without_the_peer() {
        let place: Multiaddr = "/ip4/192.0.2.1/tcp/4001".parse().unwrap();
        let key = HostKey([9; 32]);
        assert_eq!(read_address("/ip4/192.0.2.1/tcp/4001"), Ok((place.clone(), None)));
        assert_eq!(read_address(&format!("{place}/p2p/{}", peer_id(&key))), Ok((place, Some(key))));
        assert_eq!(read_address(&format!("/p2p/{}", peer_id(&key))), Err(AddressError::NoPlace));
        assert!(matches!(read_address("192.0.2.1:4001"), Err(AddressError::NotAMultiaddress(_))));
    }

    #[test]
    fn only_places_with_a_port_are_dialled() {
        let is_fine = |text: &str| is_dialable(&text.parse().unwrap());
        assert!(is_fine("/ip4/192.0.2.1/tcp/4001") && is_fine("/dns4/example.org/udp/1/quic-v1"));
        assert!(!is_fine("/ip4/192.0.2.1/tcp/0") && !is_fine("/ip4/0.0.0.0/tcp/1") && !is_fine("/ip4/192.0.2.1"));
        assert!(!is_fine(&format!("/ip4/192.0.2.1/tcp/1/p2p/{}/p2p-circuit", PeerId::random())));
    }

    #[test]
    fn what_a_peer_says_of_itself_is_sifted() {
        let id = peer_id(&HostKey([9; 32]));
        let read = |text: &str| -> Multiaddr { text.parse().unwrap() };
        let (near, far) = (read("/ip4/127.0.0.1/tcp/1"), read("/ip4/192.0.2.1/tcp/1"));
        let other = far.clone().with(Part::P2p(PeerId::random()));
        let told = vec![near.clone(), far.clone().with(Part::P2p(id)), other];
        assert_eq!(told_places(told.clone(), id, Some(&near)), [near.clone(), far.clone()]);
        assert_eq!(told_places(told.clone(), id, Some(&far)), std::slice::from_ref(&far));
        assert_eq!(told_places(told, id, None), std::slice::from_ref(&far));
        assert_eq!(told_places(vec![far; 20], id, None).len(), TOLD_MAX);
    }
}
