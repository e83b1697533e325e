//! Who is a host of a space, and who may read it.
mod world;

use kvspace_protocol::{
    authority::{Access, AccessChange, NamedHost, Proof},
    capability::build::Claims,
    id::{Did, HostKey, Millis, SpaceId},
};
use world::{Owner, START_MS, Session, did, key, verified};

const NOW: Millis = Millis(START_MS);
const DAY_MS: i64 = 86_400_000;

fn host(seed: u8) -> HostKey {
    HostKey(key(seed).verifying_key().to_bytes())
}

fn delegation(owner: &Owner, seed: u8, until_ms: i64) -> Proof {
    let mut claims = Claims::until(Millis(START_MS + until_ms));
    claims.audience = Some(did(&key(seed)));
    claims.capabilities.insert(format!("{}/space", owner.space), vec!["tinycloud.space/host".into()]);
    verified(&claims, &owner.key)
}

fn access(owner: &Owner, held: &[&Proof], revoked: &[&Proof]) -> Access {
    let mut access = Access::new(owner.space.clone());
    held.iter().for_each(|proof| access.apply(AccessChange::Delegation((*proof).clone())));
    revoked.iter().for_each(|proof| access.apply(AccessChange::Revoked(proof.identity())));
    access
}

#[test]
fn a_host_is_whom_the_owner_names_until_that_ends_or_is_revoked() {
    let owner = Owner::new(1);
    let (a, b, c) = (delegation(&owner, 2, DAY_MS), delegation(&owner, 3, 1000), delegation(&owner, 4, DAY_MS));
    let access = access(&owner, &[&a, &b, &c], &[&c]);
    let owner_host = host(1);
    assert!(access.is_host(&host(2), NOW) && access.is_host(&host(3), NOW) && access.is_host(&owner_host, NOW));
    assert!(!access.is_host(&host(4), NOW) && !access.is_host(&host(5), NOW));
    assert!(!access.is_host(&host(3), NOW.plus(1001)));
    assert_eq!(access.hosts(NOW), [host(2), host(3), owner_host].into());
    assert_eq!(access.hosts(NOW.plus(1001)), [host(2), owner_host].into());
}

#[test]
fn whom_a_stranger_names_is_no_host() {
    let (owner, stranger) = (Owner::new(1), Owner::new(9));
    let mut claims = owner.claims();
    claims.audience = Some(did(&key(2)));
    claims.capabilities.insert(format!("{}/space", owner.space), vec!["tinycloud.space/host".into()]);
    let forged = verified(&claims, &stranger.key);
    let access = access(&owner, &[&forged], &[]);
    assert!(!access.is_host(&host(2), NOW) && access.all_hosts().is_empty());
}

#[test]
fn the_list_of_hosts_keeps_those_that_ended() {
    let owner = Owner::new(1);
    let (a, b, c) = (delegation(&owner, 2, 1000), delegation(&owner, 2, DAY_MS), delegation(&owner, 3, DAY_MS));
    let until = |ms: i64| Some(Millis(START_MS + ms));
    let named = |seed, by: &Proof, ms, is_revoked| NamedHost {
        host: host(seed),
        delegation: by.address(),
        until: until(ms),
        is_revoked,
    };
    let sorted = |access: Access| {
        let mut all = access.all_hosts();
        all.sort_by_key(|named| named.host != host(2));
        all
    };
    let all = sorted(access(&owner, &[&a, &b, &c], &[&c]));
    assert_eq!(all, [named(2, &b, DAY_MS, false), named(3, &c, DAY_MS, true)]);
    let all = sorted(access(&owner, &[&a, &b, &c], &[&b]));
    assert_eq!(all, [named(2, &a, 1000, false), named(3, &c, DAY_MS, false)], "one that is not revoked comes first");
}

fn grant(space: &SpaceId, to: &Did, path: &str, ability: &str, until_ms: i64, above: Option<&Session>) -> Claims {
    let mut claims = Claims::until(Millis(START_MS + until_ms));
    claims.audience = Some(to.clone());
    claims.capabilities.insert(format!("{space}/kv{path}"), vec![ability.into()]);
    claims.proofs = above.map(|session| session.delegation.address()).into_iter().collect();
    claims
}

#[test]
fn a_peer_reads_what_is_delegated_to_it_as_a_whole() {
    let owner = Owner::new(1);
    let (space, peer) = (&owner.space, did(&key(7)));
    let session = owner.session(4);
    let access = access(&owner, &[], &[]);
    let get = "tinycloud.kv/get";
    let direct = verified(&grant(space, &peer, "", get, 1000, None), &owner.key);
    assert!(access.may_read(&[direct.clone()], &peer, NOW));
    assert!(!access.may_read(&[direct.clone()], &did(&key(8)), NOW), "it is for somebody else");
    assert!(!access.may_read(&[direct], &peer, NOW.plus(1001)), "it has ended");
    assert!(!access.may_read(&[], &peer, NOW));
    let part = verified(&grant(space, &peer, "/docs", get, 1000, None), &owner.key);
    assert!(!access.may_read(&[part], &peer, NOW), "a part is not the whole");
    let put = verified(&grant(space, &peer, "", "tinycloud.kv/put", 1000, None), &owner.key);
    assert!(!access.may_read(&[put], &peer, NOW), "writing is not reading");
    let stranger = verified(&grant(space, &peer, "", get, 1000, None), &key(9));
    assert!(!access.may_read(&[stranger], &peer, NOW), "its signer owns nothing here");
    let handed_on = verified(&grant(space, &peer, "", get, 1000, Some(&session)), &session.key);
    assert!(!access.may_read(&[handed_on.clone()], &peer, NOW), "what it rests on is not known");
    assert!(access.may_read(&[session.delegation.clone(), handed_on], &peer, NOW));
}

#[test]
fn a_revoked_delegation_lets_nobody_read() {
    let owner = Owner::new(1);
    let (peer, session) = (did(&key(7)), owner.session(4));
    let claims = grant(&owner.space, &peer, "", "tinycloud.kv/get", 1000, Some(&session));
    let handed_on = verified(&claims, &session.key);
    assert!(access(&owner, &[&session.delegation], &[]).may_read(&[handed_on.clone()], &peer, NOW));
    for revoked in [&session.delegation, &handed_on] {
        let access = access(&owner, &[&session.delegation], &[revoked]);
        assert!(!access.may_read(&[handed_on.clone()], &peer, NOW));
    }
}

#[test]
fn anybody_reads_a_public_space() {
    let owner = Owner::new(1);
    let public = SpaceId::new(owner.space.owner(), "public").expect("a space id");
    assert!(Access::new(public).may_read(&[], &did(&key(7)), NOW));
    assert!(!Access::new(owner.space).may_read(&[], &did(&key(7)), NOW));
}
