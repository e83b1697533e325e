//! Peers that do not keep to the protocol.

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, SwarmBuilder, identify, noise, ping,
    swarm::{
        NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};

use super::*;

const SYNC: StreamProtocol = StreamProtocol::new("/kvspace/sync/1");
const PUSH: StreamProtocol = StreamProtocol::new("/kvspace/push/1");

/// Another implementation, as far as it goes.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Raw {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    streams: libp2p_stream::Behaviour,
}

impl Raw {
    fn new(keypair: &Keypair) -> Self {
        let identify = identify::Config::new(behaviour::VERSION.to_owned(), keypair.public());
        Self {
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::default(),
            streams: libp2p_stream::Behaviour::new(),
        }
    }
}

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
    let mut swarm = swarm(Raw::new);
    let mut control = swarm.behaviour().streams.new_control();
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
async fn streams_that_stall_hold_up_no_other_peer() {
    let a = start(1, &[]).await;
    let mut b = start(2, &a.net.addresses()).await;
    assert_eq!(b.event().await, Event::Connected(a.key));
    a.net.wanted(BTreeSet::from([b.key]));
    let mut swarm = swarm(Raw::new);
    let mut control = swarm.behaviour().streams.new_control();
    swarm.dial(address(&a)).unwrap();
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    let length = u32::try_from(MESSAGE_BYTES_MAX).unwrap().to_be_bytes();
    let mut stalled = Vec::new();
    for (number, protocol) in [SYNC, PUSH].into_iter().cycle().take(64).enumerate() {
        let mut stream = soon(control.open_stream(peer_id(&a.key), protocol)).await.unwrap();
        stream.write_all(&length).await.unwrap();
        // Some go beyond the first piece.
        stream.write_all(&vec![0; if number < 4 { 64 * 1024 + 1 } else { 1 }]).await.unwrap();
        stream.flush().await.unwrap();
        stalled.push(stream);
    }
    let key = a.key;
    echo(a.incoming.requests);
    for size in [5, MESSAGE_BYTES_MAX] {
        let text = Bytes::from(vec![7; size]);
        let answer = b.net.ask(&key, Protocol::Sync, text.clone(), Duration::from_secs(20));
        assert_eq!(answer.await.as_ref(), Ok(&text), "{size}");
    }
    drop(stalled);
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

#[tokio::test]
async fn a_peer_has_two_connections_at_most_and_is_told_once() {
    let mut a = start(1, &[]).await;
    let mut swarm = swarm(Raw::new);
    let mut connections = Vec::new();
    for _ in 0..3 {
        let options = DialOpts::peer_id(peer_id(&a.key)).condition(PeerCondition::Always);
        swarm.dial(options.addresses(vec![address(&a)]).allocate_new_port().build()).unwrap();
    }
    let mut closed = None;
    while connections.len() < 3 || closed.is_none() {
        match soon(swarm.select_next_some()).await {
            SwarmEvent::ConnectionEstablished { connection_id, .. } => connections.push(connection_id),
            SwarmEvent::ConnectionClosed { connection_id, .. } => closed = Some(connection_id),
            _ => {}
        }
    }
    connections.retain(|connection| Some(*connection) != closed);
    assert!(swarm.close_connection(connections[0]));
    while !matches!(soon(swarm.select_next_some()).await, SwarmEvent::ConnectionClosed { .. }) {}
    let mut control = swarm.behaviour().streams.new_control();
    let driving = tokio::spawn(async move { while swarm.next().await.is_some() {} });
    let mut stream = soon(control.open_stream(peer_id(&a.key), SYNC)).await.unwrap();
    stream.write_all(&[0, 0, 0, 1, b'?']).await.unwrap();
    a.asked().await.answer(Bytes::from("still here"));
    assert_eq!(a.event().await, Event::Connected(key(9)));
    assert!(a.incoming.events.is_empty() && a.net.is_connected(&key(9)));
    driving.abort();
    drop((stream, control));
    assert_eq!(a.event().await, Event::Disconnected(key(9)));
}
