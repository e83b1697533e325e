//! Peers that no owner named: they may connect, and get nothing.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use kvspace_client::{Address, BlobHash, EpochId};
use kvspace_protocol::{
    epoch::{Epoch, Event, Header},
    id::{BodyId, HostKey, Incarnation},
    limits::MESSAGE_BYTES_MAX,
    sync::{
        Have, Request, Response, Sent, Verdict, blob, compare,
        message::{Pushed, Refused},
    },
};

use super::bytes;
use crate::harness::{
    Cluster, Owner, Statement,
    cluster::{after, epoch, explain, heads, is_connected, metric},
    peer::{BLOB, PUSH, Peer, SYNC, ThenRead},
    process::{eventually, files},
    tokens::{DEL, GET, LIST, delegate, did, new_key, now},
};

/// A value and its epoch.
type Written = (Vec<u8>, EpochId);

/// Three hosts with two values, one of which is small and one large.
fn filled() -> (Cluster, [Written; 2]) {
    let cluster = Cluster::of(3);
    let values = [("small", bytes(100, 1)), ("large", bytes(400_000, 2))].map(|(key, value)| {
        let written = cluster.session.put(&cluster.hosts[0], key, value.clone()).expect(200);
        (value, epoch(&written).parse().expect("an id"))
    });
    cluster.converge();
    (cluster, values)
}

/// Asks for all of a value.
fn range(cluster: &Cluster, (value, epoch): &Written, shown: &[Bytes]) -> blob::Request {
    let (hash, size) = (BlobHash::of(value), value.len() as u64);
    let (space, shown) = (cluster.space.clone(), shown.to_vec());
    blob::Request { space, epoch: *epoch, hash, size, from: 0, to: size, shown }
}

fn ids(heads: &[String]) -> Vec<EpochId> {
    heads.iter().map(|head| head.parse().expect("an id")).collect()
}

/// The first epoch of this key as a host, on top of these: it deletes a key.
fn made(cluster: &Cluster, key: &SigningKey, parents: &[EpochId], proof: Option<Address>, path: &str) -> Sent {
    let token = cluster.session.wants(DEL, path).sign(&cluster.session.key);
    let seq = u64::try_from(now().0 + 1_000).expect("after 1970") << 16;
    let header = Header {
        v: 1,
        space: cluster.space.clone(),
        host: HostKey(key.verifying_key().to_bytes()),
        proof,
        incarnation: Incarnation([7; 8]),
        n: 0,
        prev: None,
        parents: parents.to_vec(),
        seq,
        body: BodyId::of(b""),
    };
    let event = Event { token: token.bytes().to_vec(), values: Vec::new() };
    Sent { epoch: Epoch::sign(header, vec![event], key).expect("a sound form").signed, values: Vec::new() }
}

const NOTHING: Option<Response> = Some(Response::Refused(Refused::NotFound));

/// Everything that hosts ask each other.
fn questions(cluster: &Cluster, heads: &[EpochId], shown: &[Bytes]) -> Vec<Request> {
    let (space, shown) = (cluster.space.clone(), shown.to_vec());
    let pull = |have: Have| Request::Pull { space: space.clone(), have, after: None, shown: shown.clone() };
    vec![
        pull(Have::Heads(Vec::new())),
        pull(Have::Heads(heads.to_vec())),
        pull(Have::Branches { tips: Vec::new(), rest: None }),
        Request::Get { space: space.clone(), epochs: heads.to_vec(), shown: shown.clone() },
        Request::Proofs { space: space.clone(), addresses: vec![cluster.session.delegation().address()], shown },
    ]
}

#[test]
fn a_strangers_node_gets_nothing() {
    let (cluster, _) = filled();
    // It is connected to all, and has its own space of the same owner's name.
    let stranger = cluster.newcomer(&[0, 1, 2]);
    for place in &cluster.places {
        eventually("it is connected", || is_connected(&stranger, &place.did()));
    }
    let written = cluster.session.put(&cluster.hosts[1], "more", "x").expect(200);
    let read = cluster.session.invoke(GET, "small");
    let answer = stranger.ask(&after(read, &epoch(&written))).expect(404);
    assert_eq!(answer.text(), "Space not found");
    explain(&stranger, &cluster.session, "small").expect(404);
    stranger.ask(&cluster.session.invoke(LIST, "")).expect(404);
    assert!(heads(&stranger, &cluster.space).is_empty());
    assert_eq!(stranger.status()["spaces"], serde_json::json!([]));
    assert!(files(&stranger.data_dir().join("blobs")).is_empty());
}

