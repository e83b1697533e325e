//! What is written at one host is soon at all.

use kvspace_client::{Client, Condition, Grants, KeyKind, Meta, OwnerKey};

use super::bytes;
use crate::harness::{
    Cluster, Setup,
    cluster::{after, epoch},
    process::eventually,
    tokens::{DEL, GET, PUT, delegate, etag_of, revocation, revoke},
};

/// Hosts that never compare while a test lasts, so that only pushing brings news.
fn pushing(_: usize, setup: Setup) -> Setup {
    setup.option("network.compare_interval_s", 86_400)
}

#[test]
fn what_is_put_at_one_host_is_read_at_every_other() {
    let cluster = Cluster::with(3, pushing);
    for from in 0..3 {
        for (size, seed) in [(0, 1), (5, 2), (300, 3), (200_000, 4), (300_000, 5)] {
            let (key, value) = (format!("from/{from}/{size}"), bytes(size, seed + from as u64));
            let written = cluster.session.put(&cluster.hosts[from], &key, value.clone()).expect(200);
            for to in 0..3 {
                let answer = cluster.get_after(to, &key, &epoch(&written)).expect(200);
                assert_eq!(answer.etag(), Some(&*etag_of(&value)), "{key} at {to}");
                assert!(answer.body == value, "{key} at {to}");
            }
        }
    }
    assert_eq!(cluster.agree().len(), 15);
}

#[test]
fn what_is_put_comes_without_being_asked_for() {
    let cluster = Cluster::with(3, pushing);
    for from in 0..3 {
        let key = format!("from/{from}");
        cluster.session.put(&cluster.hosts[from], &key, "pushed").expect(200);
        for node in &cluster.hosts {
            eventually("it is pushed", || cluster.session.get(node, &key).status == 200);
        }
    }
}

#[test]
fn what_is_deleted_or_replaced_at_another_host_is_gone_everywhere() {
    let cluster = Cluster::of(3);
    for (round, size) in [10, 300_000].into_iter().enumerate() {
        let first = cluster.session.put(&cluster.hosts[0], "a", bytes(size, 1)).expect(200);
        let second = cluster.hosts[1].ask(&after(cluster.session.invoke(PUT, "a").body("second"), &epoch(&first)));
        let second = second.expect(200);
        for host in 0..3 {
            assert_eq!(cluster.get_after(host, "a", &epoch(&second)).expect(200).text(), "second", "{round}");
        }
        let deleted = cluster.hosts[2].ask(&cluster.session.invoke(DEL, "a")).expect(200);
        for host in 0..3 {
            cluster.get_after(host, "a", &epoch(&deleted)).expect(404);
            assert_eq!(cluster.list_after(host, "", &epoch(&deleted)), [] as [&str; 0]);
        }
    }
}

#[test]
fn a_read_waits_for_the_epoch_it_names_and_says_when_it_does_not_come() {
    let cluster = Cluster::of(2);
    cluster.session.put(&cluster.hosts[0], "a", "1").expect(200);
    cluster.converge();
    cluster.part(&[0], &[1]);
    let written = cluster.session.put(&cluster.hosts[0], "a", "2").expect(200);
    let read = cluster.session.invoke(GET, "a").header("x-kvspace-after", epoch(&written));
    let answer = cluster.hosts[1].ask(&read.header("x-kvspace-wait-ms", 50)).expect(425);
    assert_eq!(answer.code(), Some("frontier_behind"));
    assert!(answer.text().contains(&epoch(&written)), "{answer:?}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| cluster.get_after(1, "a", &epoch(&written)));
        cluster.heal();
        assert_eq!(waiting.join().expect("no panic").expect(200).text(), "2");
    });
}

#[test]
fn a_delegation_made_at_one_host_is_good_at_another_at_once() {
    let cluster = Cluster::of(3);
    cluster.session.put(&cluster.hosts[0], "docs/a", "value").expect(200);
    cluster.converge();
    for round in 0..10 {
        let (at, elsewhere) = (round % 3, (round + 1) % 3);
        let bob = cluster.session.pass_on(&cluster.hosts[at], "docs", &[GET, PUT]);
        // No word of it to the other host: what the token rests on, that host asks for.
        assert_eq!(bob.get(&cluster.hosts[elsewhere], "docs/a").expect(200).text(), "value");
        bob.put(&cluster.hosts[elsewhere], &format!("docs/{round}"), "by bob").expect(200);
    }
    cluster.agree();
}

#[test]
fn a_delegation_that_no_host_has_is_refused() {
    let cluster = Cluster::of(3);
    let apart = Cluster::of(1);
    cluster.session.put(&cluster.hosts[0], "docs/a", "value").expect(200);
    cluster.converge();
    // The same owner and space elsewhere: the token is good, but none of these hosts has seen it.
    let session = apart.open_session(0);
    assert_eq!(session.space, cluster.space);
    session.get(&cluster.hosts[1], "docs/a").expect(401);
    delegate(&cluster.hosts[2], session.delegation()).expect(200);
    eventually("it is known", || session.get(&cluster.hosts[1], "docs/a").status == 200);
}

#[test]
fn a_session_revoked_at_one_host_is_refused_at_the_others() {
    let cluster = Cluster::of(3);
    cluster.session.put(&cluster.hosts[0], "docs/a", "value").expect(200);
    let bob = cluster.session.pass_on(&cluster.hosts[0], "docs", &[GET, PUT]);
    cluster.converge();
    cluster.hosts.iter().for_each(|host| drop(bob.get(host, "docs/a").expect(200)));
    revoke(&cluster.hosts[1], &revocation(&cluster.session.key, bob.delegation())).expect(200);
    cluster.converge();
    for host in &cluster.hosts {
        assert_eq!(bob.get(host, "docs/a").expect(401).code(), Some("delegation_revoked"));
        bob.put(host, "docs/b", "late").expect(401);
    }
    assert_eq!(cluster.agree().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reads_at_any_host_what_it_has_written_at_another() {
    let cluster = Cluster::of(3);
    let owner = OwnerKey::from_secret(KeyKind::Ethereum, &[7; 32]).expect("a key");
    let clients = cluster.hosts.iter().map(|host| Client::new(&host.url()).expect("an address")).collect::<Vec<_>>();
    let grants = Grants::everything(&cluster.space);
    let session = clients[0].open_session(&owner, &cluster.space, grants, 3_600_000).await.expect("a session");
    let mut space = clients[0].space(session);
    for round in 0..30 {
        let value = format!("round {round}");
        space = space.at(&clients[round % 3]);
        // The write before was at another host: this one must have seen it, and says so by the condition.
        let condition = match round {
            0 => Condition::IfAbsent,
            _ => Condition::IfMatch(space.head("a").await.expect("found").etag.expect("a tag")),
        };
        space.put("a", value.clone(), Meta::new(), condition).await.expect("written");
        space = space.at(&clients[(round + 1) % 3]);
        assert_eq!(space.get("a").await.expect("found").bytes, value);
    }
}
