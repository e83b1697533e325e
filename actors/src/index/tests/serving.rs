//! What other hosts are answered from.

use kvspace_protocol::sync::Cursor;

use super::*;

/// A host with three values under two keys; the place of each.
fn written() -> (Host, [Place; 3]) {
    let rng = &mut StdRng::seed_from_u64(0);
    let owner = owner_of(1);
    let mut host = Host::new(2, &owner);
    host.token(owner.host_delegation(&host.party.did()));
    let (session, delegation) = owner.session(9);
    host.token(delegation.clone());
    host.settle(rng);
    let mut place = |key: &str, nonce: u64, bytes: &[u8]| {
        host.write(session.invoke(key, "put", &delegation, nonce), Some((bytes.to_vec(), BTreeMap::new())));
        host.settle(rng);
        host.index.find(key).expect("reads").expect("written").operation.place
    };
    let places = [place("a", 1, b"old"), place("a", 2, b"new"), place("b", 3, b"other")];
    (host, places)
}

#[test]
fn an_epoch_comes_with_the_values_that_win_and_no_others() {
    let (host, [old, new, _]) = written();
    let source = host.source();
    let values = |place, bytes_max| source.read(place, bytes_max).expect("readable").values;
    assert_eq!(values(old, 1_000), Vec::<Bytes>::new());
    assert_eq!(values(new, 1_000), [Bytes::from_static(b"new")]);
    assert_eq!(values(new, 3), [Bytes::from_static(b"new")]);
    assert_eq!(values(new, 2), Vec::<Bytes>::new(), "three bytes are too many");
    let branch = &host.core.dag().branches()[0];
    let tip = source.read(Place { branch: 0, n: branch.tip_n }, 0).expect("readable");
    assert_eq!((EpochId::of(&tip.epoch.header), tip.values.len()), (branch.tip, 0));
    host.log.close();
}

#[test]
fn positions_are_those_of_the_log_and_later_epochs_are_not_there() {
    let (mut host, [old, new, other]) = written();
    let source = host.source();
    let at = |place| source.position(place).expect("readable");
    assert!(at(old).is_some() && at(old) < at(new) && at(new) < at(other));
    let known = host.index.position(new).expect("held");
    assert_eq!(at(new), Some(Cursor(u64::from(known.segment) << 32 | u64::from(known.offset))));
    host.token(owner_of(1).session(10).1);
    host.settle(&mut StdRng::seed_from_u64(0));
    let branch = &host.core.dag().branches()[0];
    assert!(host.index.epoch(&branch.tip).expect("reads").is_some());
    assert_eq!(source.epoch(&branch.tip), Ok(None), "it came after the moment");
    assert!(host.source().epoch(&branch.tip).expect("reads").is_some());
    assert_eq!(at(Place { branch: 0, n: branch.tip_n + 1 }), None);
    host.log.close();
}
