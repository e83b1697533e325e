//! Records beside entries and epochs: hosts, dead writes, values that are not at hand.

use kvspace_protocol::{
    id::HostKey,
    kv::Version,
    space::{Change, DeadReason},
};

use super::*;
use crate::index::apply::DEAD_MAX;

/// Takes changes in that no epoch brings.
fn fill(index: &SpaceIndex, changes: &[Change]) {
    let durable = Durable { changes, blobs: &[], epochs: &BTreeMap::new() };
    let batches = index.batches(&durable).expect("the index reads");
    let records = &index.index().records;
    let room = records.room_blocking(batches.iter().map(Batch::len).sum::<usize>() as u32).expect("room");
    records.begin(Vec::new()).fill(room, batches).expect("filled");
}

fn version(seq: u64) -> Version {
    Version { seq, epoch: EpochId([7; 32]), number: 3 }
}

fn dead(key: &str, seq: u64, reason: DeadReason) -> Change {
    Change::Dead { key: key.into(), version: version(seq), place: Place { branch: 1, n: seq }, reason }
}

#[test]
fn of_dead_writes_the_newest_of_each_key_are_kept_in_whatever_order_they_come() {
    let reasons =
        [DeadReason::Signature, DeadReason::Authority, DeadReason::Time, DeadReason::After, DeadReason::Content];
    let reason = |seq: u64| reasons[seq as usize % reasons.len()];
    let many = 3 * DEAD_MAX as u64;
    let host = Host::new(2, &owner_of(1));
    let ascending: Vec<_> = (0..many).map(|seq| dead("a", seq, reason(seq))).collect();
    fill(&host.index, &ascending);
    for seq in (0..many).rev() {
        fill(&host.index, &[dead("b", seq, reason(seq))]);
    }
    fill(&host.index, &[dead("ab", 1, DeadReason::Time)]);
    for key in ["a", "b"] {
        let kept = host.index.dead(key).expect("the index reads");
        assert_eq!(kept.len(), DEAD_MAX);
        for (dead, seq) in kept.iter().zip(many - DEAD_MAX as u64..) {
            assert_eq!((dead.version, dead.place.n, dead.reason), (version(seq), seq, reason(seq)), "{key}");
        }
    }
    assert_eq!(host.index.dead("ab").expect("the index reads").len(), 1);
    assert_eq!(host.index.dead("c").expect("the index reads"), []);
    host.log.close();
}

#[test]
fn another_reason_for_a_dead_write_is_told() {
    let hosts = [Host::new(2, &owner_of(1)), Host::new(2, &owner_of(1))];
    let differences = || {
        let mut differences = Vec::new();
        let [kept, made] = &hosts;
        let each = &mut |difference| differences.push(difference);
        compare(kept.index.index(), made.index.index(), &made.log.reader(), each).expect("the indexes read");
        differences
    };
    hosts.iter().for_each(|host| fill(&host.index, &[dead("a", 1, DeadReason::Time)]));
    assert_eq!(differences(), []);
    fill(&hosts[0].index, &[dead("a", 1, DeadReason::After)]);
    let told = differences();
    assert_eq!(
        told.iter().map(|told| &*told.what).collect::<Vec<_>>(),
        ["a dead write on key \"a\" is not what the log says"]
    );
    hosts.iter().for_each(|host| host.log.close());
}

#[test]
fn the_spaces_of_a_host_are_those_it_was_named_for_and_the_owners_own() {
    let rng = &mut StdRng::seed_from_u64(0);
    let owner = owner_of(1);
    let key = |party: &Party| HostKey(party.key.verifying_key().to_bytes());
    let other = Party::new(5);
    // The owner hosts by its own key.
    let mut host = Host::new(1, &owner);
    let spaces = |host: &Host, of: &Party| {
        let spaces = host.index.index().hosted_by(key(of));
        spaces.map(|space| space.expect("the index reads").id().clone()).collect::<Vec<_>>()
    };
    assert_eq!(spaces(&host, &owner), []);
    let (_, delegation) = owner.session(9);
    host.token(delegation);
    host.settle(rng);
    assert_eq!((spaces(&host, &owner), spaces(&host, &other)), (vec![owner.space.clone()], vec![]));
    host.token(owner.host_delegation(&other.did()));
    host.settle(rng);
    assert_eq!(spaces(&host, &other), std::slice::from_ref(&owner.space));
    assert_eq!(spaces(&host, &Party::new(9)), [], "a session hosts nothing");
    host.compare_with_its_log();
}

#[test]
fn a_host_that_only_one_index_names_is_told() {
    let rng = &mut StdRng::seed_from_u64(0);
    let owner = owner_of(1);
    let mut host = Host::new(2, &owner);
    host.token(owner.host_delegation(&host.party.did()));
    host.settle(rng);
    let records = &host.index.index().records;
    let prefix = crate::index::keys::all_hosted();
    let (name, _) = records.scan(&prefix, &prefix).next().expect("one").expect("the index reads");
    records.write_aside(Batch::from([(name, None)])).expect("written");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| host.compare_with_its_log()));
    assert!(caught.is_err(), "it is missing");
}

