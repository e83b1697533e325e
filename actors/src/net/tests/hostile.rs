//! Peers that do not keep to the protocol.

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, SwarmBuilder, identify, noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};

use super::*;

const SYNC: StreamProtocol = StreamProtocol::new("/kvspace/sync/1");

fn swarm<B: NetworkBehaviour>(behaviour: impl FnOnce(&Keypair) -> B) -> Swarm<B> {
    SwarmBuilder::with_existing_identity(Keypair::ed25519_from_bytes([9; 32]).unwrap())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|keypair| behaviour(keypair))
        .unwrap()
        .build()
}

fn address(peer: &Peer) -> Multiaddr {
    peer.net.addresses()[0].parse().unwrap()
}

#[tokio::test]
async fn a_length_above_the_cap_ends_the_stream_and_nothing_else() {
    let mut a = start(1, &[]).await;
    let mut swarm = swarm(|_| libp2p_stream::Behaviour::new());
    let mut control = swarm.behaviour().new_control();
    swarm.dial(address(&a)).unwrap();
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    let peer = peer_id(&a.key);

    let mut stream = soon(control.open_stream(peer, SYNC)).await.unwrap();
    stream.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    // The stream stays open here, so only the other end can end it.
    let ended = soon(stream.read(&mut [0])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");

    let mut stream = soon(control.open_stream(peer, SYNC)).await.unwrap();
    stream.write_all(&[0, 0, 0, 2, b'h', b'i']).await.unwrap();
    stream.flush().await.unwrap();
    let asked = a.asked().await;
    assert_eq!((asked.peer, &asked.body[..]), (key(9), &b"hi"[..]));
    asked.answer(Bytes::from("!"));
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, [0, 0, 0, 1, b'!']);
}

#[tokio::test]
async fn a_peer_of_another_kind_is_sent_away() {
    let mut a = start(1, &[]).await;
    let config = |keypair: &Keypair| identify::Config::new("/other/1".to_owned(), keypair.public());
    let mut swarm = swarm(|keypair| identify::Behaviour::new(config(keypair)));
    swarm.dial(address(&a)).unwrap();
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    assert_eq!(a.event().await, Event::Connected(key(9)));
    assert_eq!(a.event().await, Event::Disconnected(key(9)));
    let info = a.net.peers().pop().unwrap();
    assert_eq!((info.addresses, info.last_error.as_deref()), (vec![], Some("it is no /kvspace/1 node")));
}
