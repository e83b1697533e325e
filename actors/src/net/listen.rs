//! The addresses to listen on and to dial, as the configuration names them.

use std::{
    io,
    net::{IpAddr, TcpListener},
};

use kvspace_protocol::id::HostKey;
use libp2p::{Multiaddr, Swarm, core::transport::ListenerId, multiaddr::Protocol as Part};

use super::{LISTEN_DEADLINE, NetError, behaviour::Behaviour, identity::read_address};

/// An address, and the key of the peer that is there.
pub(super) type Address = (Multiaddr, Option<HostKey>);

/// Reads addresses.
pub(super) fn read(texts: &[String]) -> Result<Vec<Address>, NetError> {
    let read = |text: &String| read_address(text).map_err(|error| NetError::Address { address: text.clone(), error });
    texts.iter().map(read).collect()
}

/// Begins to listen; the listeners come with the addresses as configured.
pub(super) fn begin(swarm: &mut Swarm<Behaviour>, texts: &[String]) -> Result<Vec<(ListenerId, String)>, NetError> {
    let addresses = read(texts)?;
    let all = || texts.iter().zip(&addresses);
    let failed = |text: &String, reason: String| NetError::Listen { address: text.clone(), reason };
    for (text, (address, _)) in all() {
        probe(address).map_err(|error| failed(text, error.to_string()))?;
    }
    all()
        .map(|(text, (address, _))| match swarm.listen_on(address.clone()) {
            Ok(listener) => Ok((listener, text.clone())),
            Err(error) => Err(failed(text, error.to_string())),
        })
        .collect()
}

/// Says that these were not bound in time.
pub(super) fn late(listeners: &[(ListenerId, String)]) -> NetError {
    let address = listeners.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(", ");
    NetError::Listen { address, reason: format!("not bound within {} s", LISTEN_DEADLINE.as_secs()) }
}

/// Fails if somebody listens there. The swarm shares its ports, so two nodes with one port would not notice each other.
fn probe(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next() {
        Some(Part::Ip4(ip)) => ip.into(),
        Some(Part::Ip6(ip)) => ip.into(),
        Some(_) | None => return Ok(()),
    };
    match parts.next() {
        Some(Part::Tcp(port)) if port != 0 => TcpListener::bind((ip, port)).map(drop),
        Some(_) | None => Ok(()),
    }
}