#[test]
fn a_stranger_that_makes_itself_a_host_is_one_nowhere_else() {
    let (cluster, _) = filled();
    let stranger = cluster.newcomer(&[0]);
    // Another owner's word counts for nothing in this space.
    let other = Owner::wallet(9);
    let word = other.host(&cluster.space, &stranger.did());
    assert_ne!(delegate(&stranger, &word).status, 500);
    let written = cluster.session.put(&cluster.hosts[0], "more", "x").expect(200);
    stranger.ask(&after(cluster.session.invoke(GET, "small"), &epoch(&written))).expect(404);
    assert!(heads(&stranger, &cluster.space).is_empty());
}

#[test]
fn a_stranger_that_asks_for_everything_gets_nothing() {
    let (cluster, values) = filled();
    let heads = ids(&cluster.heads(&cluster.hosts[0]));
    let key = new_key();
    let peer = Peer::connect(&key, &cluster.places[0].multiaddress());
    // It shows what it may have found: a session's delegation, which is for another key, and a word of its own.
    let own = Owner::Key(key.clone()).host(&cluster.space, &did(&key));
    let found =
        [cluster.session.delegation(), &cluster.words[1], &own].map(|token| Bytes::from(token.bytes().to_vec()));
    for shown in [&[][..], &found[..1], &found[1..2], &found[2..], &found[..]] {
        for question in questions(&cluster, &heads, shown) {
            assert_eq!(peer.ask(&question), NOTHING, "{question:?}");
        }
        for value in &values {
            let request = range(&cluster, value, shown);
            assert_eq!(peer.ask_for(&request), Some(blob::Status::NotFound));
        }
    }
    // "Not here" and "not yours" look the same.
    let pull = |space: &kvspace_client::SpaceId| {
        let have = Have::Heads(Vec::new());
        peer.ask(&Request::Pull { space: space.clone(), have, after: None, shown: Vec::new() })
    };
    assert_eq!(pull(&cluster.space), pull(&cluster.owner.space("nowhere")));
    // Comparing says nothing about spaces that are not shared.
    let items = compare::Items::new([compare::item(&cluster.space, &heads)]);
    let (mut comparison, mut message) = compare::Comparison::begin(&items);
    loop {
        let answer = peer.ask(&Request::Compare(message));
        let Some(Response::Compare(answer)) = answer else { panic!("comparing is answered by {answer:?}") };
        match comparison.step(&answer).expect("a message") {
            compare::Step::Send(next) => message = next,
            compare::Step::Done(ours) => {
                assert_eq!(ours, [compare::item(&cluster.space, &heads)], "the node has let on that it has this");
                break;
            }
        }
    }
    assert!(metric(&cluster.hosts[0], "kvspace_peer_requests_total", &["pull", "not found"]) > 0.0);
}

#[test]
fn a_stranger_brings_nothing() {
    let (cluster, _) = filled();
    let before = cluster.heads(&cluster.hosts[0]);
    let (key, host) = (new_key(), &cluster.hosts[0]);
    let peer = Peer::connect(&key, &cluster.places[0].multiaddress());
    for proof in [None, Some(cluster.words[1].address()), Some(cluster.session.delegation().address())] {
        let sent = made(&cluster, &key, &ids(&before), proof, "small");
        let pushed = Pushed { space: cluster.space.clone(), epochs: vec![sent], told: Vec::new() };
        let answer = peer.ask(&Request::Push(vec![pushed]));
        assert_eq!(answer, Some(Response::Push(vec![Verdict::Refused(Refused::NotFound)])));
    }
    let written = cluster.session.put(host, "own", "x").expect(200);
    cluster.get_after(1, "own", &epoch(&written)).expect(200);
    cluster.session.get(host, "small").expect(200);
    assert_eq!(cluster.converge(), [epoch(&written)], "nothing else is a head");
    assert!(metric(host, "kvspace_peer_requests_total", &["push"]) > 0.0);
}

