//! Nodes on the loopback that connect, ask, stream, block and come back.

use std::{future::Future, task::Poll};

use ed25519_dalek::SigningKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

mod hostile;

const ANY_PORT: &str = "/ip4/127.0.0.1/tcp/0";
const LONG: Duration = Duration::from_secs(60);

/// A node of these tests.
struct Peer {
    key: HostKey,
    net: Network,
    incoming: Incoming,
}

fn options(seed: u8, listen: &[&str], peers: &[String]) -> NetOptions {
    NetOptions {
        key: [seed; 32],
        listen: listen.iter().map(ToString::to_string).collect(),
        peers: peers.to_vec(),
        mdns: false,
    }
}

fn key(seed: u8) -> HostKey {
    HostKey(SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes())
}

async fn start_at(seed: u8, listen: &str, peers: &[String]) -> Peer {
    let (net, incoming) = Network::start(options(seed, &[listen], peers)).await.unwrap();
    Peer { key: key(seed), net, incoming }
}

async fn start(seed: u8, peers: &[String]) -> Peer {
    start_at(seed, ANY_PORT, peers).await
}

/// Two nodes, the second of which dials the first, and both know it.
async fn pair() -> (Peer, Peer) {
    let mut a = start(1, &[]).await;
    let mut b = start(2, &a.net.addresses()).await;
    assert_eq!(a.event().await, Event::Connected(b.key));
    assert_eq!(b.event().await, Event::Connected(a.key));
    (a, b)
}

/// What comes within a time that is long enough for any machine.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("it comes within a minute")
}

impl Peer {
    async fn event(&mut self) -> Event {
        soon(self.incoming.events.recv()).await.expect("the network runs")
    }

    async fn asked(&mut self) -> Asked {
        soon(self.incoming.requests.recv()).await.expect("the network runs")
    }

    async fn ask(&self, peer: HostKey, text: &str) -> Result<Bytes, AskError> {
        self.net.ask(&peer, Protocol::Sync, Bytes::copy_from_slice(text.as_bytes()), LONG).await
    }

    /// The address without the id.
    fn place(&self) -> String {
        let address = self.net.addresses().pop().unwrap();
        address.split("/p2p/").next().unwrap().to_owned()
    }
}

/// Answers every request with the bytes it has.
fn echo(mut requests: mpsc::Receiver<Asked>) {
    tokio::spawn(async move {
        while let Some(asked) = requests.recv().await {
            let body = asked.body.clone();
            asked.answer(body);
        }
    });
}

#[tokio::test]
async fn connected_nodes_answer_each_other_in_both_protocols() {
    let (mut a, mut b) = pair().await;
    for protocol in [Protocol::Sync, Protocol::Push] {
        for turn in [0, 1] {
            let (asking, answering) = if turn == 0 { (&a, &mut b) } else { (&b, &mut a) };
            let (key, text) = (answering.key, Bytes::from("what have you?"));
            let answer = async {
                let asked = answering.asked().await;
                assert_eq!((asked.peer, asked.protocol, &asked.body[..]), (asking.key, protocol, &text[..]));
                asked.answer(Bytes::from("this"));
            };
            let (said, ()) = tokio::join!(asking.net.ask(&key, protocol, text.clone(), LONG), answer);
            assert_eq!(said, Ok(Bytes::from("this")));
        }
    }
    assert_eq!((a.net.connected(), b.net.is_connected(&a.key)), (vec![b.key], true));
    assert_eq!(a.net.dropped(), Dropped::default());
}

#[tokio::test]
async fn a_configured_address_without_an_id_finds_its_peer() {
    let a = start(1, &[]).await;
    let mut b = start(2, &[a.place()]).await;
    assert_eq!(b.event().await, Event::Connected(a.key));
    let info = b.net.peers().pop().unwrap();
    assert_eq!((info.peer, info.is_configured, info.addresses), (a.key, true, vec![a.place()]));
    assert!(info.connected.is_some() && info.next_dial.is_none());
}