/// Two hosts of a space with a session each may write with.
fn two_hosts(rng: &mut StdRng) -> ([Host; 2], Party, (Party, kvspace_protocol::authority::Proof)) {
    let owner = owner_of(1);
    let mut hosts = [Host::new(2, &owner), Host::new(3, &owner)];
    for host in &mut hosts {
        host.token(owner.host_delegation(&host.party.did()));
        host.settle(rng);
    }
    let session = owner.session(10);
    (hosts, owner, session)
}

#[test]
fn a_value_that_is_not_at_hand_is_wanted_while_it_wins() {
    let rng = &mut StdRng::seed_from_u64(0);
    let ([mut here, mut there], owner, (session, delegation)) = two_hosts(rng);
    let put = |host: &mut Host, rng: &mut StdRng, key: &str, nonce: u64, bytes: &[u8]| {
        host.write(session.invoke(key, "put", &delegation, nonce), Some((bytes.to_vec(), BTreeMap::new())));
        host.settle(rng);
    };
    let bare = |epochs: Vec<(CheckedEpoch, Vec<Bytes>)>| {
        epochs.into_iter().map(|(checked, _)| (checked, Vec::new())).collect::<Vec<_>>()
    };
    let wanted = |host: &Host| host.wanted(None).into_iter().map(|wanted| wanted.hash).collect::<Vec<_>>();
    for host in [&mut here, &mut there] {
        host.token(delegation.clone());
        host.settle(rng);
    }
    put(&mut there, rng, "k", 1, b"first");
    put(&mut there, rng, "lost", 2, b"lost");
    put(&mut there, rng, "lost", 3, b"won");
    here.receive(bare(there.epochs_for(&here)), rng);
    here.settle(rng);
    let (first, won) = (BlobHash::of(b"first"), BlobHash::of(b"won"));
    let mut both = vec![first, won];
    both.sort_unstable();
    assert_eq!(wanted(&here), both, "what had lost is not");
    assert!(!here.index.index().needs_file(&BlobHash::of(b"lost")).expect("the index reads"));
    let all = here.wanted(None);
    assert_eq!(here.wanted(Some(&all[0].name)), all[1..], "it goes on behind one");
    assert_eq!((all[0].size + all[1].size, &all[0].space), (8, &owner.space));
    assert_eq!(here.index.find("k").expect("reads").expect("wins").file(), Some(first));

    // With a file it is not wanted any more.
    here.runtime.block_on(async {
        let mut upload = here.files.upload().await.expect("begun");
        upload.write(b"first").await.expect("taken");
        upload.finish().await.expect("durable").keep();
    });
    assert_eq!(wanted(&here), [won]);

    // The same bytes with another epoch, in the log this time.
    here.now = here.now.plus(1_000);
    put(&mut here, rng, "other", 4, b"first");
    assert!(here.index.find("other").expect("reads").expect("wins").at.is_some());
    assert!(here.index.find("k").expect("reads").expect("wins").at.is_none());
    assert!(here.index.index().needs_file(&first).expect("reads"));

    // Without a winner there is nothing to want; with the one before it again there is.
    here.now = here.now.plus(1_000);
    put(&mut here, rng, "k", 5, b"later");
    assert_eq!(wanted(&here), [won]);
    here.compare_with_its_log();
    there.log.close();
}

#[test]
fn what_wins_again_is_wanted_if_its_bytes_never_came() {
    let rng = &mut StdRng::seed_from_u64(0);
    let ([mut here, mut there], owner, (session, delegation)) = two_hosts(rng);
    let (second, other) = owner.session(11);
    for token in [&delegation, &other] {
        there.token(token.clone());
    }
    there.settle(rng);
    let before: Vec<_> = there.core.dag().frontier().collect();
    for (session, delegation, bytes) in [(&session, &delegation, b"a"), (&second, &other, b"b")] {
        there.write(session.invoke("k", "put", delegation, 1), Some((bytes.to_vec(), BTreeMap::new())));
        there.settle(rng);
    }
    let epochs = there.epochs_for(&here).into_iter().map(|(checked, _)| (checked, Vec::new())).collect();
    here.receive(epochs, rng);
    here.settle(rng);
    let wanted = |host: &Host| host.wanted(None).into_iter().map(|wanted| wanted.hash).collect::<Vec<_>>();
    assert_eq!(wanted(&here), [BlobHash::of(b"b")]);
    here.token(revocation(&owner.key, &owner.space, &other, &before));
    here.settle(rng);
    assert_eq!(
        here.index.find("k").expect("reads").expect("wins").operation.effect.value().expect("a value").blob,
        BlobHash::of(b"a")
    );
    assert_eq!(wanted(&here), [BlobHash::of(b"a")]);
    here.compare_with_its_log();
    there.log.close();
}