#[test]
fn a_peer_with_a_read_capability_reads_and_brings_nothing() {
    let (cluster, values) = filled();
    let heads = ids(&cluster.heads(&cluster.hosts[0]));
    let key = new_key();
    let reader = {
        let statement = Statement::of(format!("{}/kv", cluster.space), &[GET]);
        cluster.owner.sign(&statement.to(&did(&key)).until(100_000))
    };
    let peer = Peer::connect(&key, &cluster.places[0].multiaddress());
    let shown = vec![Bytes::from(reader.bytes().to_vec())];
    let have = Have::Branches { tips: Vec::new(), rest: None };
    let pull = Request::Pull { space: cluster.space.clone(), have, after: None, shown: shown.clone() };
    let answer = peer.ask(&pull);
    let Some(Response::Epochs { heads: told, epochs, .. }) = answer else { panic!("a reader may read: {answer:?}") };
    assert_eq!(told, heads);
    assert!(epochs.iter().any(|sent| sent.values.iter().any(|value| *value == values[0].0)), "small values come along");
    assert_eq!(peer.ask_for(&range(&cluster, &values[1], &shown)), Some(blob::Status::Follows));
    let sent = made(&cluster, &key, &heads, Some(reader.address()), "small");
    let pushed = Pushed { space: cluster.space.clone(), epochs: vec![sent], told: Vec::new() };
    let answer = peer.ask(&Request::Push(vec![pushed]));
    assert_eq!(answer, Some(Response::Push(vec![Verdict::Refused(Refused::NotFound)])));
    assert_eq!(ids(&cluster.heads(&cluster.hosts[0])), heads);
}

/// What no host would say, as a message and as bytes on the stream.
fn nonsense(cluster: &Cluster, heads: &[EpochId]) -> Vec<Vec<u8>> {
    let mut found = vec![
        Vec::new(),
        vec![0],
        vec![0xff; 1000],
        bytes(100_000, 3),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        // CBOR: lists in lists, and a list that claims to be endless.
        vec![0x81; 100_000],
        vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        Request::Compare(bytes(60_000, 4).into()).encode().to_vec(),
        Request::Compare(bytes(60 * 1024 + 1, 4).into()).encode().to_vec(),
        Response::Proofs(Vec::new()).encode().to_vec(),
    ];
    for question in questions(cluster, heads, &[bytes(65 * 1024, 5).into()]) {
        found.push(question.encode().to_vec());
    }
    for question in questions(cluster, heads, &[]) {
        let whole = question.encode().to_vec();
        found.extend((1..whole.len()).step_by(whole.len() / 8 + 1).map(|cut| whole[..cut].to_vec()));
        for at in (0..whole.len()).step_by(whole.len() / 8 + 1) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x40;
            found.push(flipped);
        }
    }
    found
}

#[test]
fn nonsense_from_a_peer_hurts_nobody() {
    let (cluster, _) = filled();
    // Both a stranger and a host may talk nonsense.
    let [stranger, host] = [new_key(), new_key()];
    delegate(&cluster.hosts[0], &cluster.owner.host(&cluster.space, &did(&host))).expect(200);
    let heads = ids(&cluster.converge());
    for key in [stranger, host] {
        let mut peer = Peer::connect(&key, &cluster.places[0].multiaddress());
        let mut answered = 0;
        for message in nonsense(&cluster, &heads) {
            for protocol in [SYNC, PUSH, BLOB] {
                if peer.is_cut_off() {
                    peer = Peer::connect(&key, &cluster.places[0].multiaddress());
                }
                if let Ok(answer) = peer.exchange(protocol.clone(), &message) {
                    let is_short = answer.len() < 2_000;
                    assert!(is_short, "{} bytes for {} of nonsense", answer.len(), message.len());
                    answered += 1;
                }
                drop(peer.send(protocol, &message, ThenRead::End));
            }
        }
        assert!(answered > 50, "{answered} answers");
        let oversize = u32::try_from(MESSAGE_BYTES_MAX + 1).expect("it is small").to_be_bytes();
        for length in [oversize, u32::MAX.to_be_bytes()] {
            for protocol in [SYNC, PUSH, BLOB] {
                let answer = peer.send(protocol, &length, ThenRead::Message).unwrap_or_default();
                assert!(answer.len() < 100, "{}", answer.len());
            }
        }
    }
    assert!(metric(&cluster.hosts[0], "kvspace_peer_requests_total", &["malformed"]) > 0.0);
    let log = cluster.hosts[0].log();
    assert!(!log.contains("panic"), "{log}");
    lives(&cluster);
}