#[tokio::test]
async fn nodes_connect_over_quic() {
    let a = start_at(1, "/ip4/127.0.0.1/udp/0/quic-v1", &[]).await;
    let mut b = start(2, &a.net.addresses()).await;
    assert_eq!(b.event().await, Event::Connected(a.key));
    let key = a.key;
    echo(a.incoming.requests);
    assert_eq!(b.ask(key, "hello").await, Ok(Bytes::from("hello")));
}

#[tokio::test]
async fn the_largest_message_arrives_and_a_larger_one_is_not_sent() {
    let (a, b) = pair().await;
    let key = a.key;
    echo(a.incoming.requests);
    let largest = Bytes::from(vec![7; MESSAGE_BYTES_MAX]);
    assert_eq!(b.net.ask(&key, Protocol::Push, largest.clone(), LONG).await, Ok(largest));
    let larger = Bytes::from(vec![7; MESSAGE_BYTES_MAX + 1]);
    assert_eq!(b.net.ask(&key, Protocol::Push, larger, LONG).await, Err(AskError::TooLarge));
}

#[tokio::test]
async fn an_answer_that_is_none_or_too_large_is_a_refusal() {
    let (mut a, b) = pair().await;
    let key = a.key;
    let refusals = async {
        drop(a.asked().await);
        a.asked().await.answer(Bytes::new());
        a.asked().await.answer(Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]));
    };
    let asks = async {
        for _ in 0..3 {
            assert_eq!(b.ask(key, "no?").await, Err(AskError::Refused));
        }
    };
    tokio::join!(refusals, asks);
}

#[tokio::test]
async fn who_asks_waits_no_longer_than_it_wants() {
    let (mut a, b) = pair().await;
    let short = Duration::from_millis(50);
    assert_eq!(b.net.ask(&a.key, Protocol::Sync, Bytes::from("?"), short).await, Err(AskError::TimedOut));
    drop(a.asked().await);
}

#[tokio::test]
async fn a_peer_that_is_not_connected_is_not_asked() {
    let a = start(1, &[]).await;
    let b = start(2, &[]).await;
    assert_eq!(futures::poll!(Box::pin(b.ask(a.key, "?"))), Poll::Ready(Err(AskError::NotConnected)));
    let opened = futures::poll!(Box::pin(b.net.open_stream(&a.key)));
    assert!(matches!(opened, Poll::Ready(Err(AskError::NotConnected))));
}

#[tokio::test]
async fn requests_to_one_peer_are_bounded_and_all_are_answered() {
    const ASKS: usize = 100;
    let (mut a, b) = pair().await;
    let key = a.key;
    let all: Vec<_> = (0..ASKS)
        .map(|number| {
            let net = b.net.clone();
            tokio::spawn(async move { net.ask(&key, Protocol::Sync, Bytes::from(number.to_string()), LONG).await })
        })
        .collect();
    let mut held = Vec::new();
    while held.len() < state::ASKS_MAX {
        held.push(a.asked().await);
    }
    // A request of the other protocol goes the same way: what was sent before it would be here before it.
    let net = b.net.clone();
    let barrier = tokio::spawn(async move { net.ask(&key, Protocol::Push, Bytes::from("done"), LONG).await });
    let last = a.asked().await;
    assert_eq!(last.protocol, Protocol::Push, "more than {} requests are on their way", state::ASKS_MAX);
    last.answer(Bytes::from("done"));
    assert!(barrier.await.unwrap().is_ok());
    for asked in held {
        let body = asked.body.clone();
        asked.answer(body);
    }
    echo(a.incoming.requests);
    for (number, ask) in all.into_iter().enumerate() {
        assert_eq!(soon(ask).await.unwrap(), Ok(Bytes::from(number.to_string())));
    }
}

#[tokio::test]
async fn a_request_that_was_given_up_keeps_its_turn_until_the_peer_is_done() {
    let (mut a, b) = pair().await;
    let key = a.key;
    let ask = |protocol, ms| b.net.ask(&key, protocol, Bytes::from("?"), Duration::from_millis(ms));
    let mut held = Vec::new();
    for _ in 0..state::ASKS_MAX {
        assert_eq!(ask(Protocol::Sync, 50).await, Err(AskError::TimedOut));
        held.push(a.asked().await);
    }
    assert_eq!(ask(Protocol::Sync, 50).await, Err(AskError::TimedOut));
    let barrier = async { a.asked().await };
    let (_, next) = tokio::join!(ask(Protocol::Push, 50), barrier);
    assert_eq!(next.protocol, Protocol::Push, "the last request did not leave");
    drop(held);
    echo(a.incoming.requests);
    assert_eq!(b.ask(key, "now?").await, Ok(Bytes::from("now?")));
}

