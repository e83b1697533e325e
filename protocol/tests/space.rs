//! The state machine of one space, driven by hand.
mod world;

use kvspace_protocol::space::{Refusal, Reply};
use world::{Host, Owner};

#[test]
fn a_put_is_answered_only_after_it_is_durable_and_then_found() {
    let owner = Owner::new(1);
    let mut host = Host::new(&owner, 2);
    host.take_token(owner.host_delegation(&host.did())).expect("the space is created");
    let session = owner.session(3);
    host.take_token(session.delegation.clone()).expect("the session is taken in");
    let Ok(Reply::Written(written)) = host.put(&session, "docs/a", b"one") else { panic!("not written") };
    assert_eq!(written.blob, Some(world::hash(b"one")));
    assert_eq!(host.live("docs/a"), Some(world::hash(b"one")));
}

#[test]
fn a_session_that_is_revoked_writes_no_more() {
    let owner = Owner::new(1);
    let mut host = Host::new(&owner, 2);
    host.take_token(owner.host_delegation(&host.did())).expect("the space is created");
    let session = owner.session(3);
    host.take_token(session.delegation.clone()).expect("the session is taken in");
    host.put(&session, "docs/a", b"one").expect("written");
    host.take_token(owner.revoke(&session.delegation, &[])).expect("revoked");
    assert!(matches!(host.put(&session, "docs/a", b"two"), Err(Refusal::Denied(_))));
    assert_eq!(host.live("docs/a"), Some(world::hash(b"one")), "what was there stays");
}

#[test]
fn a_repeated_put_gets_the_first_outcome_and_another_body_is_refused() {
    let owner = Owner::new(1);
    let mut host = Host::new(&owner, 2);
    host.take_token(owner.host_delegation(&host.did())).expect("the space is created");
    let session = owner.session(3);
    host.take_token(session.delegation.clone()).expect("the session is taken in");
    let write = session.put_write(&host, "k", b"one");
    let first = host.write(write.clone()).expect("written");
    host.put(&session, "k", b"two").expect("written");
    assert_eq!(host.write(write.clone()), Ok(first));
    let mut other = write;
    other.value.as_mut().expect("a put").blob = world::hash(b"three");
    assert_eq!(host.write(other), Err(Refusal::Duplicate));
    assert_eq!(host.live("k"), Some(world::hash(b"two")));
}

#[test]
fn two_hosts_that_wrote_apart_agree_after_they_exchange() {
    let owner = Owner::new(1);
    let (mut a, mut b) = (Host::new(&owner, 2), Host::new(&owner, 3));
    let session = owner.session(4);
    for host in [&mut a, &mut b] {
        host.take_token(owner.host_delegation(&host.did())).expect("the space is created");
        host.take_token(session.delegation.clone()).expect("the session is taken in");
    }
    a.put(&session, "k", b"from a").expect("written");
    b.now_ms += 5;
    b.put(&session, "k", b"from b").expect("written");
    let (from_a, from_b) = (a.log.clone(), b.log.clone());
    a.receive(from_b.into_iter().rev());
    b.receive(from_a.into_iter().rev());
    assert_eq!(a.frontier(), b.frontier());
    assert_eq!(a.live("k"), Some(world::hash(b"from b")));
    assert_eq!(b.live("k"), Some(world::hash(b"from b")));
}

#[test]
fn a_reopened_space_is_the_same_and_goes_on_in_a_new_chain() {
    let owner = Owner::new(1);
    let mut host = Host::new(&owner, 2);
    host.take_token(owner.host_delegation(&host.did())).expect("the space is created");
    let session = owner.session(3);
    host.take_token(session.delegation.clone()).expect("the session is taken in");
    host.put(&session, "k", b"one").expect("written");
    let (frontier, live) = (host.frontier(), host.live("k"));
    host.reopen();
    assert_eq!((host.frontier(), host.live("k")), (frontier, live));
    host.put(&session, "k", b"two").expect("written");
    assert_eq!(host.frontier().len(), 1, "the old chain's last epoch is a parent");
}