/// All hosts still do what they are there for.
fn lives(cluster: &Cluster) {
    for from in 0..cluster.hosts.len() {
        let written = cluster.session.put(&cluster.hosts[from], "lives", from.to_string()).expect(200);
        for to in 0..cluster.hosts.len() {
            assert_eq!(cluster.get_after(to, "lives", &epoch(&written)).expect(200).text(), from.to_string());
        }
    }
}

#[test]
fn a_flood_of_a_stranger_hurts_nobody() {
    let (cluster, _) = filled();
    let before = cluster.hosts[0].memory_kb("VmRSS");
    let question = Request::Pull {
        space: cluster.space.clone(),
        have: Have::Heads((0..1_000_u32).map(|n| EpochId::of(&n.to_be_bytes())).collect()),
        after: None,
        shown: Vec::new(),
    }
    .encode();
    let message = [&u32::try_from(question.len()).expect("small").to_be_bytes(), &question[..]].concat();
    let peers: Vec<_> = (0..4).map(|_| Peer::connect(&new_key(), &cluster.places[0].multiaddress())).collect();
    for _ in 0..10 {
        for peer in &peers {
            // Nobody reads the answers.
            drop(peer.stall(&SYNC, &message, 50));
        }
        lives(&cluster);
    }
    let after = cluster.hosts[0].memory_kb("VmRSS");
    assert!(after < before + 100_000, "it took {} kB", after.saturating_sub(before));
}

#[test]
fn a_stranger_that_stalls_holds_nobody_up() {
    let mut cluster = Cluster::linked(&[vec![], vec![0]], |_, setup| setup);
    cluster.hosts[1].stop();
    let written = cluster.session.put(&cluster.hosts[0], "a", "meanwhile").expect(200);
    let length = u32::try_from(MESSAGE_BYTES_MAX).expect("it is small").to_be_bytes();
    let peers: Vec<_> = (0..4).map(|_| Peer::connect(&new_key(), &cluster.places[0].multiaddress())).collect();
    // The largest messages there are, of which nothing follows but their length.
    let stalled: Vec<_> = peers.iter().flat_map(|peer| peer.stall(&SYNC, &length, 16)).collect();
    assert_eq!((stalled.len(), peers.iter().filter(|peer| peer.is_cut_off()).count()), (64, 0));
    // A host asks for what it has missed.
    cluster.hosts[1].start();
    assert_eq!(cluster.get_after(1, "a", &epoch(&written)).expect(200).text(), "meanwhile");
    lives(&cluster);
    drop(stalled);
}

#[test]
fn two_epochs_with_one_number_are_both_held_and_shown() {
    let cluster = Cluster::of(2);
    cluster.session.put(&cluster.hosts[0], "a", "value").expect(200);
    // A host of its own kind: the owner named it, and it says one thing here and another there.
    let key = new_key();
    let word = cluster.owner.host(&cluster.space, &did(&key));
    delegate(&cluster.hosts[0], &word).expect(200);
    let heads = ids(&cluster.converge());
    for (place, path) in cluster.places.iter().zip(["a", "b"]) {
        let peer = Peer::connect(&key, &place.multiaddress());
        let sent = made(&cluster, &key, &heads, Some(word.address()), path);
        let pushed = Pushed { space: cluster.space.clone(), epochs: vec![sent], told: Vec::new() };
        let answer = peer.ask(&Request::Push(vec![pushed]));
        assert_eq!(answer, Some(Response::Push(vec![Verdict::Taken])));
    }
    for host in &cluster.hosts {
        eventually("both are here", || cluster.heads(host).len() == 2);
        let explained = cluster.explain(host, "a");
        let forks = explained["forks"].as_array().expect("a list");
        assert_eq!(forks.len(), 1, "{explained}");
        assert_eq!(forks[0]["host"], did(&key).as_str());
        // Nothing of it is taken back: the delete counts.
        cluster.session.get(host, "a").expect(404);
    }
    cluster.converge();
}