#[tokio::test]
async fn too_many_requests_to_one_peer_are_not_even_queued() {
    let (a, b) = pair().await;
    let key = a.key;
    let asks: Vec<_> = (0..state::ASKS_WAITING_MAX)
        .map(|_| {
            let net = b.net.clone();
            tokio::spawn(async move { net.ask(&key, Protocol::Push, Bytes::from("?"), LONG).await })
        })
        .collect();
    let session = b.net.shared.lock().session(&key).unwrap().clone();
    while session.waiting.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(b.ask(key, "?").await, Err(AskError::Busy));
    a.net.stop().await;
    for ask in asks {
        assert_eq!(soon(ask).await.unwrap(), Err(AskError::NotConnected));
    }
}

#[tokio::test]
async fn a_blocked_peer_is_cut_off_until_it_is_taken_back() {
    let (mut a, mut b) = pair().await;
    a.net.block(b.key, Blocked::Yes);
    let mut asking = Box::pin(a.ask(b.key, "?"));
    assert_eq!(futures::poll!(&mut asking), Poll::Ready(Err(AskError::NotConnected)), "from now on");
    drop(asking);
    assert_eq!(a.event().await, Event::Disconnected(b.key));
    assert_eq!(b.event().await, Event::Disconnected(a.key));
    // The other side is configured to be connected, and dials. It is closed again before anything is told here.
    while b.net.peers()[0].last_error.is_none() && b.incoming.events.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(a.net.peers().iter().any(|info| info.is_blocked && info.next_dial.is_none()));
    assert!(!a.net.is_connected(&b.key) && a.incoming.events.is_empty());
    a.net.block(b.key, Blocked::No);
    assert_eq!(a.event().await, Event::Connected(b.key));
    a.net.stop().await;
}

#[tokio::test]
async fn a_blocked_peer_is_not_dialled() {
    let a = start(1, &[]).await;
    let (net, mut incoming) = Network::start(options(2, &[], &[])).await.unwrap();
    net.block(a.key, Blocked::Yes);
    net.order(|state| {
        let address = a.place().parse().unwrap();
        state.dialler.handle_learnt(Millis(0), a.key, vec![address], dial::Found::Told);
        state.dialler.set_wanted([a.key].into());
    });
    assert_eq!(net.peers()[0].next_dial, None);
    net.block(a.key, Blocked::No);
    assert_eq!(soon(incoming.events.recv()).await, Some(Event::Connected(a.key)));
}

#[tokio::test]
async fn a_peer_that_comes_back_at_its_address_is_dialled_again() {
    let (a, mut b) = pair().await;
    let place = a.place();
    a.net.stop().await;
    assert_eq!(b.event().await, Event::Disconnected(a.key));
    let mut a = start_at(1, &place, &[]).await;
    assert_eq!(a.event().await, Event::Connected(b.key));
    assert_eq!(b.event().await, Event::Connected(a.key));
    echo(a.incoming.requests);
    assert_eq!(b.ask(a.key, "there?").await, Ok(Bytes::from("there?")));
}

#[tokio::test]
async fn a_wanted_peer_is_dialled_at_the_address_it_told() {
    let (mut a, b) = pair().await;
    while a.net.peers().iter().all(|info| !info.addresses.contains(&b.place())) {
        tokio::task::yield_now().await;
    }
    let place = b.place();
    b.net.stop().await;
    assert_eq!(a.event().await, Event::Disconnected(b.key));
    assert!(a.net.peers().iter().all(|info| info.next_dial.is_none()), "nobody wants it yet");
    let mut b = start_at(2, &place, &[]).await;
    a.net.wanted([a.key, b.key].into());
    assert_eq!(b.event().await, Event::Connected(a.key));
    assert_eq!(a.event().await, Event::Connected(b.key));
}

