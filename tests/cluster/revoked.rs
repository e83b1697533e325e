//! A session that is revoked while it writes at a host that cannot hear of it.

use crate::harness::{
    Cluster,
    cluster::epoch,
    tokens::{GET, PUT, etag_of, revoke},
};

#[test]
fn what_a_revoked_session_wrote_through_a_cut_off_host_is_void_everywhere() {
    let cluster = Cluster::of(3);
    let [a, b, c] = &cluster.hosts[..] else { unreachable!("three were started") };
    cluster.session.put(a, "docs/shared", "by the owner").expect(200);
    let bob = cluster.session.pass_on(a, "docs", &[GET, PUT]);
    bob.put(a, "docs/early", "by bob, early").expect(200);
    let seen = cluster.converge();
    cluster.part(&[2], &[0, 1]);
    let revocation = cluster.owner.revocation_after(&cluster.space, bob.delegation(), &seen);
    revoke(a, &revocation).expect(200);
    bob.put(a, "docs/late", "x").expect(401);
    // Nobody has told this one.
    let late = bob.put(c, "docs/late", "by bob, late").expect(200);
    bob.put(c, "docs/shared", "by bob, late").expect(200);
    bob.put(c, "docs/early", "by bob, again").expect(200);
    assert_eq!(cluster.session.get(c, "docs/shared").expect(200).text(), "by bob, late");
    cluster.heal();
    let held = cluster.agree();
    assert_eq!(held.keys().collect::<Vec<_>>(), ["docs/early", "docs/shared"]);
    assert_eq!(held["docs/early"], etag_of(b"by bob, early"));
    assert_eq!(held["docs/shared"], etag_of(b"by the owner"));
    for node in [a, b, c] {
        assert_eq!(bob.put(node, "docs/late", "x").expect(401).code(), Some("delegation_revoked"));
        let explained = cluster.explain(node, "docs/late");
        let lost = &explained["operations"][0];
        assert_eq!((lost["standing"]["state"].as_str(), lost["epoch"].as_str()), (Some("void"), Some(&*epoch(&late))));
        assert_eq!(lost["standing"]["revocation"], revocation.address().to_string());
        assert_eq!(lost["standing"]["delegation"], bob.delegation().address().to_string());
        assert!(lost["standing"]["rule"].as_str().is_some_and(|rule| !rule.is_empty()), "{lost}");
        assert_eq!(lost["signer"], bob.did().as_str());
        // What it said can be written again by whoever may.
        assert_eq!(lost["value"]["size_bytes"], 12);
    }
}

#[test]
fn a_removed_hosts_later_writes_are_void_and_its_earlier_ones_stand() {
    let cluster = Cluster::of(3);
    let [a, b, c] = &cluster.hosts[..] else { unreachable!("three were started") };
    cluster.session.put(c, "early", "by the host").expect(200);
    let seen = cluster.converge();
    cluster.part(&[2], &[0, 1]);
    revoke(a, &cluster.owner.revocation_after(&cluster.space, &cluster.words[2], &seen)).expect(200);
    cluster.session.put(c, "late", "by the host").expect(200);
    cluster.session.put(b, "other", "x").expect(200);
    cluster.heal();
    // What the removed host took in afterwards nobody takes from it.
    let read = crate::harness::cluster::converge(&[a, b], &cluster.space);
    assert!(!read.is_empty());
    cluster.session.get(a, "late").expect(404);
    assert_eq!(cluster.session.get(b, "early").expect(200).text(), "by the host");
}