#[tokio::test]
async fn nodes_that_dial_each_other_stay_connected() {
    for round in 0..5 {
        let (first, second) = (start(1, &[]).await, start(2, &[]).await);
        let (at, and) = (first.place(), second.place());
        first.net.stop().await;
        second.net.stop().await;
        let ends = [and.clone()];
        let (mut a, mut b) = tokio::join!(start_at(1, &at, &ends), start_at(2, &and, std::slice::from_ref(&at)));
        assert_eq!(a.event().await, Event::Connected(b.key), "round {round}");
        assert_eq!(b.event().await, Event::Connected(a.key), "round {round}");
        let (to_a, to_b) = (a.key, b.key);
        let (from_a, from_b) = (a.net.clone(), b.net.clone());
        echo(a.incoming.requests);
        echo(b.incoming.requests);
        for _ in 0..20 {
            let hello = || Bytes::from("hello");
            assert_eq!(from_a.ask(&to_b, Protocol::Sync, hello(), LONG).await, Ok(hello()));
            assert_eq!(from_b.ask(&to_a, Protocol::Push, hello(), LONG).await, Ok(hello()));
        }
        assert!(a.incoming.events.is_empty() && b.incoming.events.is_empty(), "nobody went away");
    }
}

#[tokio::test]
async fn a_renewed_connection_is_told_as_gone_and_come() {
    let (mut a, mut b) = pair().await;
    b.net.renew(a.key);
    for (peer, other) in [(&mut b, a.key), (&mut a, key(2))] {
        assert_eq!(peer.event().await, Event::Disconnected(other));
        assert_eq!(peer.event().await, Event::Connected(other));
    }
}

#[tokio::test]
async fn a_stream_carries_more_than_any_message() {
    const SIZE: usize = 8 * 1024 * 1024;
    let (mut a, b) = pair().await;
    let send = async {
        let mut stream = b.net.open_stream(&a.key).await.unwrap();
        stream.write_all(&vec![5; SIZE]).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let receive = async {
        let (peer, mut stream) = soon(a.incoming.streams.recv()).await.unwrap();
        let mut bytes = Vec::new();
        soon(stream.read_to_end(&mut bytes)).await.unwrap();
        (peer, bytes)
    };
    let ((), (peer, bytes)) = tokio::join!(send, receive);
    assert_eq!((peer, bytes.len()), (b.key, SIZE));
    assert!(bytes.iter().all(|byte| *byte == 5));
}

#[tokio::test]
async fn streams_that_nobody_has_room_for_are_dropped_and_counted() {
    let (a, b) = pair().await;
    let mut streams = Vec::new();
    for _ in 0..state::STREAMS_PER_PEER_MAX {
        streams.push(b.net.open_stream(&a.key).await.unwrap());
    }
    // Those that were dropped here are still held there, so the next ones are too many.
    streams.clear();
    let mut stream = b.net.open_stream(&a.key).await.unwrap();
    assert_eq!(soon(stream.read(&mut [0])).await.ok(), Some(0));
    assert_eq!(a.net.dropped().streams, 1);
}

#[tokio::test]
async fn stopping_fails_what_is_on_its_way() {
    let (mut a, b) = pair().await;
    let (key, net) = (a.key, b.net.clone());
    let asking = tokio::spawn(async move { net.ask(&key, Protocol::Sync, Bytes::from("?"), LONG).await });
    let asked = a.asked().await;
    soon(b.net.stop()).await;
    assert_eq!(soon(asking).await.unwrap(), Err(AskError::Closed));
    soon(b.net.stop()).await;
    assert_eq!(b.ask(a.key, "?").await, Err(AskError::Closed));
    assert_eq!(a.event().await, Event::Disconnected(b.key));
    asked.answer(Bytes::from("too late"));
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_named() {
    let a = start(1, &[]).await;
    for (listen, peers) in [(vec!["nowhere"], vec![]), (vec![], vec!["nowhere".to_owned()])] {
        let error = Network::start(options(2, &listen, &peers)).await.err().unwrap();
        assert!(matches!(error, NetError::Address { address, .. } if address == "nowhere"));
    }
    let error = Network::start(options(2, &[&a.place()], &[])).await.err().unwrap();
    assert!(matches!(&error, NetError::Listen { address, .. } if *address == a.place()), "{error}");
}
